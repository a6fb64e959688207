import itertools

import nibabel as nib
import numpy as np
import pytest
from seg_judges import LPS, WITHIN_MM, farthest_corner_mm, itk_volume, marker

from brainseg.readers.nifti import read_nifti
from brainseg.writers.nifti import write_mask, write_probability

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.3, 0.4) @ np.diag([-0.9, 1.1, 3.0]), [12.5, -80.0, 33.25]
)


def mask_of(shape=(5, 6, 4)):
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 2, 3] = 1
    return mask


def test_mask_reads_back_as_uint8_with_both_forms(tmp_path):
    path = tmp_path / "mask.nii.gz"
    write_mask(path, mask_of().astype(bool), OBLIQUE)
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), mask_of())
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, OBLIQUE, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["scl_slope"] in (0, 1) or np.isnan(image.header["scl_slope"])
    np.testing.assert_allclose(image.header.get_zooms(), (0.9, 1.1, 3.0), rtol=1e-6)


def test_sheared_affine_goes_to_the_sform_alone(tmp_path):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[0, 2] = 0.5
    write_mask(tmp_path / "mask.nii", mask_of(), affine)
    image = nib.load(tmp_path / "mask.nii")
    np.testing.assert_allclose(image.affine, affine)
    assert image.get_qform(coded=True)[1] == 0


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_all_48_orientations_keep_their_affine_and_are_read_back_by_brainseg_nibabel_and_itk(tmp_path, order, flips):
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.9, 1.1, 3.0])[:, list(order)] * flips
    affine[:3, 3] = (7, -9, 11)
    write_mask(tmp_path / "mask.nii", marker((5, 6, 4)), affine)
    array, lps = itk_volume(tmp_path / "mask.nii")
    assert farthest_corner_mm(array.shape, LPS @ lps, affine) < WITHIN_MM
    volume = read_nifti(tmp_path / "mask.nii")
    assert farthest_corner_mm(array.shape, volume.affine, affine) < WITHIN_MM
    image = nib.load(tmp_path / "mask.nii")
    for read in (array, volume.array, np.asarray(image.dataobj)):
        np.testing.assert_array_equal(read, marker((5, 6, 4)))
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-6)
    qform, code = image.get_qform(coded=True)
    assert code == 1
    np.testing.assert_allclose(qform, affine, atol=1e-5)


def test_equal_masks_give_identical_bytes(tmp_path):
    for name in ("one.nii.gz", "two.nii.gz"):
        write_mask(tmp_path / name, mask_of(), OBLIQUE)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    header = (tmp_path / "one.nii.gz").read_bytes()[:10]
    assert header[3] == 0  # no file name
    assert header[4:8] == bytes(4)  # no time


def test_probability_is_float32_and_unknown_spacing_has_no_unit(tmp_path):
    path = tmp_path / "probability.nii.gz"
    probability = np.linspace(0, 1, 120, dtype=np.float32).reshape(5, 6, 4)
    write_probability(path, probability.astype(float), np.diag([-1.0, -1.0, 1.0, 1.0]), in_mm=False)
    image = nib.load(path)
    assert image.get_data_dtype() == np.float32
    assert image.header.get_xyzt_units()[0] == "unknown"
    np.testing.assert_array_equal(np.asarray(image.dataobj), probability)
