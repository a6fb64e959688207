"""One patient under protocol E: known numbers, and what empty masks give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from brainseg.case import TIFF_AFFINE
from brainseg.scores import BINS, CaseScores, score_case

MM = (1.0, 1.0, 1.0)


def line(first: int, last: int, z: int = 2) -> np.ndarray:
    """Voxels `first` to `last` - 1 along X in one slice of a 30 x 6 x 5 grid."""
    mask = np.zeros((30, 6, 5), np.uint8)
    mask[first:last, 3, z] = 1
    return mask


EMPTY = np.zeros((30, 6, 5), np.uint8)


def scored(truth: np.ndarray, mask: np.ndarray, probability: np.ndarray | None = None) -> CaseScores:
    return score_case("one", truth, mask, probability, np.eye(4), MM)


def test_two_lines_of_ten_that_share_five_have_known_scores() -> None:
    one = scored(line(0, 10), line(5, 15))
    assert one.dice == 0.5
    assert one.iou == pytest.approx(1 / 3)
    assert one.precision == 0.5
    assert one.recall == 0.5
    assert one.hd95 == pytest.approx(np.percentile([0] * 5 + [1, 2, 3, 4, 5], 95))
    assert one.surface_dice == 0.7  # of the five that stand out, two lie within 2 mm: 14 of 20
    assert (one.voxels, one.true_voxels) == (10, 10)
    assert one.volume_ml == pytest.approx(0.01)


def test_the_same_mask_is_perfect() -> None:
    one = scored(line(0, 10), line(0, 10))
    assert (one.dice, one.iou, one.precision, one.recall, one.surface_dice, one.hd95) == (1, 1, 1, 1, 1, 0)
    assert one.dice_tumour_slices == 1


def test_two_empty_masks_are_not_a_success() -> None:
    one = scored(EMPTY, EMPTY)
    for value in (one.dice, one.iou, one.precision, one.recall, one.hd95, one.surface_dice, one.dice_tumour_slices):
        assert math.isnan(value)
    assert (one.lesions, one.true_lesions, one.voxels) == (0, 0, 0)


def test_an_empty_prediction_is_the_worst_one() -> None:
    one = scored(line(0, 10), EMPTY)
    assert (one.dice, one.iou, one.recall, one.surface_dice, one.dice_tumour_slices) == (0, 0, 0, 0, 0)
    assert math.isinf(one.hd95)
    assert math.isnan(one.precision)
    assert (one.true_lesions, one.found_lesions, one.lesions, one.false_lesions) == (1, 0, 0, 0)


def test_a_mask_where_there_is_no_tumour_is_false() -> None:
    one = scored(EMPTY, line(0, 10))
    assert (one.dice, one.precision) == (0, 0)
    assert math.isnan(one.recall)
    assert math.isnan(one.dice_tumour_slices)
    assert (one.lesions, one.false_lesions) == (1, 1)


def test_only_slices_with_tumour_count_towards_their_mean_dice() -> None:
    truth, mask = line(0, 10, z=1) | line(0, 10, z=2), line(5, 15, z=1) | line(0, 30, z=4)
    assert scored(truth, mask).dice_tumour_slices == 0.25  # 0.5 and 0; the false slice 4 is left out
    assert scored(truth, mask).dice == pytest.approx(2 * 5 / (20 + 40))


def test_slices_are_axial_whatever_axis_runs_from_foot_to_head() -> None:
    sagittal = np.eye(4)[[2, 0, 1, 3]]  # voxel axes: anterior, superior, right
    turned = [array.transpose(1, 2, 0) for array in (line(0, 10), line(5, 15))]
    one = score_case("one", *turned, None, np.eye(4), MM)
    assert len(one.slice_truth) == 30
    other = score_case("one", *turned, None, sagittal, MM)
    assert len(other.slice_truth) == 5
    assert other.slice_truth.tolist() == scored(line(0, 10), line(5, 15)).slice_truth.tolist()


def test_slices_say_what_they_hold_and_how_probable_it_is() -> None:
    probability = line(5, 15) * np.float32(0.75) + line(0, 3, z=4) * np.float32(0.25)
    one = scored(line(0, 10), line(5, 15), probability)
    assert one.slice_truth.tolist() == [False, False, True, False, False]
    assert one.slice_marked.tolist() == [False, False, True, False, False]
    assert one.slice_score.tolist() == [0, 0, 0.75, 0, 0.25]


def test_a_mask_alone_has_no_confidence_and_no_calibration() -> None:
    one = scored(line(0, 10), line(5, 15))
    assert math.isnan(one.confidence)
    assert one.slice_score.tolist() == [0, 0, 1, 0, 0]
    assert one.positives.sum() == one.negatives.sum() == 0


def test_lesions_are_found_if_touched_and_false_if_they_touch_nothing() -> None:
    truth = line(0, 4) | line(10, 14) | line(20, 24)
    mask = line(3, 5) | line(16, 18) | line(23, 26) | line(28, 30)
    one = scored(truth, mask)
    assert (one.true_lesions, one.found_lesions) == (3, 2)
    assert (one.lesions, one.false_lesions) == (4, 2)


def test_voxels_are_counted_by_probability_inside_and_outside_the_truth() -> None:
    probability = np.zeros(EMPTY.shape, np.float32)
    probability[0, 3, 2], probability[1, 3, 2], probability[20, 0, 0], probability[21, 0, 0] = 1.0, 0.995, 0.5, 0.004
    one = scored(line(0, 3), line(0, 2), probability)
    assert BINS == 101
    assert {int(i): int(one.positives[i]) for i in np.flatnonzero(one.positives)} == {0: 1, 99: 1, 100: 1}
    assert {int(i): int(one.negatives[i]) for i in np.flatnonzero(one.negatives)} == {0: 900 - 4, 50: 1}


def test_distances_are_in_pixels_and_volumes_unknown_without_a_spacing() -> None:
    one = score_case("one", line(0, 10), line(1, 11), None, TIFF_AFFINE, None)
    assert one.unit == "pixels"
    assert one.hd95 == pytest.approx(0.55)  # the 95th percentile of nine 0 and one 1
    assert (one.volume_ml, one.true_volume_ml) == (None, None)


def test_distances_are_in_mm_where_the_spacing_is_known() -> None:
    one = score_case("one", line(0, 10), line(0, 10, z=3), None, np.diag([1, 1, 4, 1]), (1.0, 1.0, 4.0))
    assert one.unit == "mm"
    assert one.hd95 == 4
    assert one.surface_dice == 0
    assert one.volume_ml == pytest.approx(0.04)


def test_a_mask_that_counts_255_is_the_same_mask() -> None:
    assert scored(line(0, 10) * np.uint8(255), line(5, 15)).dice == 0.5


def test_another_shape_is_refused() -> None:
    for mask, probability in ((EMPTY[:, :, 1:], None), (EMPTY, np.zeros((30, 6, 4)))):
        with pytest.raises(ValueError, match="must have one shape"):
            scored(EMPTY, mask, probability)
