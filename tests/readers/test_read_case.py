"""Any format to a Case: the same patient in every format, what is missing, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile

from brainseg.case import LPS_TO_RAS
from brainseg.errors import InputError, UsageError
from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti, write_phantom_tiff
from brainseg.phantom.scan import Phantom
from brainseg.readers import read_case, read_ground_truth, read_patient
from brainseg.study import find_patients

SHAPE = (14, 18, 9)
AFFINE = np.array([[-0.9, 0, 0, 6], [0, -0.9, 0, 8], [0, 0, 3, -12], [0, 0, 0, 1.0]])
FLAIR = np.random.default_rng(0).integers(1, 200, SHAPE).astype(np.float32)


def write(path: Path, array: np.ndarray = FLAIR, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, path)
    return path


def write_slices(folder: Path, slices: np.ndarray, suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    photometric = "rgb" if slices.ndim == 4 else "minisblack"
    for n, pixels in enumerate(slices, 1):
        tifffile.imwrite(folder / f"p_{n}{suffix}.tif", pixels.astype(np.uint8), photometric=photometric)
    return folder


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom()


@pytest.mark.parametrize("layout", ["tiff", "nifti", "dicom", "itk"])
def test_one_patient_in_any_format_gives_one_case(tmp_path: Path, phantom: Phantom, layout: str) -> None:
    writer = {"tiff": write_phantom_tiff, "dicom": write_phantom_dicom}.get(layout, write_phantom_nifti)
    path = writer(phantom, tmp_path)
    if layout == "itk":
        for file in path.glob("*.nii.gz"):
            itk.imwrite(itk.imread(file), str(path / file.name.replace(".nii.gz", ".nrrd")))
            file.unlink()
    spacing = phantom.spacing_mm if layout == "tiff" else None
    case = read_case(path, spacing_mm=spacing)
    assert case.layout == layout
    assert case.name == "phantom"
    assert case.image.dtype == np.float32
    np.testing.assert_array_equal(case.image, phantom.image)
    assert case.spacing_mm == pytest.approx(phantom.spacing_mm, abs=1e-5)
    assert case.missing == ()
    assert case.notes == ()
    corner = [*(np.array(case.shape) - 1), 1]
    if layout == "tiff":
        np.testing.assert_allclose(case.affine[:3, :3], phantom.affine[:3, :3], atol=1e-5)
    else:
        np.testing.assert_allclose(case.affine @ corner, phantom.affine @ corner, atol=1e-3)
    if layout != "dicom":
        truth = read_ground_truth(find_patients(path)[0])
        np.testing.assert_array_equal(truth, phantom.mask)


def test_zip_is_read_as_the_folder_in_it(tmp_path: Path) -> None:
    write(tmp_path / "in" / "P 7" / "flair.nii.gz")
    archive = shutil.make_archive(str(tmp_path / "given"), "zip", tmp_path / "in")
    case = read_case(archive)
    assert case.name == "given"
    np.testing.assert_array_equal(case.image[1], FLAIR)


def test_flair_alone_stands_in_for_what_is_missing(tmp_path: Path) -> None:
    case = read_case(write(tmp_path / "flair.nii.gz"))
    for channel in case.image:
        np.testing.assert_array_equal(channel, FLAIR)
    assert case.missing == ("pre-contrast", "post-contrast")
    assert case.notes == ()


def test_t1_on_the_grid_of_the_flair_is_taken_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "flair.nii.gz")
    write(tmp_path / "t1.nii.gz", FLAIR + 7)
    case = read_case(tmp_path)
    np.testing.assert_array_equal(case.image, [FLAIR + 7, FLAIR, FLAIR])
    assert case.missing == ("post-contrast",)


def ramp(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A volume that is linear in the patient's millimetres, so that linear interpolation is exact."""
    index = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    x, y, z = np.moveaxis(index @ affine[:3].T, -1, 0)
    return np.asarray(500 + 2 * x + 3 * y + 5 * z, dtype=np.float32)


def test_t1_on_another_grid_lands_where_it_lay_in_the_patient(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    own = turn @ np.array([[0, 0, 1.1, -25], [1.0, 0, 0, -25], [0, 2.0, 0, -20], [0, 0, 0, 1]])
    write(tmp_path / "flair.nii.gz", ramp(AFFINE, SHAPE))
    write(tmp_path / "t1c.nii.gz", ramp(own, (50, 30, 48)), own)
    case = read_case(tmp_path)
    np.testing.assert_allclose(case.image[2], case.image[1], rtol=1e-4)
    assert case.missing == ("pre-contrast",)
    assert case.notes == ()


def moved(by_mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[2, 3] += by_mm
    return affine


def test_t1_of_part_of_the_head_is_0_elsewhere_with_a_note(tmp_path: Path) -> None:
    write(tmp_path / "flair.nii.gz")
    write(tmp_path / "t1.nii.gz", FLAIR, moved(9))
    case = read_case(tmp_path)
    np.testing.assert_allclose(case.image[0, :, :, 3:], FLAIR[:, :, :-3], atol=1e-3)
    assert not case.image[0, :, :, :3].any()
    assert len(case.notes) == 1
    assert case.notes[0].startswith("pre-contrast: covers 6")


def test_t1_of_elsewhere_is_left_out_with_a_note_but_refused_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "flair.nii.gz")
    t1 = write(tmp_path / "t1.nii.gz", FLAIR, moved(500))
    case = read_case(tmp_path)
    assert case.missing == ("pre-contrast", "post-contrast")
    assert case.notes == ("pre-contrast: found but not used, it covers 0% of the head in the FLAIR",)
    with pytest.raises(InputError, match="covers 0% of the head in the FLAIR; give a pre-contrast scan of the same"):
        read_case(tmp_path, pre=t1)


def test_t1_that_cannot_be_read_is_left_out_with_a_note_but_refused_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "flair.nii.gz")
    t1 = tmp_path / "t1.nii.gz"
    t1.write_bytes(b"")
    case = read_case(tmp_path)
    assert case.notes == ("pre-contrast: found but not used, it is empty",)
    with pytest.raises(InputError, match="is empty"):
        read_case(tmp_path, pre=t1)


def test_t1_of_another_frame_of_reference_is_left_out_with_a_note_but_taken_when_asked_for(
    tmp_path: Path, phantom: Phantom
) -> None:
    root = write_phantom_dicom(phantom, tmp_path)
    for file in (root / "T1_POST").iterdir():
        instance = pydicom.dcmread(file)
        instance.FrameOfReferenceUID = "1.2.3"
        instance.save_as(file)
    case = read_case(root)
    assert case.missing == ("post-contrast",)
    assert case.notes == ("post-contrast: found but not used, it has another frame of reference than the FLAIR",)
    case = read_case(root, post=root / "T1_POST")
    assert case.missing == ()
    assert case.notes == ("post-contrast: has another frame of reference than the FLAIR, so it may lie elsewhere",)


def test_a_volume_alone_in_a_folder_that_is_given_is_what_is_meant(tmp_path: Path) -> None:
    write(tmp_path / "p" / "flair.nii.gz")
    write(tmp_path / "extra" / "t1c.nii.gz", FLAIR + 1)
    assert read_case(tmp_path / "p", post=tmp_path / "extra").missing == ("pre-contrast",)


def test_given_files_override_those_found(tmp_path: Path) -> None:
    write(tmp_path / "p" / "flair.nii.gz")
    write(tmp_path / "p" / "t1.nii.gz", FLAIR + 1)
    case = read_case(
        tmp_path / "p", pre=write(tmp_path / "a.nii", FLAIR + 2), post=write(tmp_path / "b.nii", FLAIR + 3)
    )
    np.testing.assert_array_equal(case.image, [FLAIR + 2, FLAIR, FLAIR + 3])
    assert case.missing == ()


def test_given_dicom_folder_is_laid_over_a_nifti_flair(tmp_path: Path, phantom: Phantom) -> None:
    flair = write_phantom_nifti(phantom, tmp_path) / "flair.nii.gz"
    dicom = write_phantom_dicom(phantom, tmp_path / "d")
    case = read_case(flair, post=dicom / "T1_POST")
    np.testing.assert_allclose(case.image[2], phantom.image[2], atol=0.1)
    with pytest.raises(UsageError, match="would be read as a FLAIR"):
        read_case(flair, pre=dicom)


def test_tiff_has_no_spacing_unless_it_is_given(tmp_path: Path) -> None:
    write_slices(tmp_path / "p", FLAIR.transpose(2, 1, 0))
    case = read_case(tmp_path / "p")
    assert case.spacing_mm is None
    np.testing.assert_array_equal(case.affine, np.diag([-1.0, -1, 1, 1]))
    np.testing.assert_array_equal(case.image[1], FLAIR)
    assert case.missing == ("pre-contrast", "post-contrast")
    given = read_case(tmp_path / "p", spacing_mm=(0.9, 0.8, 5))
    assert given.spacing_mm == (0.9, 0.8, 5)
    np.testing.assert_array_equal(given.affine, np.diag([-0.9, -0.8, 5, 1]))


def test_blank_channel_of_a_tiff_is_missing_with_a_note(tmp_path: Path) -> None:
    image = np.stack([0 * FLAIR, FLAIR, FLAIR], axis=-1).transpose(2, 1, 0, 3)
    case = read_case(write_slices(tmp_path / "p", image))
    np.testing.assert_array_equal(case.image, [FLAIR] * 3)
    assert case.missing == ("pre-contrast", "post-contrast")
    assert case.notes == ("pre-contrast is blank; FLAIR used in its place",)


def test_tiff_takes_a_t1_as_tiff_of_its_size_and_nothing_else(tmp_path: Path) -> None:
    path = write_slices(tmp_path / "p", FLAIR.transpose(2, 1, 0))
    t1 = write_slices(tmp_path / "t1", FLAIR.transpose(2, 1, 0) + 3)
    case = read_case(path, pre=t1)
    np.testing.assert_array_equal(case.image, [FLAIR + 3, FLAIR, FLAIR])
    assert case.missing == ("post-contrast",)
    volume = write(tmp_path / "t1.nii.gz")
    with pytest.raises(UsageError, match="cannot be laid over TIFF slices"):
        read_case(path, pre=volume)
    with pytest.raises(UsageError, match="is TIFF, which has no position"):
        read_case(volume, pre=t1)
    with pytest.raises(UsageError, match="give grayscale slices of the FLAIR's size, 14 x 18 x 9"):
        read_case(path, post=write_slices(tmp_path / "small", FLAIR.transpose(2, 1, 0)[1:]))


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1, float("nan")), (1, 1), (-1, 1, 1), (1, 1, float("inf"))])
def test_spacing_that_is_none_is_refused(tmp_path: Path, spacing: Any) -> None:
    write_slices(tmp_path / "p", FLAIR.transpose(2, 1, 0))
    with pytest.raises(UsageError, match="give three positive numbers, in mm"):
        read_case(tmp_path / "p", spacing_mm=spacing)


def test_spacing_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "flair.nii.gz")
    assert read_case(path, spacing_mm=(0.905, 0.9, 3.0)).spacing_mm == pytest.approx((0.9, 0.9, 3))
    with pytest.raises(UsageError, match=r"has a spacing of its own, 0\.9 x 0\.9 x 3 mm; leave --spacing out"):
        read_case(path, spacing_mm=(0.92, 0.9, 3.0))


def test_several_patients_are_refused_and_counted(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name / "flair.nii.gz")
    with pytest.raises(UsageError, match=r"holds 3 patients \(a, b, c\); give the path of one of them"):
        read_case(tmp_path)


def test_path_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_case(tmp_path / "nothing")
    with pytest.raises(UsageError, match="does not exist"):
        read_case(write(tmp_path / "flair.nii.gz"), post=tmp_path / "nothing.nii")


def test_problem_seen_while_searching_is_raised(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_slices(tmp_path / name, FLAIR.transpose(2, 1, 0))
    (tmp_path / "a" / "p_4.tif").unlink()
    first, second = find_patients(tmp_path)
    with pytest.raises(InputError, match="slice 4 is missing"):
        read_patient(first)
    assert read_patient(second).shape == SHAPE


def test_truth_is_none_where_there_is_no_mask(tmp_path: Path) -> None:
    assert read_ground_truth(find_patients(write(tmp_path / "flair.nii.gz"))[0]) is None


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_truth_is_read_in_any_format_and_only_on_the_grid_of_the_flair(tmp_path: Path, suffix: str) -> None:
    labels = (FLAIR > 100).astype(np.uint8) * 2
    write(tmp_path / "p_flair.nii.gz")
    mask = write(tmp_path / "p_flair_mask.nii.gz", labels)
    if suffix != ".nii.gz":
        itk.imwrite(itk.imread(mask), str(tmp_path / f"p_flair_mask{suffix}"))
        mask.unlink()
    (patient,) = find_patients(tmp_path)
    truth = read_ground_truth(patient)
    assert truth is not None
    assert truth.dtype == np.uint8
    np.testing.assert_array_equal(truth, FLAIR > 100)


@pytest.mark.parametrize(
    ("array", "affine", "fragment"),
    [
        (FLAIR > 100, moved(0.01), "is not on the grid of the FLAIR; resample"),
        (FLAIR[:, :, 1:] > 100, AFFINE, r"is not on the grid of the FLAIR \(14 x 18 x 8 voxels, not 14 x 18 x 9\)"),
    ],
)
def test_truth_on_another_grid_is_refused(tmp_path: Path, array: np.ndarray, affine: np.ndarray, fragment: str) -> None:
    write(tmp_path / "flair.nii.gz")
    write(tmp_path / "mask.nii.gz", array.astype(np.uint8), affine)
    with pytest.raises(InputError, match=fragment):
        read_ground_truth(find_patients(tmp_path)[0])


def test_tiff_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    slices = FLAIR.transpose(2, 1, 0)
    write_slices(tmp_path / "p", slices)
    write_slices(tmp_path / "p", (slices[:, 1:] > 100) * 255, "_mask")
    with pytest.raises(InputError, match="masks are 14 x 17 x 9 and images 14 x 18 x 9"):
        read_ground_truth(find_patients(tmp_path)[0])


def test_itk_volume_with_its_own_axes_gives_the_affine_of_nibabel(tmp_path: Path) -> None:
    affine = LPS_TO_RAS @ np.array([[0, 0, 3, 1], [0, -0.9, 0, 2], [0.9, 0, 0, 3], [0, 0, 0, 1.0]])
    nifti = write(tmp_path / "n" / "flair.nii.gz", FLAIR, affine)
    itk.imwrite(itk.imread(nifti), str(tmp_path / "flair.mha"))
    one, other = read_case(nifti), read_case(tmp_path / "flair.mha")
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


def test_importing_the_readers_imports_no_library_of_a_format() -> None:
    heavy = "{'nibabel', 'pydicom', 'highdicom', 'itk', 'tifffile', 'scipy', 'torch', 'monai'}"
    code = f"import sys, brainseg.readers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
