"""How well one predicted mask agrees with the truth: pure functions on a patient's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainseg.case import Spacing
from brainseg.measures import (
    CONNECTIVITY,
    axial_axis,
    case_confidence,
    dice,
    hd95,
    iou,
    precision,
    recall,
    surface_dice,
    volume_ml,
)

TOLERANCE = 2.0  # of surface Dice: mm, or pixels where the spacing is unknown
BINS = 101  # of the probability, [0, 0.01) to [0.99, 1) and 1 itself, as TensorBoard's precision-recall curve has them
UNDOUBTED = 0.01  # voxels below this probability, nearly all of a scan, do not count towards calibration


@dataclass(frozen=True)
class CaseScores:
    """One patient under protocol E.

    Attributes:
        case: name.
        unit: "mm", or "pixels" where the spacing is unknown; of `hd95` and of the tolerance of `surface_dice`.
        dice, iou, precision, recall, hd95, surface_dice: of the whole volume; empty masks as in `measures`.
        dice_tumour_slices: mean Dice of the slices that hold tumour in truth; NaN without any.
        voxels, true_voxels, volume_ml, true_volume_ml: sizes.
        lesions: number of predicted lesions; `false_lesions` of them touch no true one.
        true_lesions: number of true lesions; `found_lesions` of them touch a predicted voxel.
        slice_truth: for every axial slice whether it holds tumour.
        slice_score: the highest probability in it (of a mask alone 0 or 1); the patient's is the highest of these.
        slice_marked: whether the mask marks anything in it.
        confidence: `measures.case_confidence`; NaN where only a mask was given.
        positives, negatives: voxels inside and outside the truth, counted in `BINS` bins of probability; none where
            only a mask was given.
    """

    case: str
    unit: str
    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float
    surface_dice: float
    dice_tumour_slices: float
    voxels: int
    true_voxels: int
    volume_ml: float | None
    true_volume_ml: float | None
    lesions: int
    false_lesions: int
    true_lesions: int
    found_lesions: int
    slice_truth: NDArray[np.bool_]
    slice_score: NDArray[np.float64]
    slice_marked: NDArray[np.bool_]
    confidence: float
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]


def score_case(
    case: str,
    truth: NDArray[Any],
    mask: NDArray[Any],
    probability: NDArray[Any] | None,
    affine: NDArray[np.float64],
    spacing_mm: Spacing | None,
) -> CaseScores:
    """Scores of one patient; `truth`, `mask` and `probability` are `(X, Y, Z)` on its own grid.

    Raises:
        ValueError: shapes that differ.
    """
    truth, mask = np.asarray(truth) != 0, np.asarray(mask) != 0
    if not truth.shape == mask.shape == (truth if probability is None else probability).shape or truth.ndim != 3:
        raise ValueError(f"truth, mask and probability must have one shape (X, Y, Z), got {truth.shape}, {mask.shape}")
    spacing = spacing_mm or (1.0, 1.0, 1.0)
    axis = axial_axis(affine)
    slices = [(np.take(mask, i, axis), np.take(truth, i, axis)) for i in range(truth.shape[axis])]
    with_tumour = [dice(marked, true) for marked, true in slices if true.any()]
    others = tuple(i for i in range(3) if i != axis)
    score = mask if probability is None else probability
    lesions, false_lesions = _components(mask, truth)
    true_lesions, missed = _components(truth, mask)
    positives, negatives = _binned(probability, truth)
    return CaseScores(
        case=case,
        unit="pixels" if spacing_mm is None else "mm",
        dice=dice(mask, truth),
        iou=iou(mask, truth),
        precision=precision(mask, truth),
        recall=recall(mask, truth),
        hd95=hd95(mask, truth, spacing),
        surface_dice=surface_dice(mask, truth, spacing, TOLERANCE),
        dice_tumour_slices=float(np.mean(with_tumour)) if with_tumour else float("nan"),
        voxels=int(mask.sum()),
        true_voxels=int(truth.sum()),
        volume_ml=None if spacing_mm is None else volume_ml(mask, spacing_mm),
        true_volume_ml=None if spacing_mm is None else volume_ml(truth, spacing_mm),
        lesions=lesions,
        false_lesions=false_lesions,
        true_lesions=true_lesions,
        found_lesions=true_lesions - missed,
        slice_truth=np.any(truth, axis=others, keepdims=True).ravel(),
        slice_score=np.asarray(score, float).max(axis=others),
        slice_marked=np.any(mask, axis=others, keepdims=True).ravel(),
        confidence=float("nan") if probability is None else case_confidence(probability, mask),
        positives=positives,
        negatives=negatives,
    )


def _binned(probability: NDArray[Any] | None, truth: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels inside and outside the truth in each bin; bin i begins at the probability i / (BINS - 1)."""
    if probability is None:
        return np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    bins = np.clip((np.asarray(probability) * (BINS - 1)).astype(np.int64), 0, BINS - 1)
    positives = np.bincount(bins[truth], minlength=BINS)
    return positives, np.bincount(bins.ravel(), minlength=BINS) - positives


def _components(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    """Number of lesions of `mask` (26-connected), and how many of them touch no voxel of `other`."""
    labels, count = ndimage.label(mask, CONNECTIVITY)
    touched = np.unique(labels[other])
    return int(count), int(count - np.count_nonzero(touched))
