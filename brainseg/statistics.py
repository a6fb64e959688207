"""Figures over patients: mean, median and bootstrap interval; detection; calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainseg.scores import BINS, TOLERANCE, CaseScores

RESAMPLES = 10_000
POOLED_RESAMPLES = 1_000
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """One figure over patients, with its 95% interval (patients resampled) and the number of patients behind it."""

    metric: str
    value: float
    low: float
    high: float
    median: float | None
    n: int


def summarise(scores: Sequence[CaseScores], *, seed: int = 0) -> list[Figure]:
    """Protocol E's figures. A patient for whom a metric has no finite value does not count towards it: see `n`."""
    unit = scores[0].unit if len({one.unit for one in scores}) == 1 else "mm or pixels"
    per_patient: dict[str, list[float]] = {
        "Dice": [one.dice for one in scores],
        "IoU": [one.iou for one in scores],
        "precision": [one.precision for one in scores],
        "recall": [one.recall for one in scores],
        f"HD95 ({unit})": [one.hd95 for one in scores],
        f"surface Dice at {TOLERANCE:g} {unit}": [one.surface_dice for one in scores],
        "Dice of tumour slices": [one.dice_tumour_slices for one in scores],
        "lesions found": [one.found_lesions / one.true_lesions for one in scores if one.true_lesions],
        "false lesions a patient": [float(one.false_lesions) for one in scores],
    }
    figures = [_per_patient(name, values, seed) for name, values in per_patient.items()]
    pooled: dict[str, Callable[[Sequence[CaseScores]], float]] = {
        "slice detection, sensitivity": slice_sensitivity,
        "slice detection, specificity": slice_specificity,
        "slice detection, AUC": slice_auc,
        "patient detection, sensitivity": patient_sensitivity,
        "patient detection, specificity": patient_specificity,
        "calibration error (ECE)": expected_calibration_error,
    }
    return figures + [_pooled(name, scores, statistic, seed) for name, statistic in pooled.items()]


def bootstrap_mean(values: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of `values` (n,), resampled with replacement."""
    random = np.random.default_rng(seed)
    means = values[random.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def slice_sensitivity(scores: Sequence[CaseScores]) -> float:
    """Share of the slices with tumour in which the mask marks anything."""
    return _share([one.slice_marked[one.slice_truth] for one in scores])


def slice_specificity(scores: Sequence[CaseScores]) -> float:
    """Share of the slices without tumour in which the mask marks nothing."""
    return _share([~one.slice_marked[~one.slice_truth] for one in scores])


def slice_auc(scores: Sequence[CaseScores]) -> float:
    """Area under the ROC curve of the slices' highest probability; ties count half."""
    from scipy.stats import rankdata

    truth = np.concatenate([one.slice_truth for one in scores])
    score = np.concatenate([one.slice_score for one in scores])
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    rank_sum = float(rankdata(score)[truth].sum())
    return (rank_sum - positive * (positive + 1) / 2) / (positive * negative)


def patient_sensitivity(scores: Sequence[CaseScores]) -> float:
    """Share of the patients with tumour whose mask is not empty."""
    return _share([np.array([one.voxels > 0]) for one in scores if one.true_voxels])


def patient_specificity(scores: Sequence[CaseScores]) -> float:
    """Share of the patients without tumour whose mask is empty."""
    return _share([np.array([one.voxels == 0]) for one in scores if not one.true_voxels])


def expected_calibration_error(scores: Sequence[CaseScores]) -> float:
    """Mean distance of probability and frequency over the voxels that are in doubt or in the truth.

    A bin's probability is taken at its middle. Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    positives = np.sum([one.positives for one in scores], axis=0)
    counts = positives + np.sum([one.negatives for one in scores], axis=0)
    middle = (np.arange(BINS) + 0.5) / BINS
    total = counts.sum()
    if not total:
        return float("nan")
    return float(np.abs(positives - counts * middle).sum() / total)


def _share(parts: Sequence[NDArray[np.bool_]]) -> float:
    joined = np.concatenate([*parts, np.zeros(0, bool)])
    return float(joined.mean()) if joined.size else float("nan")


def _per_patient(name: str, values: Sequence[float], seed: int) -> Figure:
    finite = np.array([value for value in values if np.isfinite(value)])
    if not finite.size:
        return Figure(name, float("nan"), float("nan"), float("nan"), float("nan"), 0)
    low, high = bootstrap_mean(finite, seed=seed)
    return Figure(name, float(finite.mean()), low, high, float(np.median(finite)), len(finite))


def _pooled(
    name: str, scores: Sequence[CaseScores], statistic: Callable[[Sequence[CaseScores]], float], seed: int
) -> Figure:
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(scores), (POOLED_RESAMPLES, len(scores)))
    values = np.array([statistic([scores[i] for i in draw]) for draw in draws])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if values.size else (np.nan, np.nan)
    return Figure(name, statistic(scores), float(low), float(high), None, len(scores))
