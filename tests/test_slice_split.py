"""A split by slice: its sizes, its file, and the datalist that trains on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainseg.case import Layout
from brainseg.datalist import monai_datalist
from brainseg.errors import InputError, UsageError
from brainseg.slice_split import SliceSplit, read_split, slice_names, split_by_slice, training_slices, write_split
from brainseg.study import Patient, Series

NAMES = [f"P/P_{i}.tif" for i in range(1, 201)]


def patient(root: Path, name: str, slices: int = 3, layout: Layout = "tiff") -> Patient:
    images = tuple(root / name / f"{name}_{i}.tif" for i in range(1, slices + 1))
    masks = tuple(root / name / f"{name}_{i}_mask.tif" for i in range(1, slices + 1))
    return Patient(name, root / name, Series(layout, images), masks=masks)


def test_split_is_ninety_five_and_five_percent_and_every_slice_is_in_one_part() -> None:
    split = split_by_slice(NAMES)
    assert [len(part) for part in (split.training, split.validation, split.test)] == [180, 10, 10]
    assert sorted((*split.training, *split.validation, *split.test)) == sorted(NAMES)


def test_split_depends_on_the_seed_and_not_on_the_order_given() -> None:
    assert split_by_slice(NAMES) == split_by_slice(NAMES[::-1])
    assert split_by_slice(NAMES) != split_by_slice(NAMES, seed=1)


def test_split_stays_the_same_in_every_version_of_numpy() -> None:
    split = split_by_slice(NAMES[:20])
    assert (split.validation, split.test) == (("P/P_8.tif",), ("P/P_10.tif",))


def test_too_few_slices_are_refused() -> None:
    with pytest.raises(UsageError, match="3 slices are too few to divide"):
        split_by_slice(NAMES[:3])


def test_slices_are_named_by_patient_and_file_in_order_of_number(tmp_path: Path) -> None:
    assert slice_names(patient(tmp_path, "P", 2)) == ["P/P_1.tif", "P/P_2.tif"]


def test_volume_has_no_slices_to_divide(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no stack of TIFF slices"):
        slice_names(patient(tmp_path, "P", layout="nifti"))


def test_split_written_is_read_back_and_says_that_it_inflates(tmp_path: Path) -> None:
    split = split_by_slice(NAMES, seed=3)
    write_split(tmp_path / "split.json", split, seed=3)
    assert read_split(tmp_path / "split.json") == split
    assert "inflated" in json.loads((tmp_path / "split.json").read_text())["about"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a split of slices"),
        ("[]", "is not a split of slices"),
        ('{"folds": [["a"], ["b"]]}', "is not a split of slices"),
        ('{"training": ["a"], "validation": [], "test": "b"}', "is not a split of slices"),
        ('{"training": ["a"], "validation": [], "test": [1]}', "is not a split of slices"),
        ('{"training": ["a", "b"], "validation": [], "test": ["b"]}', "b is listed more than once"),
        ('{"training": ["a"], "validation": ["b"], "test": []}', "none to test on"),
        ('{"training": [], "validation": ["b"], "test": ["a"]}', "no slice to train on"),
    ],
)
def test_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_split(tmp_path / "split.json")


def test_datalist_keeps_the_training_slices_with_their_masks(tmp_path: Path) -> None:
    listed = monai_datalist([patient(tmp_path, "P"), patient(tmp_path, "Q")], [["P", "Q"]], base=tmp_path)
    split = SliceSplit(("P/P_1.tif", "P/P_3.tif"), ("P/P_2.tif",), ("Q/Q_1.tif", "Q/Q_2.tif", "Q/Q_3.tif"))
    (item,) = training_slices(listed, split)["training"]  # Q is left without a slice
    assert item == {
        "image": ["P/P_1.tif", "P/P_3.tif"],
        "label": ["P/P_1_mask.tif", "P/P_3_mask.tif"],
        "fold": 0,
        "case": "P",
    }


def test_split_of_other_slices_cannot_train(tmp_path: Path) -> None:
    listed = monai_datalist([patient(tmp_path, "P")], [["P"]], base=tmp_path)
    with pytest.raises(InputError, match="none of its training slices is there"):
        training_slices(listed, SliceSplit(("X/X_1.tif",), (), ("P/P_1.tif",)))


def test_volumes_cannot_be_trained_by_slice(tmp_path: Path) -> None:
    listed = {"training": [{"image": ["flair.nii.gz"] * 3, "label": "mask.nii.gz", "fold": 0, "case": "P"}]}
    with pytest.raises(InputError, match="P: is no stack of TIFF slices"):
        training_slices(listed, SliceSplit(("P/P_1.tif",), (), ("P/P_2.tif",)))
