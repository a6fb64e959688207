"""Which scans are taken for those of one person."""

from __future__ import annotations

from pathlib import Path

from dicom_files import series, write
from empty import touch

from brainseg.study import find_patients
from brainseg.study.subjects import subjects_of


def test_bids_sessions_are_of_their_subject_and_each_data_set_has_its_own(tmp_path: Path) -> None:
    for site in ("a", "b"):
        for session in (1, 2):
            touch(tmp_path / site, f"sub-1/ses-{session}/anat/sub-1_ses-{session}_FLAIR.nii.gz")
    touch(tmp_path / "flat", "sub-1_ses-1_FLAIR.nii.gz", "sub-1_ses-2_FLAIR.nii.gz", "sub-2_FLAIR.nii.gz")
    subjects = subjects_of(find_patients(tmp_path))
    assert len(subjects) == 7
    assert sorted(list(subjects.values()).count(one) for one in set(subjects.values())) == [1, 2, 2, 2]


def test_dicom_goes_by_its_patient_id_unless_all_have_the_same(tmp_path: Path) -> None:
    for place, who in (("A/2001", "X"), ("A/2002", "X"), ("B/2001", "Y")):
        write(tmp_path / "told" / place, series(PatientID=who))
        write(tmp_path / "masked" / place, series(PatientID="ANONYMOUS"))
    told = subjects_of(find_patients(tmp_path / "told"))
    assert told["A_2001"] == told["A_2002"] == "A_2001"
    assert len(set(told.values())) == 2
    assert len(set(subjects_of(find_patients(tmp_path / "masked")).values())) == 3


def test_folders_of_visits_that_nothing_names_stay_patients(tmp_path: Path) -> None:
    touch(tmp_path, "B/2001/flair.nii.gz", "B/2004/flair.nii.gz")
    assert len(set(subjects_of(find_patients(tmp_path)).values())) == 2
