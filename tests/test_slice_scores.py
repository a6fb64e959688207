"""Protocols A and B by hand: batches, smoothing, empty slices, and whom the intervals draw."""

from __future__ import annotations

import math

import numpy as np
import pytest

from brainseg.slice_scores import SliceSums, batched, slice_figures, slice_sums, soft_dice, soft_iou
from brainseg.statistics import Figure


def one(patient: str, both: int, marked: int, true: int, pixels: int = 100) -> SliceSums:
    """A slice of which only a mask was given."""
    right = pixels - (marked - both) - (true - both)
    return SliceSums(patient, f"{patient}/1.tif", both, marked, true, both, marked, right, pixels)


def figures(slices: list[SliceSums], protocol: str = "A") -> dict[str, Figure]:
    return {figure.metric: figure for figure in slice_figures(slices, protocol)}


def test_sums_of_a_slice_are_soft_where_a_probability_is_given() -> None:
    truth = np.array([[1, 1], [0, 0]])
    mask = np.array([[1, 0], [1, 0]])
    probability = np.array([[0.75, 0.5], [0.625, 0.0]])
    sums = slice_sums("P", "P/1.tif", truth, mask, probability)
    assert sums == SliceSums("P", "P/1.tif", 1.25, 1.875, 2, 1, 2, 2, 4)  # 0.5 is not above 0.5
    hard = slice_sums("P", "P/1.tif", truth, mask)
    assert hard == SliceSums("P", "P/1.tif", 1.0, 2.0, 2, 1, 2, 2, 4)


def test_masks_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        slice_sums("P", "P/1.tif", np.zeros((2, 2)), np.zeros((2, 3)))


def test_soft_dice_and_iou_have_known_values() -> None:
    both, predicted, true = np.array([[1.25, 0, 0], [1.875, 0, 0], [2, 0, 9]])
    np.testing.assert_allclose(soft_dice(both, predicted, true, 1.0), [3.5 / 4.875, 1, 1 / 10])
    np.testing.assert_allclose(soft_iou(both, predicted, true, 1.0), [2.25 / 3.625, 1, 1 / 10])
    np.testing.assert_allclose(soft_dice(both, predicted, true, 100.0), [102.5 / 103.875, 1, 100 / 109])


def test_batches_are_whole_and_fewer_slices_than_one_are_a_batch() -> None:
    sums = np.arange(15.0).reshape(3, 5)
    np.testing.assert_array_equal(batched(sums, np.array([4, 0, 1, 2, 3]), 2), [[4, 3], [14, 13], [24, 23]])
    np.testing.assert_array_equal(batched(sums, np.arange(5), 16), [[10], [35], [60]])


def test_a_is_the_mean_of_batches_of_16_with_a_smoothing_of_1() -> None:
    result = figures([one(f"P{i}", 5, 10, 10) for i in range(33)])
    batch = (2 * 80 + 1) / (160 + 160 + 1)  # all slices are alike, so any shuffle gives it
    assert result["soft Dice"].value == pytest.approx(batch)
    assert result["soft IoU"].value == pytest.approx(81 / 241)
    assert (result["soft Dice"].low, result["soft Dice"].high) == pytest.approx((batch, batch))
    assert result["soft Dice"].note == "mean of 2 batches of 16, smooth 1"
    assert result["soft Dice"].n == 33
    assert "pixel accuracy" not in result


def test_b_is_the_mean_of_batches_of_32_with_a_smoothing_of_100_and_pixel_accuracy_beside_it() -> None:
    result = figures([one(f"P{i}", 5, 10, 10) for i in range(33)], "B")
    assert result["soft Dice"].value == pytest.approx((2 * 160 + 100) / (640 + 100))
    assert result["soft IoU"].value == pytest.approx((160 + 100) / (480 + 100))
    assert result["pixel accuracy"].value == pytest.approx(0.9)


def test_same_masks_without_batches_are_pooled_a_patient_and_a_slice() -> None:
    result = figures([one("P", 10, 10, 10), one("P", 0, 0, 10), one("Q", 0, 0, 0), one("R", 0, 2, 0)])
    pooled, patient = result["hard Dice, all slices together"], result["hard Dice a patient"]
    assert pooled.value == pytest.approx(20 / 32)
    assert (patient.value, patient.n) == (pytest.approx((20 / 30 + 0) / 2), 2)  # Q has nothing to score
    assert result["hard Dice a slice, 1 where both are empty"].value == pytest.approx((1 + 0 + 1 + 0) / 4)


def test_empty_slices_alone_score_1_by_smoothing_and_nothing_without() -> None:
    result = figures([one("P", 0, 0, 0), one("Q", 0, 0, 0)])
    assert result["soft Dice"].value == 1
    assert math.isnan(result["hard Dice, all slices together"].value)
    assert math.isnan(result["hard Dice a patient"].value)


def test_predicting_nothing_scores_only_the_smoothing() -> None:
    result = figures([one(f"P{i}", 0, 0, 10) for i in range(16)])
    assert result["soft Dice"].value == pytest.approx(1 / 161)


def test_intervals_draw_patients_with_all_their_slices() -> None:
    good, bad = [one("P", 10, 10, 10)] * 16, [one("Q", 0, 10, 10)] * 16
    result = figures(good + bad)["soft Dice"]
    assert 0.4 < result.value < 0.6
    assert (result.low, result.high) == pytest.approx((1 / 321, 1))  # a quarter of the draws is one patient twice
    assert result.n == 2


def test_figures_repeat() -> None:
    slices = [one(f"P{i}", i, 10, 10) for i in range(11)] * 3
    assert slice_figures(slices, "A") == slice_figures(slices, "A")
