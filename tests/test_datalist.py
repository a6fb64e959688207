"""Folds by patient, and the datalist that bundles train from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainseg.datalist import (
    in_fold,
    monai_datalist,
    read_folds,
    split_by_patient,
    split_by_subject,
    write_datalist,
    write_folds,
)
from brainseg.errors import InputError, UsageError
from brainseg.phantom import make_phantom, write_phantom_nifti
from brainseg.study import Patient, Series, find_patients

NAMES = [f"P{i:02d}" for i in range(13)]


def kaggle(root: Path, name: str, slices: int = 12) -> None:
    (root / name).mkdir(parents=True)
    for i in range(1, slices + 1):
        (root / name / f"{name}_{i}.tif").touch()
        (root / name / f"{name}_{i}_mask.tif").touch()


def nifti(root: Path, name: str, **fields: object) -> Patient:
    """A patient of NIfTI volumes; `pre=True` gives it a pre-contrast T1."""

    def series(kind: str) -> Series:
        return Series("nifti", (root / name / f"{kind}.nii.gz",))

    patient = Patient(name, root / name, series("flair"), masks=(root / name / "mask.nii.gz",))
    return replace(patient, **{key: series(key) if value is True else value for key, value in fields.items()})


# --- folds


def test_every_patient_is_in_one_fold_and_folds_differ_by_one_at_most() -> None:
    parts = split_by_patient(NAMES, folds=5)
    assert sorted(name for part in parts for name in part) == NAMES
    assert sorted(map(len, parts)) == [2, 2, 3, 3, 3]


def test_split_depends_on_the_seed_and_not_on_the_order_given() -> None:
    assert split_by_patient(NAMES) == split_by_patient(NAMES[::-1])
    assert split_by_patient(NAMES) != split_by_patient(NAMES, seed=1)


def test_strata_give_every_fold_one_patient_of_each_size() -> None:
    sizes = {f"{size}{i}": {"S": 1.0, "M": 2.0, "L": 3.0}[size] for size in "SML" for i in range(4)}
    for part in split_by_patient(list(sizes), folds=4, strata=sizes):
        assert sorted(name[0] for name in part) == ["L", "M", "S"]


def test_scans_of_one_person_are_in_one_fold() -> None:
    subjects = {f"sub-{n}_ses-{k}": f"sub-{n}_ses-1" for n in range(1, 7) for k in (1, 2)}
    parts = split_by_subject(subjects, folds=3, strata=dict.fromkeys(subjects, 1.0))
    assert sorted(name for part in parts for name in part) == sorted(subjects)
    people = [{subjects[name] for name in part} for part in parts]
    assert [len(one) for one in people] == [2, 2, 2]
    assert len(set().union(*people)) == 6


def test_persons_of_one_scan_each_are_divided_as_they_always_were() -> None:
    assert split_by_subject({name: name for name in NAMES}, folds=4) == split_by_patient(NAMES, folds=4)


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(UsageError, match="2 patients cannot make 5 folds"):
        split_by_patient(["A", "B"])


def test_folds_written_are_read_back(tmp_path: Path) -> None:
    parts = split_by_patient(NAMES, folds=3)
    write_folds(tmp_path / "folds.json", parts)
    assert read_folds(tmp_path / "folds.json") == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a fold file; expected"),
        ("[1]", "is not a fold file; expected"),
        ('{"folds": 5}', "is not a fold file; expected"),
        ('{"folds": ["AB", "CD"]}', "is not a fold file; expected"),
        ('{"folds": [["A"], [7]]}', "is not a fold file; expected"),
        ('{"folds": [["A"]]}', "1 folds with patients in them; list two or more, none empty"),
        ('{"folds": [["A"], []]}', "1 folds with patients in them; list two or more, none empty"),
        ('{"folds": [["A"], ["B", "A"]]}', "A is listed more than once"),
    ],
)
def test_fold_file_that_is_none_is_refused_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_folds(tmp_path / "folds.json")


def test_fold_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_folds(tmp_path / "nowhere.json")


def test_patients_of_a_fold_keep_their_order(tmp_path: Path) -> None:
    patients = [nifti(tmp_path, name) for name in "CAB"]
    assert [patient.name for patient in in_fold(patients, [["A", "C"], ["B"]], 0)] == ["C", "A"]


@pytest.mark.parametrize(
    ("fold", "message"), [(2, "there is no fold 2"), (-1, "no fold -1"), (1, "no patient of fold")]
)
def test_fold_that_is_not_there_is_usage(tmp_path: Path, fold: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        in_fold([nifti(tmp_path, "A")], [["A"], ["B"]], fold)


def test_patient_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="A is listed more than once"):
        split_by_patient(["A", "B", "A"], folds=2)


# --- datalist


def test_tiff_patient_lists_its_slices_and_masks_in_slice_order_below_the_base(tmp_path: Path) -> None:
    kaggle(tmp_path, "A")
    kaggle(tmp_path, "B", slices=2)
    (a, b) = monai_datalist(find_patients(tmp_path), [["B"], ["A"]], base=tmp_path)["training"]
    assert a["image"] == [f"A/A_{i}.tif" for i in range(1, 13)]
    assert a["label"] == [f"A/A_{i}_mask.tif" for i in range(1, 13)]
    assert (a["case"], a["fold"]) == ("A", 1)
    assert (b["case"], b["fold"]) == ("B", 0)


def test_nifti_patient_has_flair_in_place_of_a_missing_sequence(tmp_path: Path) -> None:
    patients = [nifti(tmp_path, "A", post=True), nifti(tmp_path, "B", pre=True, post=True)]
    a, b = monai_datalist(patients, [["A"], ["B"]], base=tmp_path)["training"]
    assert a["image"] == ["A/flair.nii.gz", "A/flair.nii.gz", "A/post.nii.gz"]
    assert b["image"] == ["B/pre.nii.gz", "B/flair.nii.gz", "B/post.nii.gz"]
    assert a["label"] == "A/mask.nii.gz"


def test_patients_without_a_mask_or_a_fold_are_left_out(tmp_path: Path) -> None:
    patients = [nifti(tmp_path, "A"), nifti(tmp_path, "B", masks=()), nifti(tmp_path, "C")]
    listed = monai_datalist(patients, [["A"], ["B"]], base=tmp_path)
    assert [item["case"] for item in listed["training"]] == ["A"]


def test_folds_of_other_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no patient has both a mask and a fold"):
        monai_datalist([nifti(tmp_path, "A")], [["X"], ["Y"]], base=tmp_path)


def test_dicom_cannot_be_listed(tmp_path: Path) -> None:
    patient = nifti(tmp_path, "A", flair=Series("dicom", (tmp_path / "1.dcm",)))
    with pytest.raises(InputError, match="dicom cannot be trained on; convert it to NIfTI"):
        monai_datalist([patient], [["A"], ["B"]], base=tmp_path)


def test_tiff_and_nifti_together_are_refused(tmp_path: Path) -> None:
    kaggle(tmp_path, "A")
    patients = [*find_patients(tmp_path), nifti(tmp_path, "B")]
    with pytest.raises(InputError, match="several formats"):
        monai_datalist(patients, [["A"], ["B"]], base=tmp_path)


def test_file_outside_the_base_keeps_its_whole_path(tmp_path: Path) -> None:
    patient = nifti(tmp_path / "here", "A", pre=Series("nifti", (tmp_path / "there" / "t1.nii.gz",)))
    (item,) = monai_datalist([patient], [["A"]], base=tmp_path / "here")["training"]
    assert item["image"][0] == (tmp_path / "there" / "t1.nii.gz").as_posix()
    assert item["image"][1] == "A/flair.nii.gz"


def test_relative_paths_meet_an_absolute_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle(tmp_path / "study", "A")
    monkeypatch.chdir(tmp_path)
    (item,) = monai_datalist(find_patients(Path("study")), [["A"]], base=tmp_path / "study")["training"]
    assert item["image"][0] == "A/A_1.tif"


def test_monai_reads_the_datalist_that_was_written(tmp_path: Path) -> None:
    from monai.data import load_decathlon_datalist

    kaggle(tmp_path, "A", slices=2)
    kaggle(tmp_path, "B", slices=2)
    listed = monai_datalist(find_patients(tmp_path), [["A"], ["B"]], base=tmp_path)
    write_datalist(tmp_path / "datalist.json", listed)
    assert json.loads((tmp_path / "datalist.json").read_text())["tensorImageSize"] == "3D"
    items = load_decathlon_datalist(str(tmp_path / "datalist.json"), True, "training", str(tmp_path))
    assert [item["fold"] for item in items] == [0, 1]
    assert items[0]["image"] == [str(tmp_path / "A" / f"A_{i}.tif") for i in (1, 2)]
    assert items[0]["label"] == [str(tmp_path / "A" / f"A_{i}_mask.tif") for i in (1, 2)]


def test_split_stays_the_same_in_every_version_of_numpy() -> None:
    assert split_by_patient(NAMES[:5], folds=2) == [["P01", "P02", "P04"], ["P00", "P03"]]


def test_strata_that_do_not_divide_evenly_leave_folds_that_differ_by_one() -> None:
    sizes = {name: float(i) for i, name in enumerate(NAMES)}
    assert sorted(map(len, split_by_patient(NAMES, folds=4, strata=sizes))) == [3, 3, 3, 4]


def test_broken_patient_in_no_fold_does_not_matter(tmp_path: Path) -> None:
    broken = nifti(tmp_path, "B", problem=InputError("B", "is broken", "mend it"))
    listed = monai_datalist([nifti(tmp_path, "A"), broken], [["A"], ["C"]], base=tmp_path)
    assert [item["case"] for item in listed["training"]] == ["A"]


def test_monai_loads_the_volumes_of_a_nifti_datalist(tmp_path: Path) -> None:
    from monai.data import load_decathlon_datalist
    from monai.transforms import LoadImaged

    phantom = make_phantom(shape=(32, 32, 6), spacing_mm=(7.2, 7.2, 24.0))
    study = tmp_path / "study"
    write_phantom_nifti(phantom, study, "A")
    write_datalist(tmp_path / "datalist.json", monai_datalist(find_patients(study), [["A"], ["B"]], base=study))
    (item,) = load_decathlon_datalist(str(tmp_path / "datalist.json"), True, "training", str(study))
    loaded = LoadImaged(["image", "label"], reader="NibabelReader", ensure_channel_first=True)(item)
    np.testing.assert_array_equal(loaded["image"], phantom.image)
    np.testing.assert_array_equal(loaded["label"][0], phantom.mask)
