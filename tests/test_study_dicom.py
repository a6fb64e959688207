"""DICOM studies: patients, sessions, and the series chosen from each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dicom_files import PATIENT_ID, SAGITTAL, series, voxels, write
from empty import touch
from pydicom.uid import generate_uid

from brainseg.errors import InputError, UsageError
from brainseg.study import Patient, find_patients
from brainseg.study.choice import Candidate, choose
from brainseg.study.headers import Header


def names(patients: list[Patient]) -> list[str]:
    return [patient.name for patient in patients]


def test_study_tree_without_suffixes_finds_flair_pre_and_post_and_counts_the_rest(tmp_path: Path) -> None:
    study = generate_uid()
    common: dict[str, Any] = {"StudyInstanceUID": study}
    t1 = {"EchoTime": 10, "RepetitionTime": 600, "InversionTime": None, **common}
    root = tmp_path / "P1" / "2001"
    write(root / "1", series(voxels(3), SeriesDescription="LOC", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **t1))
    write(root / "2", series(SeriesDescription="AX T1", SeriesNumber=2, **t1), suffix="")
    write(root / "3", series(SeriesNumber=3, **common), suffix="")
    write(root / "4", series(SeriesDescription="AX T1 POST", SeriesNumber=4, **t1), suffix="")
    touch(root, "3/readme.txt", "DICOMDIR")
    (patient,) = find_patients(tmp_path / "P1")
    assert patient.name == "P1"
    assert patient.certain is True
    assert patient.why == "its description says FLAIR"
    assert patient.pre is not None
    assert patient.post is not None
    assert [s.description for s in (patient.flair, patient.pre, patient.post)] == ["AX FLAIR", "AX T1", "AX T1 POST"]
    assert len(patient.flair.files) == 8
    assert patient.skipped == 3 + 2


def test_folder_of_patients_gives_one_a_folder_and_one_a_study(tmp_path: Path) -> None:
    root = tmp_path / "manifest" / "COLLECTION"
    write(root / "P1" / "s" / "flair", series(PatientID="1"))
    write(root / "P2" / "2001" / "flair", series(PatientID="2"))
    write(root / "P2" / "2002" / "flair", series(PatientID="2"))
    patients = find_patients(tmp_path)
    assert names(patients) == ["P1", "P2_2001", "P2_2002"]
    assert [p.path.relative_to(root).as_posix() for p in patients] == ["P1", "P2/2001", "P2/2002"]


@pytest.mark.parametrize(
    ("study", "flair", "t1"),
    [
        ("11-13-2001-NA-BRAIN-48890", "7.000000-t2Flairaxial-17693", "3.000000-t1 axial-06410"),
        ("1.3.6.1.4.1.14519.5.2.1.48890", "1.3.6.1.4.1.14519.5.2.1.17693", "1.3.6.1.4.1.14519.5.2.1.06410"),
    ],
)
def test_download_of_the_nbia_data_retriever_is_read_as_it_lies(
    tmp_path: Path, study: str, flair: str, t1: str
) -> None:
    manifest = tmp_path / "manifest-1700000000000"
    for number in (1, 2):
        root = manifest / "UPENN-GBM" / f"GBM-0000{number}" / study
        common: dict[str, Any] = {"StudyInstanceUID": generate_uid(), "PatientID": f"GBM-0000{number}"}
        write(root / flair, series(SeriesDescription="t2_Flair_axial", SeriesNumber=7, **common))
        own = series(SeriesDescription="t1 axial", SeriesNumber=3, InversionTime=None, EchoTime=9, **common)
        write(root / t1, own)
        touch(root / flair, "LICENSE")
    touch(manifest, "metadata.csv", "UPENN-GBM/LICENSE")
    for given in (tmp_path, manifest, manifest / "UPENN-GBM"):
        patients = find_patients(given)
        assert names(patients) == ["GBM-00001", "GBM-00002"]
        assert [(p.flair.description, p.pre and p.pre.description, p.skipped) for p in patients] == [
            ("t2_Flair_axial", "t1 axial", 1)
        ] * 2


def test_two_studies_in_one_flat_folder_are_two_sessions(tmp_path: Path) -> None:
    for number in (1, 2):
        for i, path in enumerate(write(tmp_path / f"tmp{number}", series())):
            (tmp_path / "P").mkdir(exist_ok=True)
            path.rename(tmp_path / "P" / f"{number}-{i}")
    for number in (1, 2):
        (tmp_path / f"tmp{number}").rmdir()
    assert names(find_patients(tmp_path / "P")) == ["P", "P-2"]


def test_a_patient_below_the_files_of_another_is_refused_without_their_ids(tmp_path: Path) -> None:
    for place, patient in (("", "A"), ("deeper", "B")):
        paths = write(tmp_path / f"new{patient}", series(PatientID=f"SECRET-{patient}"))
        for path in paths:
            target = tmp_path / "P" / place / f"{patient}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    with pytest.raises(InputError, match="holds DICOM files of two patients; give each") as caught:
        find_patients(tmp_path / "P")
    assert "SECRET" not in str(caught.value)


def test_a_file_that_strayed_above_its_folder_costs_nobody_anything(tmp_path: Path) -> None:
    for patient in "ABC":
        write(tmp_path / patient / "flair", series(PatientID=patient))
    stray = next((tmp_path / "A" / "flair").iterdir())
    stray.rename(tmp_path / stray.name)
    found = find_patients(tmp_path)
    assert names(found) == ["A", "B", "C"]
    assert all(patient.problem is None for patient in found)


def test_a_blank_patient_id_is_not_a_second_patient(tmp_path: Path) -> None:
    study = generate_uid()
    write(tmp_path / "flair", series(PatientID="A", StudyInstanceUID=study))
    write(tmp_path / "t1", series(PatientID="", StudyInstanceUID=study, SeriesDescription="AX T1", EchoTime=10))
    (patient,) = find_patients(tmp_path)
    assert patient.pre is not None


def test_series_asked_for_is_the_flair_and_an_unknown_one_is_usage(tmp_path: Path) -> None:
    study, uid = generate_uid(), generate_uid()
    write(tmp_path / "a", series(StudyInstanceUID=study))
    write(tmp_path / "b", series(StudyInstanceUID=study, SeriesInstanceUID=uid, SeriesDescription="T2"))
    write(tmp_path / "c", series())
    (patient,) = find_patients(tmp_path, series=uid)
    assert patient.flair.uid == uid
    assert patient.why.startswith("asked for; ")
    with pytest.raises(UsageError, match=r"holds no image series 1\.2\.3"):
        find_patients(tmp_path, series="1.2.3")


def test_study_without_flair_lists_its_series(tmp_path: Path) -> None:
    study = generate_uid()
    for words in ("AX T2", "AX T1"):
        write(tmp_path / words, series(StudyInstanceUID=study, SeriesDescription=words, InversionTime=None))
    with pytest.raises(InputError, match=r"none of 2 series says FLAIR: .*AX T1.*AX T2|AX T2.*AX T1"):
        find_patients(tmp_path)


@pytest.mark.parametrize("tags", [{"SeriesDescription": "AX T1", "InversionTime": None}, {"Modality": "CT"}])
def test_lone_series_that_is_not_flair_is_found_but_not_certain(tmp_path: Path, tags: dict[str, Any]) -> None:
    write(tmp_path, series(**tags))
    (patient,) = find_patients(tmp_path)
    assert patient.certain is False
    assert "FLAIR" in patient.why or "CT" in patient.why


def test_patient_of_damaged_files_alone_is_not_lost_from_a_cohort(tmp_path: Path) -> None:
    write(tmp_path / "good", series())
    for path in write(tmp_path / "bad" / "flair", series()):
        path.write_bytes(path.read_bytes()[:200])
    bad, good = find_patients(tmp_path)
    assert "damaged" in str(bad.problem)
    assert (bad.name, good.name) == ("bad_flair", "good")


def test_single_instance_is_a_patient(tmp_path: Path) -> None:
    paths = write(tmp_path, series(), suffix="")
    (patient,) = find_patients(paths[0])
    assert (patient.name, patient.flair.files, patient.flair.layout) == ("IM0003", (paths[0],), "dicom")


def test_identity_never_reaches_a_name_or_a_repr(tmp_path: Path) -> None:
    write(tmp_path / "x", series(SeriesDescription="AX FLAIR"))
    assert PATIENT_ID not in repr(find_patients(tmp_path))


# --- the choice itself, on headers alone

FLAIR = {"description": "AX FLAIR", "te_ms": 120.0, "tr_ms": 9000.0, "ti_ms": 2500.0}


def candidate(uid: str, slices: int = 20, **says: Any) -> Candidate:
    known = {"modality": "MR", "image": True, "orientation": (1, 0, 0, 0, 1, 0), **says}
    return Candidate(Header("study", uid, "patient", **known), slices)


@pytest.mark.parametrize(
    ("candidates", "taken", "says"),
    [
        ([candidate("a", description="AX T2"), candidate("b", **FLAIR)], 1, "its description says FLAIR"),
        ([candidate("a", description="t2_tirm_tra_dark-fluid_FS")], 0, "its description says FLAIR"),
        (
            [candidate("a", te_ms=120, tr_ms=9000, ti_ms=2500)],
            0,
            "TE 120 ms, TR 9000 ms, TI 2500 ms is that of a FLAIR",
        ),
        ([candidate("a", protocol="flair_3d")], 0, "its description says FLAIR"),
        (
            [candidate("a", description="AX T1 FLAIR", te_ms=9), candidate("b", **FLAIR)],
            1,
            "its description says FLAIR",
        ),
        ([candidate("a", 99, **FLAIR, image_type=("DERIVED", "SECONDARY", "MPR")), candidate("b", **FLAIR)], 1, "its"),
        ([candidate("a", 99, **{**FLAIR, "orientation": SAGITTAL}), candidate("b", **FLAIR)], 1, "is axial with 20"),
        (
            [candidate("a", 20, **FLAIR), candidate("b", 40, **FLAIR)],
            1,
            "is axial with 40 slices, not the axial with 20 slices",
        ),
        ([candidate("a", **FLAIR, number=9), candidate("b", **FLAIR, number=4)], 1, "of 2 FLAIR series"),
        ([candidate("a", 31, **{**FLAIR, "contrast": True}), candidate("b", 30, **FLAIR)], 1, "is axial with 30"),
        ([candidate("a", **FLAIR, image_type=("DERIVED", "SECONDARY"))], 0, "its description says FLAIR"),
    ],
)
def test_flair_is_chosen_by_words_physics_plane_and_size(candidates: list[Candidate], taken: int, says: str) -> None:
    choice = choose(candidates)
    assert choice.flair == taken
    assert choice.certain is True
    assert says in choice.why
    assert choice.tied == ()


@pytest.mark.parametrize(
    ("description", "contrast", "role"),
    [
        ("AX T1", False, "pre"),
        ("AX T1", True, "post"),
        ("AX T1 +C", False, "post"),
        ("T1 POST GAD", False, "post"),
        ("t1_mprage_sag_gd", False, "post"),
        ("AX T1 W/O CONTRAST", False, "pre"),
        ("T1 PRE", True, "pre"),
        ("Sag 3D MPRAGE pre-op", True, "post"),
        ("t1_tse_tra nach KM", False, "post"),
        ("t1_tse_tra ohne KM", True, "pre"),
        ("T1 nativ", True, "pre"),
        ("AX T1 SANS GADO", False, "pre"),
        ("T1 AX INJ", False, "post"),
        ("AX T2", False, None),
        ("T1 map", False, None),
        ("3D TOF T1", False, None),
    ],
)
def test_t1_is_told_before_from_after_contrast(description: str, contrast: bool, role: str | None) -> None:
    choice = choose([candidate("a", **FLAIR), candidate("b", description=description, contrast=contrast)])
    assert (choice.pre, choice.post) == (1 if role == "pre" else None, 1 if role == "post" else None)
