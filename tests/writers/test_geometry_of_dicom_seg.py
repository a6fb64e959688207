"""The SEG lies where the scan lies: read back by this package, by highdicom, by ITK and from its own tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import edited, oblique_phantom, series, write
from pydicom.uid import generate_uid
from seg_judges import JUDGES, marker, read_by_highdicom, read_by_tags, written
from strict_seg import read_dicom_seg

from brainseg.case import Case
from brainseg.errors import InputError
from brainseg.phantom import write_phantom_dicom
from brainseg.readers import read_case

# A DICOM series has no handedness: its slices are stacked along row x column, whichever way they were numbered. So the
# 48 signed permutations of the axes are 24 orientations of a slice, each numbered in both directions.
DIRECTIONS = [
    (*np.eye(3)[a] * sa, *np.eye(3)[b] * sb)
    for a, b in permutations(range(3), 2)
    for sa, sb in product((1, -1), (1, -1))
]


@pytest.mark.parametrize("orientation", DIRECTIONS, ids=lambda o: "".join(f"{int(v):+d}" for v in o))
@pytest.mark.parametrize("ascending", [True, False])
def test_every_orientation_is_read_back_voxel_for_voxel(
    tmp_path: Path, orientation: tuple[float, ...], ascending: bool
) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    write(tmp_path / "in", series(orientation=orientation, step=tuple(normal * (3.0 if ascending else -3.0))))
    case = read_case(tmp_path / "in")
    mask = written(case, tmp_path / "seg.dcm")
    for judge in JUDGES:
        np.testing.assert_array_equal(judge(tmp_path / "seg.dcm", case), mask, err_msg=judge.__name__)


@pytest.mark.parametrize("axes", ["LPS", "PIL", "LIP", "RAS"])
@pytest.mark.parametrize("descending", [True, False])
def test_an_oblique_phantom_is_read_back_voxel_for_voxel(tmp_path: Path, axes: str, descending: bool) -> None:
    phantom = oblique_phantom(axes)
    write_phantom_dicom(phantom, tmp_path, "one", descending=descending)
    case = read_case(tmp_path / "one")
    mask = written(case, tmp_path / "seg.dcm", phantom.mask)
    assert mask.any()
    for judge in JUDGES:
        np.testing.assert_array_equal(judge(tmp_path / "seg.dcm", case), mask, err_msg=judge.__name__)
    written(case, tmp_path / "lesions.dcm", marker(case.shape), per_lesion=True)
    np.testing.assert_array_equal(read_by_highdicom(tmp_path / "lesions.dcm", case), marker(case.shape))
    np.testing.assert_array_equal(read_by_tags(tmp_path / "lesions.dcm", case), marker(case.shape))


def test_slices_a_little_off_the_grid_have_frames_at_their_own_positions(tmp_path: Path) -> None:
    instances = series(SliceThickness=2.5)
    instances[3].ImagePositionPatient[0] += 0.004
    instances[5].ImageOrientationPatient = [1, 0, 0, 0, 1, 0.00005]
    write(tmp_path / "in", instances)
    case = read_case(tmp_path / "in")
    mask = written(case, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", case), mask)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    positions = [group.PlanePositionSequence[0].ImagePositionPatient for group in ds.PerFrameFunctionalGroupsSequence]
    assert instances[3].ImagePositionPatient in positions
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (2.5, pytest.approx(3.0))


def test_a_slice_interpolated_across_a_gap_has_a_frame_at_its_place(tmp_path: Path) -> None:
    paths = write(tmp_path / "in", series())
    paths[3].unlink()
    case = read_case(tmp_path / "in", allow_gap=True)
    assert (len(case.files), case.shape[2]) == (7, 8)
    mask = written(case, tmp_path / "seg.dcm")
    assert mask[..., 3].any()
    for judge in JUDGES:
        np.testing.assert_array_equal(judge(tmp_path / "seg.dcm", case), mask, err_msg=judge.__name__)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert ds.NumberOfFrames == 8
    assert len(ds.SourceImageSequence) == 7


def test_a_single_slice_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "in", series(np.arange(30, dtype=np.uint16).reshape(1, 6, 5)))
    case = read_case(tmp_path / "in")
    mask = np.zeros(case.shape, np.uint8)
    mask[1, 2, 0] = 1
    written(case, tmp_path / "seg.dcm", mask)
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", case), mask)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write(tmp_path / "in", series())
    case = read_case(tmp_path / "in")
    written(case, tmp_path / "seg.dcm")
    return case


def moved(ds: pydicom.Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient[1] += 0.02


def turned(ds: pydicom.Dataset) -> None:
    ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def higher(ds: pydicom.Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2] += 300


def finer(ds: pydicom.Dataset) -> None:
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0] = 0.76


def elsewhere(ds: pydicom.Dataset) -> None:
    ds.FrameOfReferenceUID = generate_uid()


def placeless(ds: pydicom.Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence


def fractional(ds: pydicom.Dataset) -> None:
    ds.SegmentationType = "FRACTIONAL"


def undescribed(ds: pydicom.Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[7]


def narrower(ds: pydicom.Dataset) -> None:
    ds.Columns = 4


def longer(ds: pydicom.Dataset) -> None:
    ds.NumberOfFrames = 4000


def cut(ds: pydicom.Dataset) -> None:
    ds.PixelData = ds.PixelData[:10]


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (moved, r"is off the scan's grid by 0\.02 mm"),
        (turned, r"is off the scan's grid by 5.3 mm"),
        (higher, "has a frame beyond the scan"),
        (finer, r"is off the scan's grid by 0\.05 mm"),
        (elsewhere, "has another frame of reference than the scan"),
        (placeless, "has a frame that does not say where it lies"),
        (fractional, "is a fractional segmentation"),
        (undescribed, "describes 7 of its 8 frames"),
        (narrower, "has frames of 4 x 6 pixels, the scan of 5 x 6"),
        (longer, "declares 4000 frames where 8 are possible"),
        (cut, "has pixel data that is damaged"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_seg_of_another_grid_or_a_damaged_one_is_refused(
    tmp_path: Path, case: Case, spoil: Callable[[pydicom.Dataset], None], cause: str
) -> None:
    edited(tmp_path / "seg.dcm", spoil)
    with pytest.raises(InputError, match=f"seg.dcm: {cause}"):
        read_dicom_seg(tmp_path / "seg.dcm", case)


def test_what_is_no_seg_is_refused(tmp_path: Path, case: Case) -> None:
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(InputError, match=r"text.dcm: is not a DICOM file that can be read"):
        read_dicom_seg(tmp_path / "text.dcm", case)
    with pytest.raises(InputError, match="is no DICOM segmentation; give a binary DICOM SEG"):
        read_dicom_seg(case.files[0], case)
    with pytest.raises(InputError, match=r"has no segment 3, but 1; choose among those"):
        read_dicom_seg(tmp_path / "seg.dcm", case, [3])
    with pytest.raises(InputError, match="is a DICOM SEG and the scan is not DICOM"):
        read_dicom_seg(tmp_path / "seg.dcm", replace(case, layout="nifti"))


def test_a_label_map_from_elsewhere_is_read(tmp_path: Path, case: Case) -> None:
    labels = marker(case.shape)
    labels[1, 2, 3] = 2
    sources = [pydicom.dcmread(file) for file in case.files]
    for source in sources:
        source.PatientBirthDate = source.PatientSex = source.AccessionNumber = source.StudyID = ""
        source.StudyDate = source.StudyTime = None
    binary = highdicom.seg.segread(tmp_path / "seg.dcm").get_segment_description(1)
    second = highdicom.seg.SegmentDescription.from_dataset(binary)
    second.SegmentNumber = 2
    highdicom.seg.Segmentation(
        sources,
        labels.transpose(2, 1, 0),
        "LABELMAP",
        [binary, second],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="another",
        manufacturer_model_name="program",
        software_versions="1",
        device_serial_number="1",
    ).save_as(tmp_path / "labels.dcm")
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "labels.dcm", case), marker(case.shape))
    np.testing.assert_array_equal(np.argwhere(read_dicom_seg(tmp_path / "labels.dcm", case, [2])), [[1, 2, 3]])
