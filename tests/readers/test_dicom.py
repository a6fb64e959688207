"""Series to volumes: known geometry, and every defect by the sentence it is refused with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT_ID, PATIENT_NAME, itk_image, series, voxels, write
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from seg_judges import WITHIN_MM, farthest_corner_mm, itk_affine, itk_volume, marker

from brainseg.errors import InputError, NotFlairError
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


def test_monochrome1_is_inverted_and_noted(tmp_path: Path) -> None:
    volume = read(write(tmp_path, series(PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_array_equal(volume.array, 259.0 - voxels().transpose(2, 1, 0))
    assert volume.notes == ("MONOCHROME1 inverted",)


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


def test_signed_pixels_keep_their_sign(tmp_path: Path) -> None:
    array = voxels().astype(np.int16) - 100
    assert read(write(tmp_path, series(array))).array.min() == -90


def test_padding_is_set_to_the_lowest_value_and_noted(tmp_path: Path) -> None:
    array = voxels().astype(np.int16)
    array[:, 0, 0] = -2000
    for name, syntax in (("explicit", "1.2.840.10008.1.2.1"), ("implicit", ImplicitVRLittleEndian)):
        volume = read(write(tmp_path / name, series(array, PixelPaddingValue=-2000, syntax=syntax)))
        assert volume.array.min() == 11
        assert volume.notes == ("8 padding pixels set to the lowest value",)


def test_long_decimal_strings_are_read(tmp_path: Path) -> None:
    instances = series(spacing=(1.0, 1.0, 3.0))
    paths = write(tmp_path, instances)
    old, new = b"1.0\\1.0 ", b"0.8999999761581421\\0.8999999761581421"
    for path in paths:
        data = path.read_bytes()
        tag = b"\x28\x00\x30\x00DS"
        at = data.index(tag)
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        assert data[at + 8 : at + 8 + length].startswith(old[:3])
        new_even = new + b" " * (len(new) % 2)
        path.write_bytes(data[:at] + tag + len(new_even).to_bytes(2, "little") + new_even + data[at + 8 + length :])
    assert read(paths).spacing_mm == pytest.approx((0.8999999761581421, 0.8999999761581421, 3.0), abs=1e-9)


def test_single_slice_takes_its_thickness_and_says_so(tmp_path: Path) -> None:
    volume = read(write(tmp_path, series(voxels(depth=1))))
    assert volume.spacing_mm == pytest.approx((0.5, 0.75, 3.0))
    assert "single slice" in volume.notes[0]


def test_slices_a_little_off_the_grid_are_noted(tmp_path: Path) -> None:
    instances = series()
    instances[3].ImagePositionPatient[0] += 0.025
    volume = read(write(tmp_path, instances))
    assert volume.notes == ("slices are off the grid by up to 0.022 mm",)


def test_gap_is_filled_on_request_between_its_neighbours_and_noted(tmp_path: Path) -> None:
    paths = write(tmp_path, series())
    volume = read([path for i, path in enumerate(paths) if i != 4], allow_gap=True)
    assert volume.filled == (4,)
    assert len(volume.files) == 7
    np.testing.assert_allclose(volume.array, voxels().transpose(2, 1, 0))  # values grow linearly along Z
    assert volume.affine[2, 2] == pytest.approx(3.0)
    assert "interpolated: 5 (" in volume.notes[0]


def test_gap_too_wide_to_interpolate_is_refused_even_on_request(tmp_path: Path) -> None:
    paths = write(tmp_path, series())
    with pytest.raises(InputError, match=r"12\.0 mm gap after slice 3 .*3 slices missing in all"):
        read([path for i, path in enumerate(paths) if i not in (3, 4, 5)], allow_gap=True)


def test_series_that_is_not_flair_is_read_by_force_alone(tmp_path: Path) -> None:
    paths = write(tmp_path, series(SeriesDescription="AX T1", EchoTime=10, RepetitionTime=500, InversionTime=None))
    with pytest.raises(NotFlairError, match=r"is not a FLAIR: its description does not say FLAIR; .*--force"):
        read(paths)
    assert read(paths, force=True).array.shape == (5, 6, 8)


def test_missing_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instances = series()
    for ds in instances:
        ds.compress(RLELossless)
    paths = write(tmp_path, instances)
    missing = SimpleNamespace(is_available=False, missing_dependencies=["pylibjpeg - requires pylibjpeg>=2.0"])
    monkeypatch.setattr(dicom, "get_decoder", lambda uid: missing)
    with pytest.raises(InputError, match=r"RLE Lossless.*codec is not installed; install pylibjpeg>=2.0"):
        read(paths)


def test_thousand_nested_sequences_neither_hang_nor_crash(tmp_path: Path) -> None:
    instances = series()
    inner = Dataset()
    inner.CodeValue = "deep"
    open_item = b"\x08\x00\x10\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    close_item = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    paths = write(tmp_path, instances)
    for path in paths:
        data = path.read_bytes()
        at = data.index(b"\x10\x00\x10\x00PN")
        path.write_bytes(data[:at] + open_item * 1000 + close_item * 1000 + data[at:])
    with pytest.raises(InputError, match="is not a DICOM file that can be read"):
        read(paths)


def test_shallow_sequences_are_no_hindrance(tmp_path: Path) -> None:
    item = Dataset()
    item.CodeValue = "one"
    paths = write(tmp_path, series(ReferencedImageSequence=Sequence([item])))
    assert read(paths).array.shape == (5, 6, 8)


# Every row: what is done to a sound series of eight slices (instances before writing), and what the error says.


def _with(keyword: str, value: Any, which: slice = slice(None)) -> Callable[[list[Any]], None]:
    def spoil(instances: list[Any]) -> None:
        for ds in instances[which]:
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)

    return spoil


def _moved(index: int, **by: float) -> Callable[[list[Any]], None]:
    def spoil(instances: list[Any]) -> None:
        for axis, distance in by.items():
            instances[index].ImagePositionPatient["xyz".index(axis)] += distance

    return spoil


def _sheared(instances: list[Any]) -> None:
    for i, ds in enumerate(instances):
        ds.ImagePositionPatient[1] += 0.5 * i


def _four_d(instances: list[Any]) -> None:
    for i, ds in enumerate(instances):
        ds.ImagePositionPatient = [-10, -20, 30 + 3 * (i % 4)]


def _smaller(instances: list[Any]) -> None:
    ds = instances[2]
    ds.Rows, ds.PixelData = 4, ds.PixelData[: 4 * 5 * 2]


def _colour(instances: list[Any]) -> None:
    for ds in instances:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0


def _cut(instances: list[Any]) -> None:
    instances[5].PixelData = instances[5].PixelData[:20]


def _cut_compressed(instances: list[Any]) -> None:
    for ds in instances:
        ds.compress(RLELossless)


DEFECTS: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "missing slice": (
        lambda ds: ds.pop(4),
        "has a 6.0 mm gap after slice 4 (spacing 3.0 mm); export it again complete",
    ),
    "duplicate slice": (_moved(3, z=-3.0), "has a duplicate slice (IM0017.dcm and IM0024.dcm"),
    "uneven spacing": (_moved(7, z=1.0), "is unevenly spaced: 4.00 mm after slice 7 (spacing 3.00 mm)"),
    "off the grid": (_moved(3, x=0.2), "off the grid by up to 0.1"),
    "two series": (_with("SeriesInstanceUID", "1.2.3.4", slice(4)), "holds 2 series: 1.2.3.4, "),
    "two patients": (_with("PatientID", "OTHER", slice(1)), "DICOM files of two patients"),
    "other orientation": (_with("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], slice(1)), "has another orientation"),
    "localiser": (_with("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], slice(6, 7)), "(1 of 8 slices differ)"),
    "other spacing": (_with("PixelSpacing", [0.8, 0.5], slice(1)), "has another spacing than the rest"),
    "other size": (_smaller, "has another size than the rest"),
    "other pixels": (_with("PixelRepresentation", 1, slice(1)), "has another kind of pixels"),
    "no position": (_with("ImagePositionPatient", None, slice(1)), "has no ImagePositionPatient that can be read"),
    "no orientation": (_with("ImageOrientationPatient", None), "has no ImageOrientationPatient that can be read"),
    "no spacing": (_with("PixelSpacing", None), "has no PixelSpacing that can be read"),
    "zero spacing": (_with("PixelSpacing", [0, 0]), "PixelSpacing that is not positive"),
    "not unit": (_with("ImageOrientationPatient", [1.1, 0, 0, 0, 1, 0]), "orientation that is not unit and orthogonal"),
    "not orthogonal": (_with("ImageOrientationPatient", [1, 0, 0, 0.6, 0.8, 0]), "not unit and orthogonal"),
    "shear": (_sheared, "is sheared by 9.5 degrees (gantry tilt)"),
    "4-D": (_four_d, "is 4-D: it holds 2 slices at each of 4 positions"),
    "mosaic": (_with("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "is a mosaic"),
    "enhanced": (_with("SOPClassUID", EnhancedMRImageStorage), "is enhanced multi-frame DICOM; convert it"),
    "multi-frame": (_with("NumberOfFrames", 3), "is enhanced multi-frame DICOM"),
    "colour": (_colour, "is a colour image"),
    "slope zero": (_with("RescaleSlope", 0, slice(1)), "rescale slope or intercept that is 0"),
    "all equal": (_with("PixelData", b"\7\0" * 30), "all its voxels are equal"),
    "cut pixel data": (_cut, "is cut short"),
    "no pixel data": (_with("PixelData", None, slice(1)), "is cut short"),
    "odd bits": (_with("BitsAllocated", 12), "pixels of 12 bits"),
    "too large": (_with("Rows", 65535), "is cut short"),
    "CT": (_with("Modality", "CT"), "is not a FLAIR: its modality is CT, not MR; "),
    "CT storage": (lambda ds: [_with(*kv)(ds) for kv in (("SOPClassUID", CTImageStorage), ("Modality", "CT"))], "CT"),
    "T1": (_with("SeriesDescription", "SAG T1 MPRAGE"), "its description does not say FLAIR"),
    "T1 FLAIR": (_with("SeriesDescription", "AX T1 FLAIR"), "its description does not say FLAIR"),
    "FLAIR that is none": (_with("EchoTime", 9), "says FLAIR but TE 9 ms, TR 9000 ms, TI 2500 ms is none"),
    "says nothing": (
        lambda ds: [_with(k, None)(ds) for k in ("SeriesDescription", "EchoTime")],
        "nothing in its header says FLAIR",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defective_series_is_refused_by_name(tmp_path: Path, defect: str) -> None:
    spoil, says = DEFECTS[defect]
    instances = series()
    spoil(instances)
    with pytest.raises(InputError) as caught:
        read(write(tmp_path, instances))
    message = str(caught.value)
    assert says in message
    assert message.count("; ") >= 1
    assert "\n" not in message
    for secret in (PATIENT_NAME, PATIENT_ID, "Planted", "OTHER"):
        assert secret not in message


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


def test_unsupported_compression_is_named(tmp_path: Path) -> None:
    instances = series()
    for ds in instances:
        ds.compress(RLELossless)
        ds.file_meta.TransferSyntaxUID = MPEG2MPML
    paths = write(tmp_path, instances)
    with pytest.raises(InputError, match=r"not supported .*MPEG2.*gdcmconv"):
        read(paths)


def test_huge_volume_is_refused_with_its_size_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "MOST_VOXELS", 200)
    with pytest.raises(InputError, match="5 x 6 x 8 voxels, more than 200"):
        read(write(tmp_path, series()))


def test_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainseg.study.headers.LARGEST_INFLATED", 2**20)
    instances = series(np.zeros((2, 1200, 1200), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(InputError, match="is not a DICOM file that can be read"):
        read(write(tmp_path, instances))


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
