"""Protocols C and D by hand: the ten patients, the volume without its ends, one Dice of everything."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainseg.case import TIFF_AFFINE, Case
from brainseg.errors import InputError
from brainseg.protocols import ten_of, volume_of_d
from brainseg.scores import CaseScores, score_case
from brainseg.statistics import global_dice
from brainseg.study import Patient, Series

NAMES = [f"P{i:03d}" for i in range(110)]


def patients(names: list[str]) -> list[Patient]:
    return [Patient(name, Path(name), Series("tiff", ())) for name in names]


def case(shape: tuple[int, int, int], affine: np.ndarray = TIFF_AFFINE) -> Case:
    return Case("one", np.zeros((3, *shape), np.float32), affine, None, "tiff")


def scored(truth: np.ndarray, mask: np.ndarray) -> CaseScores:
    return score_case("one", truth, mask, None, TIFF_AFFINE, None)


def line(voxels: int, length: int = 40) -> np.ndarray:
    mask = np.zeros((length, 3, 3), np.uint8)
    mask[:voxels, 1, 1] = 1
    return mask


# --- D


def test_the_ten_are_the_sample_of_seed_42_whatever_the_order_of_the_patients() -> None:
    random.seed(42)
    expected = sorted(random.sample(sorted(NAMES), 10))
    assert sorted(one.name for one in ten_of(patients(NAMES[::-1]), Path("set"))) == expected


@pytest.mark.parametrize("held", [10, 90, 109, 111])
def test_set_that_is_not_complete_is_refused(held: int) -> None:
    names = [f"P{i:03d}" for i in range(held)]
    with pytest.raises(InputError, match=rf"^set: holds {held} patients; protocol D draws its ten out of 110; give"):
        ten_of(patients(names), Path("set"))


def test_first_and_last_slice_do_not_count_in_d() -> None:
    truth = np.zeros((4, 4, 5), np.uint8)
    truth[1, 1] = 1
    probability = truth * np.float32(0.75)
    shown, true, mask, left = volume_of_d(case((4, 4, 5)), truth, truth, probability)
    assert shown.shape == true.shape == mask.shape == (4, 4, 3)
    assert (int(true.sum()), int(mask.sum())) == (3, 3)
    assert left is not None
    assert left.shape == (4, 4, 3)


def test_slices_lie_along_the_axial_axis_whichever_it_is() -> None:
    affine = np.eye(4)[[1, 2, 0, 3]]  # the first voxel axis runs head-foot
    truth = np.ones((5, 4, 4), np.uint8)
    shown, true, *_ = volume_of_d(case((5, 4, 4), affine), truth, truth, None)
    assert shown.shape == true.shape == (3, 4, 4)


def test_largest_component_of_the_rounded_probability_is_the_mask_of_d() -> None:
    probability = np.zeros((6, 6, 5), np.float32)
    probability[0, 0, 1:4] = 0.51
    probability[1, 1, 3] = 0.9  # touches at a corner
    probability[4, 4, 1:4] = 0.5  # rounds to 0
    probability[5, 0, 1] = 1.0
    mask = np.ones((6, 6, 5), np.uint8)
    *_, kept, _ = volume_of_d(case((6, 6, 5)), mask, mask, probability)
    assert sorted(map(tuple, np.argwhere(kept).tolist())) == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 1, 2)]
    *_, kept, left = volume_of_d(case((6, 6, 5)), mask, mask, None)
    assert left is None
    assert kept.all()


def test_empty_prediction_stays_empty_in_d() -> None:
    empty = np.zeros((4, 4, 3), np.uint8)
    *_, kept, _ = volume_of_d(case((4, 4, 3)), empty, empty, None)
    assert not kept.any()


def test_case_of_two_slices_has_none_left_for_d() -> None:
    empty = np.zeros((4, 4, 2), np.uint8)
    with pytest.raises(InputError, match="has 2 slices"):
        volume_of_d(case((4, 4, 2)), empty, empty, None)


# --- C


def test_c_pools_the_voxels_of_all_patients() -> None:
    large, small, missed = scored(line(30), line(30)), scored(line(2), line(4)), scored(line(6), line(0))
    figure = global_dice([large, small, missed])
    assert figure.value == pytest.approx(2 * 32 / (60 + 6 + 6))
    assert figure.n == 3
    assert figure.low < figure.value < figure.high


def test_c_of_patients_whose_masks_are_empty_is_nan_and_one_among_others_does_not_count() -> None:
    empty = scored(line(0), line(0))
    assert math.isnan(global_dice([empty]).value)
    figure = global_dice([empty, scored(line(10), line(30))])
    assert (figure.value, figure.n) == (pytest.approx(0.5), 1)


def test_c_has_no_smoothing() -> None:
    assert global_dice([scored(line(1), line(0))]).value == 0
    assert global_dice([replace(scored(line(5), line(5)), case="two")]).value == 1
