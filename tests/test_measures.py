import math

import numpy as np
import pytest

from brainseg import measures
from brainseg.case import TIFF_AFFINE

UNIT = (1.0, 1.0, 1.0)


def box(shape, *spans):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*span) for span in spans)] = 1
    return mask


CUBE = box((20, 20, 20), (5, 15), (5, 15), (5, 15))
EMPTY = np.zeros((20, 20, 20), np.uint8)


def test_a_10_mm_cube_is_1_ml():
    assert measures.volume_ml(CUBE, UNIT) == pytest.approx(1.0)


def test_a_10_mm_cube_of_anisotropic_voxels_is_1_ml():
    assert measures.volume_ml(box((9, 9, 9), (0, 4), (2, 7), (3, 5)), (2.5, 2.0, 5.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (math.nan, 1.0, 1.0)])
def test_volume_needs_one_positive_spacing_an_axis(spacing_mm):
    with pytest.raises(ValueError, match="3 positive values"):
        measures.volume_ml(CUBE, spacing_mm)


def test_any_nonzero_voxel_counts_once():
    assert measures.volume_voxels(CUBE * 255) == 1000


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1, 1, 1] = mask[2, 2, 2] = 1
    assert [lesion.voxels for lesion in measures.find_lesions(mask, None, np.eye(4), UNIT)] == [2]


def test_voxels_one_apart_are_two_lesions_the_larger_first():
    mask = box((12, 5, 5), (0, 2), (0, 1), (0, 1)) | box((12, 5, 5), (3, 9), (0, 1), (0, 1))
    assert [lesion.voxels for lesion in measures.find_lesions(mask, None, np.eye(4), UNIT)] == [6, 2]


def test_empty_mask_has_no_lesions():
    assert measures.find_lesions(EMPTY, EMPTY, np.eye(4), UNIT) == []


def test_lesion_measures_are_known_numbers():
    affine = np.array([[-2.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 5.0, -30], [0, 0, 0, 1]])
    mask = box((20, 20, 10), (4, 9), (6, 7), (2, 4))  # 5 x 1 x 2 voxels = 10 x 2 x 10 mm
    (lesion,) = measures.find_lesions(mask, mask * 0.75, affine, (2.0, 2.0, 5.0))
    assert lesion.voxels == 10
    assert lesion.volume_ml == pytest.approx(0.2)
    assert lesion.centroid_voxel == pytest.approx((6.0, 6.0, 2.5))
    assert lesion.centroid_mm == pytest.approx((-2.0, 8.0, -17.5))
    assert lesion.diameter_mm == pytest.approx(10.0)
    assert lesion.diameter_pixels == pytest.approx(5.0)
    assert (lesion.first_slice, lesion.last_slice) == (2, 3)
    assert lesion.confidence == pytest.approx(0.75)


def test_a_cube_has_the_box_it_was_planted_in():
    affine = np.array([[-2.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 5.0, -30], [0, 0, 0, 1]])
    (lesion,) = measures.find_lesions(CUBE, None, affine, (2.0, 2.0, 5.0))
    assert lesion.box_voxel == ((5, 5, 5), (14, 14, 14))
    assert lesion.box_mm == ((-19.0, -9.0, -7.5), (1.0, 11.0, 42.5))  # edge to edge: 20 x 20 x 50 mm
    assert measures.find_lesions(CUBE, None, TIFF_AFFINE, None)[0].box_mm is None


def test_box_of_an_oblique_voxel_is_as_wide_as_its_diagonal():
    turn = np.eye(4)
    turn[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    (lesion,) = measures.find_lesions(box((3, 3, 3), (1, 2), (1, 2), (1, 2)), None, turn, UNIT)
    low, high = map(np.array, lesion.box_mm)
    assert high - low == pytest.approx([1.4, 1.4, 1.0])


def test_lesion_of_unknown_spacing_has_no_millimetres():
    (lesion,) = measures.find_lesions(CUBE, None, TIFF_AFFINE, None)
    assert (lesion.volume_ml, lesion.centroid_mm, lesion.diameter_mm, lesion.confidence) == (None, None, None, None)
    assert (lesion.first_slice, lesion.last_slice) == (5, 14)
    assert lesion.diameter_pixels > 0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_axial_slices_follow_the_head_wherever_the_axis_lies(axis, sign):
    affine = np.eye(4)
    affine[:3, :3] = np.roll(np.diag([1.0, 1.0, 3.0 * sign]), axis - 2, axis=1)
    spans = [(5, 6), (5, 6), (5, 6)]
    spans[axis] = (7, 17)  # a rod along the head: long, but 1 mm wide in every axial slice
    spacing_mm = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    (lesion,) = measures.find_lesions(box((20, 20, 20), *spans), None, affine, spacing_mm)
    assert measures.axial_axis(affine) == axis
    assert (lesion.first_slice, lesion.last_slice) == (7, 16)
    assert lesion.diameter_mm == pytest.approx(1.0)


def test_axial_axis_of_an_oblique_thick_slice_scan_is_the_one_nearest_the_head():
    tilt = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 6.0, 0.5])  # long steps must not win over their direction
    assert measures.axial_axis(affine) == 2


def test_diameter_of_a_disc_is_its_diameter():
    i, j = np.indices((60, 60)) - 30
    disc = (i**2 + j**2 <= 20**2)[..., None]
    assert measures.longest_diameter(disc, 2, UNIT) == pytest.approx(40.0, abs=1.1)
    assert measures.longest_diameter(disc, 2, (0.5, 0.5, 4.0)) == pytest.approx(20.0, abs=0.55)


def test_diameter_of_one_pixel_is_its_longer_side():
    assert measures.longest_diameter(np.ones((1, 1, 1)), 2, (0.5, 0.8, 4.0)) == pytest.approx(0.8)


def test_a_quarter_of_a_lesion_found_with_as_much_beside_it():
    truth, prediction = box((8, 1, 1), (0, 4), (0, 1), (0, 1)), box((8, 1, 1), (3, 5), (0, 1), (0, 1))
    assert measures.dice(prediction, truth) == pytest.approx(2 / 6)
    assert measures.iou(prediction, truth) == pytest.approx(1 / 5)
    assert measures.precision(prediction, truth) == pytest.approx(1 / 2)
    assert measures.recall(prediction, truth) == pytest.approx(1 / 4)


@pytest.mark.parametrize("measure", [measures.dice, measures.iou, measures.precision, measures.recall])
def test_equal_masks_overlap_fully(measure):
    assert measure(CUBE, CUBE) == 1.0


@pytest.mark.parametrize("measure", [measures.dice, measures.iou, measures.precision, measures.recall])
def test_overlap_of_two_empty_masks_is_nan(measure):
    assert math.isnan(measure(EMPTY, EMPTY))


def test_overlap_with_one_empty_mask_is_zero_or_undefined():
    for prediction, truth in ((EMPTY, CUBE), (CUBE, EMPTY)):
        assert measures.dice(prediction, truth) == 0.0
        assert measures.iou(prediction, truth) == 0.0
        assert measures.surface_dice(prediction, truth, UNIT, 1.0) == 0.0
        assert measures.hd95(prediction, truth, UNIT) == math.inf
    assert math.isnan(measures.precision(EMPTY, CUBE))
    assert measures.recall(EMPTY, CUBE) == 0.0
    assert measures.precision(CUBE, EMPTY) == 0.0
    assert math.isnan(measures.recall(CUBE, EMPTY))


def test_distances_of_two_empty_masks_are_nan():
    assert math.isnan(measures.hd95(EMPTY, EMPTY, UNIT))
    assert math.isnan(measures.surface_dice(EMPTY, EMPTY, UNIT, 1.0))


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        measures.dice(CUBE, CUBE[:-1])


def test_cube_moved_by_3_voxels_of_2_mm_is_6_mm_away():
    moved = np.roll(CUBE, 3, axis=0)
    assert measures.hd95(moved, CUBE, (2.0, 1.0, 1.0)) == pytest.approx(6.0)
    assert measures.hd95(moved, CUBE, UNIT) == pytest.approx(3.0)


def test_surface_dice_grows_with_the_tolerance():
    moved = np.roll(CUBE, 2, axis=2)
    values = [measures.surface_dice(moved, CUBE, (1.0, 1.0, 3.0), tolerance_mm) for tolerance_mm in (0.0, 3.0, 6.0)]
    assert values[0] < values[1] < values[2] == 1.0
    with pytest.raises(ValueError, match="tolerance_mm"):
        measures.surface_dice(moved, CUBE, UNIT, -1.0)


def test_a_mask_at_the_border_of_the_grid_has_a_surface_there():
    full = np.ones((6, 6, 6), np.uint8)
    assert measures.hd95(full, box((6, 6, 6), (1, 5), (1, 5), (1, 5)), UNIT) == pytest.approx(math.sqrt(3), abs=0.4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_surface_measures_agree_with_monai(seed):
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice
    from scipy import ndimage
    from torch import as_tensor

    noise = np.random.default_rng(seed).normal(size=(2, 24, 20, 16))
    prediction, truth = (ndimage.gaussian_filter(one, 2.5) > 0.04 for one in noise)
    spacing_mm = (0.9, 1.1, 3.0)
    pair = [as_tensor(mask[None, None].astype(np.float32)) for mask in (prediction, truth)]
    theirs = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing_mm)
    assert measures.hd95(prediction, truth, spacing_mm) == pytest.approx(float(theirs), rel=1e-5)
    theirs = compute_surface_dice(*pair, [2.0], include_background=True, spacing=spacing_mm)
    assert measures.surface_dice(prediction, truth, spacing_mm, 2.0) == pytest.approx(float(theirs), rel=1e-5)


def test_confidence_is_1_when_the_network_is_certain():
    assert measures.case_confidence(CUBE.astype(float), CUBE) == 1.0
    assert measures.case_confidence(EMPTY.astype(float), EMPTY) == 1.0


def test_confidence_is_the_share_of_the_mask_expected_to_be_right():
    assert measures.case_confidence(CUBE * 0.5, CUBE) == 0.5
    suspicious = CUBE + np.roll(CUBE, 10, axis=0) * 0.9
    assert measures.case_confidence(np.clip(suspicious, 0, 1), CUBE) == 1.0


def test_confidence_in_an_empty_mask_is_low_where_something_was_cleaned_away():
    assert measures.case_confidence(np.full((3, 3, 3), 0.9), np.zeros((3, 3, 3))) == pytest.approx(0.1)


def test_confidence_is_never_nan():
    assert measures.case_confidence(np.full(CUBE.shape, np.nan), CUBE) == 0.0
    assert measures.case_confidence(np.full(CUBE.shape, np.nan), EMPTY) == 1.0
    assert measures.case_confidence(np.zeros((0, 1, 1)), np.zeros((0, 1, 1))) == 1.0


def test_a_ball_of_voxels_is_rounder_than_a_cube_and_a_cube_than_a_rod() -> None:
    x, y, z = np.mgrid[-22:23, -22:23, -12:13]
    ball = x**2 + y**2 + (2 * z) ** 2 <= 20**2
    cube, rod = np.ones((40, 40, 40)), np.ones((4, 4, 64))
    assert measures.sphericity(ball, (1, 1, 2)) == pytest.approx(0.89, abs=0.01)
    assert measures.sphericity(cube, (1, 1, 1)) == pytest.approx((math.pi / 6) ** (1 / 3), abs=0.02)
    assert measures.sphericity(rod, (1, 1, 1)) < 0.5
    assert math.isnan(measures.sphericity(np.zeros((3, 3, 3)), (1, 1, 1)))
    assert measures.find_lesions(cube, None, np.eye(4), None)[0].sphericity is None
