"""Which axial slices hold tumour, and how probable that is: pure functions on the scan's own grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Spacing
from brainseg.measures import axial_axis

Presence = tuple[float, float]
LEAST = 1e-6  # a logit needs a probability between this and its opposite


@dataclass(frozen=True)
class SlicePresence:
    """Whether one axial slice holds tumour.

    Attributes:
        number: its place along the scan's own axial axis, counted from 1 as viewers do, whatever its file is called.
        area_voxels: marked voxels.
        area_mm2: their area; None where the spacing is unknown.
        probability: that the slice holds tumour, of the probability before clean-up.
        present: whether the mask, which was cleaned up, marks anything in it.
    """

    number: int
    area_voxels: int
    area_mm2: float | None
    probability: float
    present: bool


def presence_probability(highest: NDArray[Any], presence: Presence) -> NDArray[np.float64]:
    """Probability that a slice holds tumour: a logistic function of the logit of the `highest` probability in it.

    The highest of many thousand voxels is too sure of tumour. `presence`, slope and offset, is fitted by
    scripts/calibrate.py (Platt, Advances in Large Margin Classifiers, 1999).
    """
    from scipy.special import expit, logit

    slope, offset = presence
    inside = np.clip(np.nan_to_num(np.asarray(highest, float)), LEAST, 1 - LEAST)
    result: NDArray[np.float64] = expit(slope * logit(inside) + offset)
    return result


def slice_presence(
    mask: NDArray[Any],
    probability: NDArray[Any],
    affine: NDArray[np.float64],
    spacing_mm: Spacing | None,
    presence: Presence,
) -> list[SlicePresence]:
    """One for each axial slice, in the order of the scan's own axis; `mask` and `probability` are (X, Y, Z)."""
    known = presence_probability(np.asarray(probability).max(axis=_within(affine)), presence)
    return counted(mask, affine, spacing_mm, known.tolist())


def counted(
    mask: NDArray[Any], affine: NDArray[np.float64], spacing_mm: Spacing | None, known: Sequence[float]
) -> list[SlicePresence]:
    """The same where each slice's probability is `known` already, as for a mask that was corrected since."""
    within = _within(affine)
    areas = np.count_nonzero(np.asarray(mask), axis=within)
    pixel_mm2 = None if spacing_mm is None else math.prod(spacing_mm[i] for i in within)
    return [
        SlicePresence(
            number=number,
            area_voxels=int(area),
            area_mm2=None if pixel_mm2 is None else int(area) * pixel_mm2,
            probability=one,
            present=bool(area),
        )
        for number, (area, one) in enumerate(zip(areas, known, strict=True), start=1)
    ]


def _within(affine: NDArray[np.float64]) -> tuple[int, ...]:
    """The two axes of an axial slice."""
    return tuple(i for i in range(3) if i != axial_axis(affine))
