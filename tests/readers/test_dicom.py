"""Series to volumes: known geometry, and every defect by the sentence it is refused with."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT_ID, PATIENT_NAME, itk_image, series, voxels, write
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from seg_judges import WITHIN_MM, farthest_corner_mm, itk_affine, itk_volume, marker

from brainseg.errors import InputError
from brainseg.readers import dicom
from brainseg.readers.dicom import read_dicom
from brainseg.readers.volume import Volume
from brainseg.study import Series
from brainseg.writers.nifti import write_mask

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
DIRECTIONS = [
    (*np.eye(3)[a] * sa, *np.eye(3)[b] * sb)
    for a, b in permutations(range(3), 2)
    for sa, sb in product((1, -1), (1, -1))
]


def read(paths: list[Path], **options: Any) -> Volume:
    return read_dicom(Series("dicom", tuple(paths)), **options)


def test_axes_are_column_row_slice_and_the_affine_is_ras(tmp_path: Path) -> None:
    volume = read(write(tmp_path, series()))
    assert volume.array.shape == (5, 6, 8)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, voxels().transpose(2, 1, 0))
    np.testing.assert_allclose(
        volume.affine, [[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]], atol=1e-9
    )
    assert volume.spacing_mm == pytest.approx((0.5, 0.75, 3.0))
    assert volume.notes == ()
    assert volume.filled == ()


def test_files_stand_in_order_of_position_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    instances = series()
    for i, ds in enumerate(instances):
        ds.InstanceNumber = (5 * i) % 8
        if i == 3:
            del ds.InstanceNumber
    paths = write(tmp_path, instances)
    volume = read(sorted(paths))
    assert list(volume.files) == paths
    np.testing.assert_array_equal(volume.array[0, 0], voxels()[:, 0, 0])


def test_slices_written_head_first_are_turned_to_ascend_along_the_normal(tmp_path: Path) -> None:
    paths = write(tmp_path, series(step=(0, 0, -3.0)))
    volume = read(paths)
    assert list(volume.files) == paths[::-1]
    np.testing.assert_allclose(volume.affine[:3, 3], [10, 20, 30 - 21])
    np.testing.assert_array_equal(volume.array, voxels()[::-1].transpose(2, 1, 0))


@pytest.mark.parametrize("orientation", DIRECTIONS, ids=lambda o: "".join(f"{int(v):+d}" for v in o))
@pytest.mark.parametrize("ascending", [True, False])
def test_every_orientation_agrees_with_its_tags_with_highdicom_and_with_itk(
    tmp_path: Path, orientation: tuple[float, ...], ascending: bool
) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    instances = series(orientation=orientation, step=tuple(normal * (3.0 if ascending else -3.0)))
    volume = read(write(tmp_path, instances))
    for ds in instances:
        position = LPS @ np.append(np.array(ds.ImagePositionPatient, dtype=float), 1)
        column, row, place = (np.linalg.inv(volume.affine) @ position)[:3]
        assert (column, row) == pytest.approx((0, 0), abs=1e-6)
        np.testing.assert_array_equal(volume.array[:, :, round(place)].T, ds.pixel_array)
    judge = highdicom.get_volume_from_series(instances)
    voxel = np.array([1, 2, 3, 1])
    point = judge.inverse_affine @ LPS @ volume.affine @ voxel
    k, j, i = np.rint(point[:3]).astype(int)
    np.testing.assert_allclose(point[:3], [k, j, i], atol=1e-6)
    assert judge.array[k, j, i] == volume.array[1, 2, 3]
    image = itk_image(tmp_path)
    np.testing.assert_array_equal(np.asarray(image).transpose(2, 1, 0), volume.array)
    assert farthest_corner_mm(volume.array.shape, LPS @ itk_affine(image), volume.affine) < WITHIN_MM
    write_mask(tmp_path / "mask.nii.gz", marker(volume.array.shape), volume.affine)
    mask, theirs = itk_volume(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask, marker(volume.array.shape))
    assert farthest_corner_mm(mask.shape, theirs, itk_affine(image)) < WITHIN_MM


def test_slope_and_intercept_of_each_slice_are_applied(tmp_path: Path) -> None:
    instances = series()
    for i, ds in enumerate(instances):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 * (i + 1), -10
    volume = read(write(tmp_path, instances))
    assert volume.array[0, 0, 0] == 10 * 0.5 - 10
    assert volume.array[0, 0, 1] == 40 * 1.0 - 10


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless],
    ids=lambda uid: uid.name,
)
def test_transfer_syntaxes_give_the_same_voxels(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    array = np.random.default_rng(0).integers(0, 4000, (4, 64, 64)).astype(np.uint16)
    compressed = syntax in (RLELossless, JPEG2000Lossless)
    instances = series(array) if compressed else series(array, syntax=syntax)
    for ds in instances:
        if compressed:
            ds.compress(syntax)
        elif syntax == ExplicitVRBigEndian:
            ds.PixelData = ds.PixelData[::1]
            ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()
    np.testing.assert_array_equal(read(write(tmp_path, instances)).array, array.transpose(2, 1, 0))


def test_padding_is_set_to_the_lowest_value_and_noted(tmp_path: Path) -> None:
    array = voxels().astype(np.int16)
    array[:, 0, 0] = -2000
    for name, syntax in (("explicit", "1.2.840.10008.1.2.1"), ("implicit", ImplicitVRLittleEndian)):
        volume = read(write(tmp_path / name, series(array, PixelPaddingValue=-2000, syntax=syntax)))
        assert volume.array.min() == 11
        assert volume.notes == ("8 padding pixels set to the lowest value",)


def test_single_slice_takes_its_thickness_and_says_so(tmp_path: Path) -> None:
    volume = read(write(tmp_path, series(voxels(depth=1))))
    assert volume.spacing_mm == pytest.approx((0.5, 0.75, 3.0))
    assert "single slice" in volume.notes[0]


def test_gap_is_filled_on_request_between_its_neighbours_and_noted(tmp_path: Path) -> None:
    paths = write(tmp_path, series())
    volume = read([path for i, path in enumerate(paths) if i != 4], allow_gap=True)
    assert volume.filled == (4,)
    assert len(volume.files) == 7
    np.testing.assert_allclose(volume.array, voxels().transpose(2, 1, 0))  # values grow linearly along Z
    assert volume.affine[2, 2] == pytest.approx(3.0)
    assert "interpolated: 5 (" in volume.notes[0]


def test_shallow_sequences_are_no_hindrance(tmp_path: Path) -> None:
    item = Dataset()
    item.CodeValue = "one"
    paths = write(tmp_path, series(ReferencedImageSequence=Sequence([item])))
    assert read(paths).array.shape == (5, 6, 8)


@pytest.mark.parametrize(
    ("keyword", "says"),
    [("SeriesInstanceUID", "holds 2 series: 1.2.3.4, "), ("PatientID", "files of two patients")],
)
def test_files_of_two_series_or_patients_are_refused(tmp_path: Path, keyword: str, says: str) -> None:
    instances = series()
    setattr(instances[0], keyword, "1.2.3.4")
    with pytest.raises(InputError, match=says) as caught:
        read(write(tmp_path, instances))
    assert PATIENT_ID not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_file_is_refused(tmp_path: Path, share: float, compressed: bool) -> None:
    array = np.random.default_rng(0).integers(0, 4000, (4, 32, 32)).astype(np.uint16)
    instances = series(array)
    for ds in instances:
        if compressed:
            ds.compress(JPEG2000Lossless)
    paths = write(tmp_path, instances)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError) as caught:
        read(paths)
    assert paths[2].name in str(caught.value) or "two patients" in str(caught.value) or "series" in str(caught.value)


def test_text_among_the_files_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, series())
    paths[0].write_text("not an image")
    with pytest.raises(InputError, match="is not a DICOM file that can be read"):
        read(paths)


def test_huge_volume_is_refused_with_its_size_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "MOST_VOXELS", 200)
    with pytest.raises(InputError, match="5 x 6 x 8 voxels, more than 200"):
        read(write(tmp_path, series()))


@pytest.mark.parametrize("seed", range(60))
def test_mutated_file_gives_a_volume_or_an_input_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = write(tmp_path, series(voxels(depth=3)))
    data = bytearray(paths[1].read_bytes())
    for _ in range(int(rng.integers(1, 30))):
        data[int(rng.integers(132, len(data)))] = int(rng.integers(256))
    paths[1].write_bytes(data)
    volume, message = None, ""
    try:
        volume = read(paths, force=bool(seed % 2))
    except InputError as error:
        message = str(error)
    assert volume is None or np.isfinite(volume.array).all()
    assert PATIENT_NAME not in message
