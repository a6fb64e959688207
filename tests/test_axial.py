"""A scan of any orientation as a reader sees it."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from heads import LPS, case_of, head

from brainseg.axial import axial_slices
from brainseg.case import TIFF_AFFINE


@pytest.mark.parametrize(
    "codes", ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]
)
def test_every_orientation_is_shown_with_the_right_at_the_left_and_the_front_up(codes):
    image, mask = head()
    turn = nib.orientations.ornt_transform(nib.io_orientation(LPS), nib.orientations.axcodes2ornt(codes))
    turned = [nib.Nifti1Image(array, LPS).as_reoriented(turn) for array in (image, mask)]
    case = case_of(np.asarray(turned[0].dataobj), turned[0].affine)
    slices = list(axial_slices(case, np.asarray(turned[1].dataobj)))
    assert len(slices) == 12
    marked = [k for k, one in enumerate(slices) if one.mask.any()]
    assert marked == [7, 8]
    rows, columns = np.nonzero(slices[7].mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 17, 8, 13)
    assert [one.number for one in slices] == (list(range(1, 13)) if "S" in codes else list(range(12, 0, -1)))
    assert slices[0].aspect == pytest.approx(1.0)
    assert slices[0].width_mm == pytest.approx(0.9)


def test_pixels_keep_their_aspect_in_a_sagittal_scan():
    affine = np.array([[0, 0, 5.0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    image = np.ones((20, 20, 6), np.float32)
    (first, *_) = axial_slices(case_of(image, affine), image)
    assert first.flair.shape == (20, 6)
    assert first.aspect == pytest.approx(1 / 5)


def test_tiff_slices_are_shown_as_they_lie():
    image, mask = head()
    slices = list(axial_slices(case_of(image, TIFF_AFFINE, known=False), mask))
    np.testing.assert_array_equal(slices[7].mask, mask[:, :, 7].T != 0)
    assert (slices[7].number, slices[7].count, slices[7].width_mm) == (8, 12, None)


def test_mask_of_another_grid_is_refused():
    image, mask = head()
    with pytest.raises(ValueError, match="shape"):
        list(axial_slices(case_of(image, LPS), mask[:-1]))
