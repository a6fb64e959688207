"""The mask as DICOM SEG: what it says, what it refers to, whom it names, and when there is none."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from command import Bright, brainseg, open_bundles_with
from dicom_files import oblique_phantom, series, voxels, write
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from seg_judges import errors_of, needs_dciodvfy
from strict_seg import read_dicom_seg

from brainseg.case import Case, Segmentation
from brainseg.errors import InputError
from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti
from brainseg.readers import read_case
from brainseg.study import find_patients
from brainseg.writers.dicom_seg import write_dicom_seg
from brainseg.writers.formats import write_formats

WEIGHTS = "ab" * 32


def two_lesions(shape: tuple[int, ...] = (5, 6, 8)) -> np.ndarray:
    """A lesion of 2 voxels, met first, and one of 5."""
    mask = np.zeros(shape, np.uint8)
    mask[0, 0, :2] = 1
    mask[3, 2:5, 5] = mask[4, 4, 5:7] = 1
    return mask


def result_of(case: Case, mask: np.ndarray | None = None) -> Segmentation:
    mask = two_lesions(case.shape) if mask is None else mask
    made_by = {"bundle": "residual_unet", "weights_sha256": WEIGHTS, "bundle_version": "0.2.0"}
    return Segmentation(mask, mask.astype(np.float32), case.affine, case.spacing_mm, 0.5, **made_by)


def case_of(folder: Path, **tags: Any) -> Case:
    write(folder, series(**tags))
    return read_case(folder)


def seg_of(case: Case, path: Path, mask: np.ndarray | None = None, **options: Any) -> pydicom.Dataset:
    write_dicom_seg(path, case, result_of(case, mask), **options)
    return pydicom.dcmread(path)


def code(sequence: Any) -> tuple[str, str, str]:
    (item,) = sequence
    return item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning


def test_the_segment_is_a_lesion_of_the_brain_and_names_its_algorithm_version_and_weights(tmp_path: Path) -> None:
    seg = seg_of(case_of(tmp_path / "in"), tmp_path / "seg.dcm")
    (segment,) = seg.SegmentSequence
    assert segment.SegmentLabel == "FLAIR abnormality"
    assert code(segment.SegmentedPropertyCategoryCodeSequence)[:2] == ("49755003", "SCT")
    assert code(segment.SegmentedPropertyTypeCodeSequence) == ("301766008", "SCT", "Lesion of Brain")
    assert code(segment.AnatomicRegionSequence) == ("12738006", "SCT", "Brain")
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "brainseg"
    assert algorithm.AlgorithmVersion == "0.1.0"
    assert algorithm.AlgorithmParameters == (
        f"bundle=residual_unet,bundle_version=0.2.0,weights_sha256={WEIGHTS},threshold=0.5"
    )
    assert (seg.Modality, seg.SegmentationType, seg.SeriesNumber) == ("SEG", "BINARY", 1005)


def test_it_refers_to_every_instance_and_each_frame_to_its_slice(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in")
    seg = seg_of(case, tmp_path / "seg.dcm")
    sources = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, case.files)}
    first = next(iter(sources.values()))
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (first.StudyInstanceUID, first.FrameOfReferenceUID)
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == set(sources)
    assert seg.NumberOfFrames == 8
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert item.ReferencedSOPClassUID == MRImageStorage
        assert item.SpatialLocationsPreserved == "YES"
        source = sources[item.ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient


def test_it_refers_to_the_flair_where_other_series_were_used_too(tmp_path: Path) -> None:
    write_phantom_dicom(make_phantom(shape=(32, 32, 6), spacing_mm=(7.2, 7.2, 24.0)), tmp_path, "one")
    case = read_case(tmp_path / "one")
    assert case.missing == ()
    seg = seg_of(case, tmp_path / "seg.dcm")
    flair = pydicom.dcmread(tmp_path / "one" / "FLAIR" / "0001.dcm")
    assert [item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence] == [flair.SeriesInstanceUID]


def test_equal_input_gives_identical_bytes_and_another_mask_or_network_other_uids(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in")
    first = seg_of(case, tmp_path / "first.dcm")
    seg_of(case, tmp_path / "second.dcm")
    assert (tmp_path / "first.dcm").read_bytes() == (tmp_path / "second.dcm").read_bytes()
    write_dicom_seg(tmp_path / "third.dcm", case, replace(result_of(case), weights_sha256="cd" * 32))
    others = [seg_of(case, tmp_path / "other.dcm", 1 - two_lesions()), pydicom.dcmread(tmp_path / "third.dcm")]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = {str(ds[keyword].value) for ds in (first, *others)}
        assert len(uids) == 3
        assert all(uid.startswith("2.25.") and pydicom.uid.UID(uid).is_valid for uid in uids)
    assert first.SOPInstanceUID != first.SeriesInstanceUID


@pytest.mark.parametrize(
    ("said", "stamped"),
    [
        (("20190305", "142233.5"), ("20190305", "142233")),
        (("", ""), ("19000101", "000000")),
        (("20191399", "x"), ("19000101", "000000")),
    ],
)
def test_the_time_of_content_is_that_of_the_study(
    tmp_path: Path, said: tuple[str, str], stamped: tuple[str, str]
) -> None:
    with pydicom.config.disable_value_validation():
        case = case_of(tmp_path / "in", StudyDate=said[0], StudyTime=said[1])
        seg = seg_of(case, tmp_path / "seg.dcm")
    assert (seg.ContentDate, seg.ContentTime) == stamped
    assert (seg.StudyDate, seg.StudyTime) == said
    assert "InstanceCreationDate" not in seg


def test_a_segment_per_lesion_is_numbered_as_in_the_table_with_the_largest_first(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in")
    seg = seg_of(case, tmp_path / "seg.dcm", per_lesion=True)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["FLAIR abnormality 1", "FLAIR abnormality 2"]
    assert seg.NumberOfFrames == 4  # slices 5 and 6, then 0 and 1
    mask = two_lesions()
    large, small = (read_dicom_seg(tmp_path / "seg.dcm", case, [n]) for n in (1, 2))
    assert (large.sum(), small.sum()) == (5, 2)
    np.testing.assert_array_equal(small[0, 0], mask[0, 0])
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", case), mask)


@pytest.mark.parametrize("per_lesion", [False, True])
def test_an_empty_mask_is_a_seg_with_an_empty_frame_for_every_slice(tmp_path: Path, per_lesion: bool) -> None:
    case = case_of(tmp_path / "in")
    seg = seg_of(case, tmp_path / "seg.dcm", np.zeros(case.shape, np.uint8), per_lesion=per_lesion)
    assert seg.NumberOfFrames == 8
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["FLAIR abnormality"]
    assert not seg.pixel_array.any()


def test_more_lesions_than_a_byte_counts_stay_apart(tmp_path: Path) -> None:
    mask = np.zeros((34, 34, 2), np.uint8)
    mask[::2, ::2, 0] = 1
    write(tmp_path / "in", series(voxels(2, 34, 34)))
    case = read_case(tmp_path / "in")
    seg = seg_of(case, tmp_path / "seg.dcm", mask, per_lesion=True)
    assert len(seg.SegmentSequence) == 289
    np.testing.assert_array_equal(read_dicom_seg(tmp_path / "seg.dcm", case), mask)
    assert read_dicom_seg(tmp_path / "seg.dcm", case, [289]).sum() == 1


CARRIED = {
    "PatientName": "Zzcarried^Name",
    "PatientID": "ZZCARRIED-ID",
    "PatientBirthDate": "19310203",
    "PatientSex": "O",
    "AccessionNumber": "ZZCARRIEDACC",
    "ReferringPhysicianName": "Zzcarried^Referrer",
    "StudyID": "ZZCARRIEDSTUDY",
}
KEPT_BACK = {
    "OtherPatientNames": "Zzsecret^Other",
    "PatientComments": "Zzsecret comment",
    "PatientAddress": "Zzsecret street",
    "PatientTelephoneNumbers": "ZZSECRET555",
    "PatientMotherBirthName": "Zzsecret^Mother",
    "EthnicGroup": "ZZSECRETETHNIC",
    "Occupation": "ZZSECRETWORK",
    "PatientAge": "099Y",
    "StudyDescription": "Zzsecret study",
    "SeriesDescription": "AX FLAIR Zzsecret",
    "InstitutionName": "Zzsecret hospital",
    "InstitutionAddress": "Zzsecret address",
    "StationName": "ZZSECRETSTATION",
    "OperatorsName": "Zzsecret^Operator",
    "PerformingPhysicianName": "Zzsecret^Performer",
    "Manufacturer": "Zzsecret maker",
    "DeviceSerialNumber": "ZZSECRETSERIAL",
    "ProtocolName": "FLAIR Zzsecret",
    "RequestedProcedureDescription": "Zzsecret request",
    "ImageComments": "Zzsecret image",
}


def identified(folder: Path) -> None:
    instances = series(**CARRIED, **KEPT_BACK)
    for ds in instances:
        block = ds.private_block(0x0011, "Zzsecret creator", create=True)
        block.add_new(0x01, "LO", "Zzsecret private")
        item = Dataset()
        item.PatientID = "ZZSECRETITEM"
        ds.OtherPatientIDsSequence = [item]
    write(folder, instances)


def test_the_patient_and_study_are_carried_and_nothing_else_of_25_planted_identifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    identified(tmp_path / "one")
    with caplog.at_level("DEBUG"):
        assert brainseg("segment", tmp_path / "one", "--out", tmp_path / "out", "-v") == 0
    seg = pydicom.dcmread(tmp_path / "out" / "one" / "seg.dcm")
    assert {keyword: str(seg[keyword].value) for keyword in CARRIED} == CARRIED
    assert not any(element.tag.is_private for element in seg.iterall())
    shown = "".join(capfd.readouterr()) + caplog.text
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for content in (shown.encode(), *(path.read_bytes() for path in files)):
        assert b"zzsecret" not in content.lower()
        assert b"099Y" not in content
    for path in files:
        if path.name != "seg.dcm":
            assert b"zzcarried" not in path.read_bytes().lower(), path
    assert "zzcarried" not in shown.lower()


def test_names_that_no_program_likes_are_carried_byte_for_byte_and_never_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tags = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller Zzodd", "PatientSex": "X"}
    case = case_of(tmp_path / "in", **tags)
    seg = seg_of(case, tmp_path / "seg.dcm")
    assert str(seg.PatientName) == "Müller Zzodd"
    assert seg.PatientSex == "X"
    assert "Müller Zzodd".encode("latin1") in (tmp_path / "seg.dcm").read_bytes()
    assert "Zzodd" not in caplog.text


def test_what_the_source_does_not_say_is_empty(tmp_path: Path) -> None:
    seg = seg_of(case_of(tmp_path / "in", PatientName=None), tmp_path / "seg.dcm")
    for keyword in ("PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
        assert keyword in seg
        assert not seg[keyword].value


def test_a_series_without_frame_of_reference_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in", FrameOfReferenceUID=None)
    with pytest.raises(InputError, match="its series has no FrameOfReferenceUID, which a SEG needs; export it again"):
        write_dicom_seg(tmp_path / "seg.dcm", case, result_of(case))
    assert not (tmp_path / "seg.dcm").exists()


def test_an_instance_of_a_private_class_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in", SOPClassUID="1.3.46.670589.11.0.0.12.1")
    with pytest.raises(InputError, match="its series has an instance without a UID, or of a class that DICOM does not"):
        write_dicom_seg(tmp_path / "seg.dcm", case, result_of(case))


@pytest.mark.parametrize("thickness", [None, "", "thick", "-3"])
def test_numbers_that_are_missing_or_malformed_do_no_harm(tmp_path: Path, thickness: str | None) -> None:
    with pydicom.config.disable_value_validation():
        paths = write(tmp_path / "in", series())
        for path in paths:
            data = path.read_bytes()  # 0018,0050 and 0020,0011
            for tag, value in ((b"\x18\x00\x50\x00DS", thickness), (b"\x20\x00\x11\x00IS", "many")):
                at = data.index(tag)
                end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
                new = b"" if value is None else tag + len(padded := padding(value)).to_bytes(2, "little") + padded
                data = data[:at] + new + data[end:]
            path.write_bytes(data)
        case = read_case(tmp_path / "in")
        seg = seg_of(case, tmp_path / "seg.dcm")
    assert seg.SeriesNumber == 1000
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (pytest.approx(3.0), pytest.approx(3.0))


def padding(value: str) -> bytes:
    return value.encode() + b" " * (len(value) % 2)


def test_files_that_are_gone_are_named(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in")
    case.files[0].unlink()
    with pytest.raises(InputError, match=rf"{case.files[0].name}: is not a DICOM file that can be read"):
        write_dicom_seg(tmp_path / "seg.dcm", case, result_of(case))


def test_a_case_that_is_not_dicom_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    case = replace(case_of(tmp_path / "in"), layout="nifti")
    with pytest.raises(ValueError, match="expected a DICOM case, got the layout 'nifti'"):
        write_dicom_seg(tmp_path / "seg.dcm", case, result_of(case))


@needs_dciodvfy
@pytest.mark.parametrize("axes", ["LPS", "PIL", "LIP"])
@pytest.mark.parametrize("options", [{}, {"per_lesion": True}, {"mask": 0}], ids=["one", "per lesion", "empty"])
def test_dciodvfy_finds_no_error_that_the_source_did_not_have(
    tmp_path: Path, axes: str, options: dict[str, Any]
) -> None:
    write_phantom_dicom(oblique_phantom(axes), tmp_path, "one", descending=True)
    case = read_case(tmp_path / "one")
    mask = two_lesions(case.shape) * np.uint8(options.pop("mask", 1))
    seg_of(case, tmp_path / "seg.dcm", mask, **options)
    assert errors_of(tmp_path / "seg.dcm") <= errors_of(case.files[0])


def test_segment_writes_a_seg_for_dicom_alone_and_flags_one_that_does_not_suit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    phantom = make_phantom(shape=(64, 64, 8), spacing_mm=(3.6, 3.6, 18.0))
    write_phantom_nifti(phantom, tmp_path / "patients", "nifti_one")
    write_phantom_dicom(phantom, tmp_path / "patients", "dicom_one")
    default, asked = tmp_path / "default", tmp_path / "asked"
    assert brainseg("segment", tmp_path / "patients" / "dicom_one", "--out", default, "-q") == 0
    assert brainseg("segment", tmp_path / "patients", "--out", asked, "--format", "nifti,dicom-seg", "-q") == 0
    seg = asked / "dicom_one" / "seg.dcm"
    assert list(asked.rglob("seg.dcm")) == [seg]
    assert seg.read_bytes() == (default / "dicom_one" / "seg.dcm").read_bytes()
    mask = nibabel.load(asked / "dicom_one" / "mask.nii.gz").get_fdata()
    assert mask.any()
    np.testing.assert_array_equal(read_dicom_seg(seg, read_case(tmp_path / "patients" / "dicom_one")), mask)
    (segment,) = pydicom.dcmread(seg).SegmentSequence
    bundle = json.loads((asked / "run.json").read_text())["bundles"][0]
    said = segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert f"bundle_version={bundle['version']},weights_sha256={bundle['weights_sha256']}" in said
    with (asked / "cohort.csv").open(newline="") as stream:
        flags = {row["case"]: row["flags"] for row in csv.DictReader(stream)}
    assert "format_left_out" in flags["nifti_one"]
    assert "format_left_out" not in flags["dicom_one"]
    assert (
        "no dicom-seg: the input is not DICOM" in json.loads((asked / "nifti_one" / "case.json").read_text())["notes"]
    )


def test_the_format_follows_the_input_and_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in")
    seg = tmp_path / "out" / "seg.dcm"
    assert write_formats(tmp_path / "out", case, result_of(case), None, segment_per_lesion=True) == []
    assert len(pydicom.dcmread(seg).SegmentSequence) == 2
    assert write_formats(tmp_path / "out", case, result_of(case), ("nifti", "tiff")) == [
        "no tiff: the input is not TIFF"
    ]
    assert not seg.exists()  # it may have been of another mask
    unplaced = case_of(tmp_path / "unplaced", FrameOfReferenceUID=None)
    left_out = ["no dicom-seg: its series has no FrameOfReferenceUID, which a SEG needs"]
    assert write_formats(tmp_path / "out", unplaced, result_of(case), ("dicom-seg",)) == left_out
    assert write_formats(tmp_path / "out", replace(case, layout="nifti"), result_of(case), None) == []
    assert not seg.exists()


def test_a_seg_beside_its_series_is_not_taken_for_the_scan(tmp_path: Path) -> None:
    case = case_of(tmp_path / "in")
    seg_of(case, tmp_path / "in" / "seg.dcm")
    (patient,) = find_patients(tmp_path / "in")
    assert set(patient.flair.files) == set(case.files)
    assert (patient.skipped, patient.problem) == (1, None)
