"""Figures over patients: mean, median and bootstrap interval; detection; calibration.

Every interval draws whole patients again, never slices, voxels or lesions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainseg.presence import Presence, presence_probability
from brainseg.scores import BINS, TOLERANCE, UNDOUBTED, CaseScores

Floats = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
SLICE_SENSITIVITY, SLICE_SPECIFICITY, SLICE_AUC = (
    f"slice detection, {what}" for what in ("sensitivity", "specificity", "AUC")
)
PATIENT_SENSITIVITY, PATIENT_SPECIFICITY, PATIENT_AUC = (
    f"patient detection, {what}" for what in ("sensitivity", "specificity", "AUC")
)
PRESENCE_BINS = 10  # of a slice's probability: slices are some thousand where voxels are millions


@dataclass(frozen=True)
class Figure:
    """One figure over patients.

    Attributes:
        metric: its name, with its unit.
        value: mean over patients; of detection and calibration that of all patients' slices or voxels together.
        low, high: 95% interval of `value`; NaN where there is none.
        median: over patients; None for detection and calibration.
        n: number of patients behind it.
        note: what else to know ("1 of 90 infinite").
    """

    metric: str
    value: float
    low: float
    high: float
    median: float | None
    n: int
    note: str = ""


def summarise(scores: Sequence[CaseScores], *, presence: Presence | None = None, seed: int = 0) -> list[Figure]:
    """Protocol E's figures; `presence` is the bundle's, without which its calibration is unknown.

    A patient for whom a metric is not defined (NaN) does not count towards it: see `n`. An infinite distance (one mask
    of the two is empty) stays in: the mean is then infinite, `note` gives that of the others, and the median bears it.
    Patients with and without a spacing are never averaged into one distance.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("scores must not be empty")
    by_slice = [(one.slice_truth, one.slice_score) for one in scores]
    by_patient = [(np.array([one.true_voxels > 0]), one.slice_score.max(keepdims=True)) for one in scores]
    return [
        *(mean_figure(name, values, seed) for name, values in _patient_metrics(scores)),
        ratio_figure(SLICE_SENSITIVITY, *_marked_of_tumour_slices(scores), seed, "no slice has tumour"),
        ratio_figure(SLICE_SPECIFICITY, *_unmarked_of_other_slices(scores), seed, "every slice has tumour"),
        _auc(SLICE_AUC, by_slice, seed, "needs slices with and without tumour"),
        _presence_calibration(scores, presence, seed),
        ratio_figure(PATIENT_SENSITIVITY, *_marked_of_tumour_patients(scores), seed, "no patient has tumour"),
        ratio_figure(PATIENT_SPECIFICITY, *_unmarked_of_other_patients(scores), seed, "every patient has tumour"),
        _auc(PATIENT_AUC, by_patient, seed, "needs patients with and without tumour"),
        _calibration(scores, seed),
    ]


def global_dice(scores: Sequence[CaseScores], *, seed: int = 0) -> Figure:
    """Protocol C's figure: one hard Dice from the sums over all patients, unsmoothed; NaN where all masks are empty.

    Large tumours count for more than small ones, and an empty patient for nothing. Patients are independent and their
    slices are not, so the interval draws patients.
    """
    sizes = np.array([one.voxels + one.true_voxels for one in scores], float)
    shared = sizes * np.nan_to_num([one.dice for one in scores])
    return ratio_figure("Dice of all patients together", shared, sizes, seed)


def _patient_metrics(scores: Sequence[CaseScores]) -> Iterator[tuple[str, list[float]]]:
    yield "Dice", [one.dice for one in scores]
    yield "IoU", [one.iou for one in scores]
    yield "precision", [one.precision for one in scores]
    yield "recall", [one.recall for one in scores]
    for unit in sorted({one.unit for one in scores}):
        own = [one for one in scores if one.unit == unit]
        yield f"HD95 ({unit})", [one.hd95 for one in own]
        yield f"surface Dice at {TOLERANCE:g} {unit}", [one.surface_dice for one in own]
    yield "Dice of tumour slices", [one.dice_tumour_slices for one in scores]
    yield "lesions found", [one.found_lesions / one.true_lesions for one in scores if one.true_lesions]
    yield "false lesions a patient", [float(one.false_lesions) for one in scores]


def bootstrap_mean(values: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of `values` (n,), resampled with replacement; NaN of one alone."""
    if len(values) < 2:
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    return interval(values[random.integers(0, len(values), (resamples, len(values)))].mean(axis=1))


def slice_sensitivity(scores: Sequence[CaseScores]) -> float:
    """Share of the slices with tumour in which the mask marks anything; NaN without such a slice."""
    return _divided(*_marked_of_tumour_slices(scores))


def slice_specificity(scores: Sequence[CaseScores]) -> float:
    """Share of the slices without tumour in which the mask marks nothing; NaN without such a slice."""
    return _divided(*_unmarked_of_other_slices(scores))


def slice_auc(scores: Sequence[CaseScores]) -> float:
    """Area under the ROC curve of the slices' highest probability; ties count half, NaN without both kinds."""
    return _Roc([(one.slice_truth, one.slice_score) for one in scores]).area(np.ones((1, len(scores)))).item()


def roc_curve(truth: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats, Floats]:
    """Thresholds, sensitivity and specificity where `score` at or above each threshold counts as tumour.

    A threshold for every distinct score, from the highest; NaN for what is not defined without both kinds.
    """
    thresholds = np.unique(score)[::-1]
    called = score[None] >= thresholds[:, None]
    found, spared = (called & truth).sum(axis=1).astype(float), (~called & ~truth).sum(axis=1).astype(float)
    wholes = (np.full(len(thresholds), float(np.count_nonzero(kind))) for kind in (truth, ~truth))
    sensitivity, specificity = map(_quotient, (found, spared), wholes)
    return thresholds, sensitivity, specificity


def detection(scores: Sequence[CaseScores]) -> dict[str, tuple[NDArray[np.bool_], Floats]]:
    """Truth and score of all "slices" and of all "patients"; a patient's score is the highest of the slices'."""
    return {
        "slices": (
            np.concatenate([one.slice_truth for one in scores]),
            np.concatenate([one.slice_score for one in scores]),
        ),
        "patients": (
            np.array([one.true_voxels > 0 for one in scores]),
            np.array([one.slice_score.max() for one in scores]),
        ),
    }


def patient_sensitivity(scores: Sequence[CaseScores]) -> float:
    """Share of the patients with tumour whose mask is not empty; NaN without such a patient."""
    return _divided(*_marked_of_tumour_patients(scores))


def patient_specificity(scores: Sequence[CaseScores]) -> float:
    """Share of the patients without tumour whose mask is empty; NaN without such a patient."""
    return _divided(*_unmarked_of_other_patients(scores))


def expected_calibration_error(scores: Sequence[CaseScores]) -> float:
    """Mean distance of probability and frequency over the voxels of probability 0.01 (`UNDOUBTED`) or more.

    Nearly all of a scan is sure background and would flatter every network. A bin's probability is taken at its middle.
    Guo et al., On calibration of modern neural networks, ICML 2017, equation 3, for one class. NaN without a
    probability map.
    """
    return _calibration_error(*_binned(scores), np.ones((1, len(scores)))).item()


def _marked_of_tumour_slices(scores: Sequence[CaseScores]) -> tuple[Floats, Floats]:
    """Part and whole of each patient, as for the three below."""
    return _counted([(one.slice_marked & one.slice_truth, one.slice_truth) for one in scores])


def _unmarked_of_other_slices(scores: Sequence[CaseScores]) -> tuple[Floats, Floats]:
    return _counted([(~one.slice_marked & ~one.slice_truth, ~one.slice_truth) for one in scores])


def _marked_of_tumour_patients(scores: Sequence[CaseScores]) -> tuple[Floats, Floats]:
    return _counted([(one.voxels > 0 and one.true_voxels > 0, one.true_voxels > 0) for one in scores])


def _unmarked_of_other_patients(scores: Sequence[CaseScores]) -> tuple[Floats, Floats]:
    return _counted([(one.voxels == 0 and one.true_voxels == 0, one.true_voxels == 0) for one in scores])


def _counted(pairs: Sequence[tuple[NDArray[np.bool_] | bool, NDArray[np.bool_] | bool]]) -> tuple[Floats, Floats]:
    parts, wholes = zip(*pairs, strict=True)
    return np.array([np.sum(part) for part in parts], float), np.array([np.sum(whole) for whole in wholes], float)


def _divided(part: Floats, whole: Floats) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")


class _Roc:
    """The area under the ROC curve of slices (or patients) when each patient counts any number of times.

    It is the share of pairs of one with and one without tumour in which the former scores higher, ties counting half
    (Hanley and McNeil, Radiology 1982); `won[i, j]` counts those of the tumour of patient i and the others of j.
    """

    def __init__(self, patients: Sequence[tuple[NDArray[np.bool_], Floats]]) -> None:
        truth = np.concatenate([truth for truth, _ in patients])
        levels, level = np.unique(np.concatenate([score for _, score in patients]), return_inverse=True)
        owner = np.repeat(np.arange(len(patients)), [len(truth) for truth, _ in patients])
        positives, negatives = np.zeros((2, len(patients), len(levels)))
        np.add.at(positives, (owner[truth], level[truth]), 1)
        np.add.at(negatives, (owner[~truth], level[~truth]), 1)
        self.won: Floats = positives @ (negatives.cumsum(axis=1) - negatives / 2).T
        self.positives: Floats = positives.sum(axis=1)
        self.negatives: Floats = negatives.sum(axis=1)

    def area(self, times: Floats) -> Floats:
        """Areas `(r,)` for `times` (r, n) that each patient counts; NaN without both kinds."""
        pairs = (times @ self.positives) * (times @ self.negatives)
        return _quotient(((times @ self.won) * times).sum(axis=1), pairs)


def _binned(scores: Sequence[CaseScores]) -> tuple[Floats, Floats]:
    return np.array([one.positives for one in scores], float), np.array([one.negatives for one in scores], float)


def _calibration_error(positives: Floats, negatives: Floats, times: Floats) -> Floats:
    """Errors `(r,)` of binned voxels (n, BINS), for `times` (r, n) that each patient counts."""
    first = round(UNDOUBTED * (BINS - 1))
    middle = np.minimum((np.arange(first, BINS) + 0.5) / (BINS - 1), 1)
    true = times @ positives[:, first:]
    counts = true + times @ negatives[:, first:]
    return _quotient(np.abs(true - counts * middle).sum(axis=1), counts.sum(axis=1))


def _quotient(part: Floats, whole: Floats) -> Floats:
    result: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return result


def mean_figure(name: str, values: Sequence[float], seed: int) -> Figure:
    """Mean and median of one value a patient; NaN does not count, and infinite values are noted."""
    defined = np.array([value for value in values if not np.isnan(value)])
    if not defined.size:
        return Figure(name, float("nan"), float("nan"), float("nan"), float("nan"), 0)
    low, high = bootstrap_mean(defined, seed=seed)
    finite = defined[np.isfinite(defined)]
    note = ""
    if finite.size < defined.size:
        note = f"{defined.size - finite.size} of {defined.size} infinite (one mask empty)"
        note += f", mean of the others {finite.mean():.3f}" if finite.size else ""
    return Figure(name, float(defined.mean()), low, high, quantile(defined, 0.5), len(defined), note)


def ratio_figure(name: str, part: Floats, whole: Floats, seed: int, undefined: str = "") -> Figure:
    """Quotient of two sums over patients; `part` and `whole` (n,) are each patient's own share of them.

    Where `whole` is nothing the value is NaN, and the note says why in the words of `undefined`.
    """
    low, high = _resampled(lambda times: _quotient(times @ part, times @ whole), len(part), seed)
    note = "" if whole.sum() else undefined
    return Figure(name, _divided(part, whole), low, high, None, int(np.count_nonzero(whole)), note)


def _auc(name: str, patients: Sequence[tuple[NDArray[np.bool_], Floats]], seed: int, undefined: str) -> Figure:
    roc = _Roc(patients)
    value = roc.area(np.ones((1, len(patients)))).item()
    low, high = _resampled(roc.area, len(patients), seed)
    note = undefined if np.isnan(value) else ""
    return Figure(name, value, low, high, None, 0 if np.isnan(value) else len(patients), note)


def _calibration(scores: Sequence[CaseScores], seed: int) -> Figure:
    positives, negatives = _binned(scores)
    low, high = _resampled(lambda times: _calibration_error(positives, negatives, times), len(scores), seed)
    known = int(np.count_nonzero(positives.sum(axis=1) + negatives.sum(axis=1)))
    return Figure("calibration error (ECE)", expected_calibration_error(scores), low, high, None, known)


def presence_error(probability: Floats, truth: NDArray[np.bool_]) -> float:
    """Expected calibration error (n,) of the probability that slices hold tumour; NaN without a slice.

    The mean distance, over slices, of probability and frequency in `PRESENCE_BINS` bins of the probability.
    """
    excess, counts = _presence_binned(probability, truth)
    return _divided(np.abs(excess), counts)


def _presence_binned(probability: Floats, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Summed probability minus tumour, and the number of slices, in each bin."""
    bins = np.minimum((probability * PRESENCE_BINS).astype(int), PRESENCE_BINS - 1)
    excess: Floats = np.bincount(bins, probability - truth, minlength=PRESENCE_BINS).astype(float)
    counts: Floats = np.bincount(bins, minlength=PRESENCE_BINS).astype(float)
    return excess, counts


def _presence_calibration(scores: Sequence[CaseScores], presence: Presence | None, seed: int) -> Figure:
    name, nan = "slice presence, calibration error (ECE)", float("nan")
    if presence is None or any(np.isnan(one.confidence) for one in scores):
        return Figure(name, nan, nan, nan, None, 0, "needs a bundle's probabilities")
    known = [_presence_binned(presence_probability(one.slice_score, presence), one.slice_truth) for one in scores]
    excess, counts = (np.array(part) for part in zip(*known, strict=True))

    def error(times: Floats) -> Floats:
        return _quotient(np.abs(times @ excess).sum(axis=1), (times @ counts).sum(axis=1))

    low, high = _resampled(error, len(scores), seed)
    return Figure(name, error(np.ones((1, len(scores)))).item(), low, high, None, len(scores))


def _resampled(statistic: Callable[[Floats], Floats], n: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of a statistic of `times` (r, n) that each of `n` patients is drawn; NaN of one."""
    if n < 2:
        return float("nan"), float("nan")
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
    values = statistic(times)
    return interval(values[~np.isnan(values)])


def interval(values: Floats) -> tuple[float, float]:
    """95% percentile interval of resampled `values` (r,); NaN of nothing."""
    return quantile(values, (1 - LEVEL) / 2), quantile(values, (1 + LEVEL) / 2)


def quantile(values: Floats, q: float) -> float:
    """Linear between neighbours, as numpy's, but infinite where a neighbour is; NaN of nothing."""
    if not values.size:
        return float("nan")
    ordered = np.sort(values)
    place = q * (len(ordered) - 1)
    below, above = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    return below if below == above else below + (place - math.floor(place)) * (above - below)
