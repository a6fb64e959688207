"""Presence of tumour in slices: planted slices are found, and the probability is the formula's."""

from __future__ import annotations

import numpy as np
import pytest

from brainseg.case import TIFF_AFFINE
from brainseg.presence import presence_probability, slice_presence

SAGITTAL = np.eye(4)[[2, 0, 1, 3]]  # voxel axes: anterior, superior, right


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Mask and probability of 8 x 6 x 5 voxels: 12 voxels of slice 3, and a doubt on slice 5 that was cleaned away."""
    mask, probability = np.zeros((8, 6, 5), np.uint8), np.full((8, 6, 5), 0.1, np.float32)
    mask[2:6, 1:4, 2] = 1
    probability[2:6, 1:4, 2], probability[0, 0, 4] = 0.9, 0.75
    return mask, probability


def test_the_planted_slice_and_no_other_is_present() -> None:
    slices = slice_presence(*planted(), np.diag([1.0, 1.0, 5.0, 1.0]), (0.5, 2.0, 5.0), (1.0, 0.0))
    assert [one.number for one in slices] == [1, 2, 3, 4, 5]
    assert [one.present for one in slices] == [False, False, True, False, False]
    assert [one.area_voxels for one in slices] == [0, 0, 12, 0, 0]
    assert [one.area_mm2 for one in slices] == [0, 0, 12.0, 0, 0]  # 0.5 x 2 mm a voxel
    assert [one.probability for one in slices] == pytest.approx([0.1, 0.1, 0.9, 0.1, 0.75])


def test_slices_are_axial_whatever_axis_runs_from_foot_to_head() -> None:
    mask, probability = (array.transpose(1, 2, 0) for array in planted())
    slices = slice_presence(mask, probability, SAGITTAL, (2.0, 5.0, 0.5), (1.0, 0.0))
    assert [(one.area_voxels, one.area_mm2) for one in slices] == [(0, 0), (0, 0), (12, 12.0), (0, 0), (0, 0)]


def test_area_in_mm2_is_unknown_without_a_spacing() -> None:
    assert {one.area_mm2 for one in slice_presence(*planted(), TIFF_AFFINE, None, (1.0, 0.0))} == {None}


def test_probability_is_logistic_in_the_logit_of_the_highest() -> None:
    highest = np.array([0.5, 0.8])
    assert presence_probability(highest, (2.0, 0.0)) == pytest.approx([0.5, 16 / 17])  # odds 1 and 4, squared
    assert presence_probability(highest, (1.0, -np.log(4))) == pytest.approx([0.2, 0.5])


def test_certainty_stays_finite_and_grows_with_the_highest() -> None:
    known = presence_probability(np.array([np.nan, 0.0, 1e-9, 0.3, 1.0]), (1.6, -2.9))
    assert np.isfinite(known).all()
    assert (np.diff(known) >= 0).all()
    assert known[-1] > 0.999
