"""NIfTI to volumes: known voxels and geometry, and every defect by the sentence it is refused with."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from brainseg.errors import InputError
from brainseg.readers.nifti import nifti_grid, read_nifti, read_nifti_mask

AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.75, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
VOXELS = np.arange(1, 5 * 6 * 7 + 1, dtype=np.int16).reshape(5, 6, 7)
Header = Any


def image(array: np.ndarray = VOXELS, affine: np.ndarray = AFFINE, kind: Any = nibabel.Nifti1Image) -> Any:
    made = kind(array, affine)
    made.set_sform(affine, code=1)
    made.set_qform(affine, code=1)
    made.header.set_xyzt_units("mm")
    return made


def content(change: Callable[[Header], None] | None = None, array: np.ndarray = VOXELS) -> bytes:
    """The bytes of a NIfTI-1 file whose header was changed after nibabel had approved of it."""
    made = bytes(image(array).to_bytes())
    if change is None:
        return made
    header = nibabel.Nifti1Header(made[:348], check=False)
    change(header)
    return header.binaryblock + made[348:]


def setter(**fields: Any) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        for name, value in fields.items():
            header[name] = value

    return change


def at(name: str, index: int, value: float) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header[name][index] = value

    return change


def write(folder: Path, data: bytes, name: str = "flair.nii") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def assert_is_the_volume(path: Path) -> None:
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert volume.spacing_mm == pytest.approx((0.5, 0.75, 3.0))
    assert volume.files == (path,)
    assert volume.notes == ()


def test_voxels_affine_and_spacing_are_those_of_the_file(tmp_path: Path) -> None:
    assert_is_the_volume(write(tmp_path, content()))


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "u8", "f4", "f8", ">i2", ">f8"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_any_scalar_type_order_and_version_gives_the_same_values(tmp_path: Path, dtype: str, kind: Any) -> None:
    array = (VOXELS % 200).astype(dtype)
    header_kind = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header_kind.set_data_dtype(array.dtype)
    made = kind(array, AFFINE, header_kind)
    made.set_sform(AFFINE, code=1)
    path = write(tmp_path, made.to_bytes())
    np.testing.assert_array_equal(read_nifti(path).array, VOXELS % 200)
    np.testing.assert_allclose(read_nifti(path).affine, AFFINE, atol=1e-6)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = write(tmp_path, content(setter(scl_slope=0.5, scl_inter=-3)))
    np.testing.assert_allclose(read_nifti(path).array, VOXELS * 0.5 - 3)


def test_handedness_of_0_means_1(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1, 2, 1])
    made = bytes(image(affine=affine).to_bytes())
    header = nibabel.Nifti1Header(made[:348], check=False)
    header["sform_code"] = 0
    header["pixdim"][0] = 0
    np.testing.assert_allclose(read_nifti(write(tmp_path, header.binaryblock + made[348:])).affine, affine, atol=1e-6)


def stretched(header: Header) -> None:
    header["qform_code"] = 0
    header["srow_z"][2] = 4


def floats(bad: float) -> np.ndarray:
    array = VOXELS.astype(np.float32)
    array[1, 2, 3] = bad
    return array


BAD: dict[str, tuple[bytes, str]] = {
    "only the start of a header": (content()[:200], "is not a NIfTI file"),
    "only a header": (content()[:352], "is cut short"),
    "nine dimensions": (content(at("dim", 0, 9)), "declares 9 dimensions"),
    "no dimensions": (content(at("dim", 0, 0)), "declares 0 dimensions"),
    "pixdim NaN": (content(at("pixdim", 2, np.nan)), "has a voxel size of"),
    "flat sform": (content(setter(srow_z=[0, 0, 0, 1], qform_code=0)), "has voxels of 0.5 x 0.75 x 0 mm"),
    "sform NaN": (content(at("srow_x", 0, np.nan)), "has an affine that is not finite"),
    "quaternion beyond 1": (content(setter(quatern_b=3, sform_code=0)), "has a qform that is no rotation"),
    "spacing and sform differ": (content(stretched), "says two things of its spacing: sform 0.5 x 0.75 x 4 mm"),
    "beyond float32": (content(array=VOXELS * 1e40), "has infinite values"),
    "a line": (content(array=VOXELS.reshape(-1, 1, 1)), "is not a volume but an image of 210 x 1 x 1"),
    "unknown type": (content(setter(datatype=77)), "has data of an unknown type (77)"),
    "intercept NaN": (content(setter(scl_slope=2, scl_inter=np.nan)), "has an intercept that is not finite"),
    "offset NaN": (content(setter(vox_offset=np.nan)), "declares its voxels at byte nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_defective_file_is_refused_with_its_cause(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, fragment = BAD[name]
    path = write(tmp_path, data)
    with pytest.raises(InputError) as caught:
        read_nifti(path)
    assert fragment in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr().err == ""


def test_every_label_of_a_mask_counts_as_inside(tmp_path: Path) -> None:
    labels = (VOXELS % 5).astype(np.uint8)
    mask = read_nifti_mask(write(tmp_path, content(array=labels)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, labels != 0)


def test_empty_mask_is_a_mask(tmp_path: Path) -> None:
    mask = read_nifti_mask(write(tmp_path, content(array=np.zeros_like(VOXELS))))
    assert mask.shape == VOXELS.shape
    assert not mask.any()


def test_mask_scaled_to_1_is_read_as_1(tmp_path: Path) -> None:
    labels = ((VOXELS % 2) * 255).astype(np.uint8)
    mask = read_nifti_mask(write(tmp_path, content(setter(scl_slope=1 / 255, scl_inter=0), labels)))
    np.testing.assert_array_equal(mask, VOXELS % 2)


@pytest.mark.parametrize(
    ("array", "fragment"),
    [
        (VOXELS, "more than 16 different values"),
        ((VOXELS % 2) * np.float32(0.4), "its values are not whole numbers; threshold it"),
        (floats(np.nan), "it has NaN or infinite values"),
    ],
)
def test_image_is_no_mask(tmp_path: Path, array: np.ndarray, fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        read_nifti_mask(write(tmp_path, content(array=array)))


def test_grid_is_read_from_the_header_alone(tmp_path: Path) -> None:
    grid = nifti_grid(write(tmp_path, gzip.compress(content()), "a.nii.gz"))
    assert grid.shape == VOXELS.shape
    np.testing.assert_allclose(grid.affine, AFFINE, atol=1e-6)
