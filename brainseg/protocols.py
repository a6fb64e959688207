"""How a figure was measured: the protocols by their letters, and what D takes for a patient and for a volume.

A, C and D are those of published figures, to stand beside them; E is the one that counts. Figures of different
protocols do not compare.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainseg.case import Case
from brainseg.errors import InputError
from brainseg.measures import CONNECTIVITY, axial_axis
from brainseg.study import Patient

Array = NDArray[Any]

PROTOCOLS = {
    "A": "slices of a random slice-level split (leaky by construction); soft Dice of shuffled batches of 16, smooth 1, "
    "mean over batches",
    "B": "slices of a random slice-level split (leaky by construction); soft Dice of shuffled batches of 32, smooth "
    "100, mean over batches",
    "C": "whole patients; one hard Dice from the sums over all of them, no smoothing",
    "D": "ten patients of the public set; a volume without its first and last slice, rounded at 0.5, largest "
    "component; one Dice a volume",
    "E": "whole patients, all slices, native grid, threshold fixed beforehand; one hard Dice a patient volume",
}
BY_SLICE = ("A", "B")

COMPLETE = 110  # patients of the public set, out of whom D's ten are drawn
SEED, DRAWN = 42, 10


def ten_of(patients: Sequence[Patient], data: Path) -> list[Patient]:
    """Protocol D's ten patients: `random.seed(42); random.sample(sorted(names), 10)` of the complete public set.

    Raises:
        InputError: `data` does not hold 110 patients; a sample of fewer is another sample.
    """
    if len(patients) != COMPLETE:
        cause = f"holds {len(patients)} patients; protocol D draws its ten out of {COMPLETE}"
        raise InputError(data, cause, "give the complete public set, or take --protocol E")
    chosen = set(random.Random(SEED).sample(sorted(patient.name for patient in patients), DRAWN))
    return [patient for patient in patients if patient.name in chosen]


def volume_of_d(
    case: Case, truth: Array, mask: Array, probability: Array | None
) -> tuple[Case, Array, Array, Array | None]:
    """Case, truth, mask and probability as protocol D scores them, without the first and the last axial slice.

    The mask is the largest component (26-connected, the first of equals) of the probability above 0.5, or of `mask`
    where there is no probability. The network saw all slices.

    Raises:
        InputError: a case of fewer than three slices.
    """
    axis = axial_axis(case.affine)
    if case.shape[axis] < 3:
        raise InputError(case.name, f"has {case.shape[axis]} slices", "protocol D needs three or more")
    inner = tuple(slice(1, -1) if i == axis else slice(None) for i in range(3))
    of_image = (slice(None), *inner)
    rounded = np.asarray(mask if probability is None else probability)[inner] > 0.5
    kept = _largest(rounded).astype(np.uint8)
    shown = replace(case, image=case.image[of_image])
    return shown, truth[inner], kept, None if probability is None else probability[inner]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 26-connected component of `mask`; all of it where it is empty."""
    labels, count = ndimage.label(mask, CONNECTIVITY)
    if not count:
        return mask
    largest: NDArray[np.bool_] = labels == 1 + np.bincount(labels[labels > 0] - 1).argmax()
    return largest
