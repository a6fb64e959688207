"""The figshare brain tumour set: slices of images/ and masks/ that stand alone, MATLAB files that name a patient."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from command import brainseg, open_bundles_with
from figshare_files import head, write_matlab, write_picture

from brainseg.bundle import open_bundle
from brainseg.errors import InputError
from brainseg.inference import segment
from brainseg.readers import read_case, read_patient
from brainseg.slice_split import SliceSplit
from brainseg.study import Patient, find_patients
from brainseg.train import ALL, prepare

NO_PATIENT = "warning: these slices carry no patient, so a split by patient divides slices all the same"
QUICK = ("batch_size=1", "num_workers=0", "window=[64, 64]", "canvas=[64, 64]", "pixel_mm=3.75", "-q")
PID = "MR029185A"


class Bright(torch.nn.Module):
    """Stands in for a network: abnormal is where FLAIR is 1.5 times the head's mean or brighter."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, 1:2] - 1.5) * 20


def pictures(folder: Path, count: int, side: int = 64, suffix: str = ".png") -> Path:
    for number in range(1, count + 1):
        write_picture(folder, number, *head(side, at=(0.4 + 0.02 * number, 0.3)), suffix=suffix)
    return folder


def matlab(folder: Path, patients: dict[str, list[int]], side: int = 64) -> Path:
    for pid, numbers in patients.items():
        for number in numbers:
            write_matlab(folder, number, *head(side, at=(0.4 + 0.02 * number, 0.3)), pid)
    return folder


def names(patients: list[Patient]) -> list[str]:
    return [patient.name for patient in patients]


def cohort(out: Path) -> list[dict[str, str]]:
    with (out / "cohort.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


# --- what is found


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_each_slice_of_images_and_masks_is_a_case_of_its_own_in_order_of_number(tmp_path: Path, suffix: str) -> None:
    pictures(tmp_path, 11, side=32, suffix=suffix)
    patients = find_patients(tmp_path)
    assert names(patients) == [str(number) for number in range(1, 12)]
    assert [patient.masks for patient in patients] == [(tmp_path / "masks" / f"{n}{suffix}",) for n in range(1, 12)]
    assert all(patient.alone and not patient.certain for patient in patients)
    assert names(find_patients(tmp_path / "images")) == names(patients)


def test_single_picture_is_a_case_with_the_mask_that_lies_beside_its_folder(tmp_path: Path) -> None:
    pictures(tmp_path, 2, side=32)
    (patient,) = find_patients(tmp_path / "images" / "2.png")
    assert (patient.name, patient.masks) == ("2", (tmp_path / "masks" / "2.png",))


@pytest.mark.parametrize(("side", "samples", "expected"), [(512, 1, 3), (256, 1, 1), (512, 3, 1)])
def test_numbered_tiff_stands_alone_only_where_it_is_grayscale_of_512(
    tmp_path: Path, side: int, samples: int, expected: int
) -> None:
    for number in (1, 2, 3):
        image, mask = head(side)
        write_picture(tmp_path, number, np.stack([image] * 3, -1) if samples == 3 else image, mask, suffix=".tif")
        if samples == 3:
            tifffile.imwrite(tmp_path / f"images/{number}.tif", np.stack([image] * 3, -1), photometric="rgb")
    found = find_patients(tmp_path)
    assert len(found) == expected
    assert ("name them <patient>_<number>.tif" in found[0].why) is (expected == 3)


def test_numbered_tiff_of_several_patients_folders_are_their_stacks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in (1, 2):
            write_picture(tmp_path / name, number, *head(512), suffix=".tif")
    assert names(find_patients(tmp_path)) == ["a", "b"]


def test_image_without_mask_and_mask_without_image_are_refused_and_the_others_found(tmp_path: Path) -> None:
    pictures(tmp_path, 4, side=32)
    (tmp_path / "masks" / "2.png").unlink()
    (tmp_path / "images" / "4.png").unlink()
    problems = {patient.name: patient.problem for patient in find_patients(tmp_path)}
    assert {name: None if error is None else error.cause for name, error in problems.items()} == {
        "1": None,
        "2": "has no mask while others have",
        "3": None,
        "4": "is a mask without an image",
    }


def test_slice_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path, 2, side=32)
    write_picture(tmp_path, 2, head(32)[0], suffix=".jpg")
    assert "has the number of 2.jpg too" in str(find_patients(tmp_path)[1].problem)


def test_images_without_masks_are_found_by_their_numbers_and_other_pictures_are_not(tmp_path: Path) -> None:
    write_picture(tmp_path, 7, head(32)[0])
    (patient,) = find_patients(tmp_path)
    assert (patient.name, patient.masks) == ("7", ())
    (tmp_path / "images" / "7.png").rename(tmp_path / "images" / "logo.png")
    with pytest.raises(InputError, match="none of which can be read"):
        find_patients(tmp_path)


def test_matlab_slices_of_one_pid_are_one_patient_named_by_its_lowest_slice(tmp_path: Path) -> None:
    matlab(tmp_path / "1-766", {PID: [2, 10]}, side=32)
    matlab(tmp_path / "767-1532", {"100360": [3, 4], PID: [11]}, side=32)
    (tmp_path / "cvind.mat").write_bytes(b"folds of its authors")
    first, second = find_patients(tmp_path)
    assert (first.name, second.name) == ("figshare_0002", "figshare_0003")
    assert [file.name for file in first.flair.files] == ["2.mat", "10.mat", "11.mat"]
    assert first.masks == first.flair.files
    (part,) = find_patients(tmp_path / "1-766")
    assert part.name == "figshare_0002"
    assert not any(patient.alone for patient in (first, second))


def test_matlab_slices_of_another_size_are_left_out_and_said(tmp_path: Path) -> None:
    matlab(tmp_path, {PID: [1, 2]}, side=32)
    matlab(tmp_path, {PID: [3]}, side=16)
    (patient,) = find_patients(tmp_path)
    assert [file.name for file in patient.flair.files] == ["1.mat", "2.mat"]
    assert patient.why.endswith("left out, as of another size than 32 x 32: 3.mat")
    assert patient.skipped == 1


def test_matlab_files_without_h5py_say_once_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matlab(tmp_path, {PID: [1, 2]}, side=16)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"1\.mat: is a MATLAB file, which needs the package h5py; pip install"):
        find_patients(tmp_path)


def damaged(file: Path, how: str) -> None:
    h5py = pytest.importorskip("h5py")
    if how == "cut":
        file.write_bytes(file.read_bytes()[:900])
        return
    if how == "old":
        file.write_bytes(b"MATLAB 5.0 MAT-file".ljust(128))
        return
    with h5py.File(file, "r+") as content:
        struct = content["cjdata"]
        if how == "struct":
            del content["cjdata"]
            return
        name = {"pid": "PID", "mask": "tumorMask"}.get(how, "image")
        del struct[name]
        if how == "link":
            struct[name] = h5py.ExternalLink("other.h5", "/image")
        elif how == "storage":
            struct.create_dataset(name, (64, 64), "u1", external=[("/etc/hostname", 0, 4096)])
        elif how == "bomb":
            struct.create_dataset(name, (100_000, 100_000), "i2", chunks=(100, 100))
        elif how == "volume":
            struct[name] = np.zeros((4, 4, 4))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "is not a MATLAB 7.3 (HDF5) file that can be read (OSError); download it again"),
        ("old", "is not a MATLAB 7.3 (HDF5) file that can be read (OSError); download it again, or save it with -v7.3"),
        ("struct", "holds no struct cjdata"),
        ("pid", "holds no PID in cjdata"),
        ("link", "holds no image in cjdata"),
        ("storage", "keeps its image in another file"),
        ("bomb", "has an image of 100000 x 100000 pixels, not a slice of up to 8192"),
        ("volume", "has an image of 4 x 4 x 4 pixels"),
    ],
)
def test_damaged_matlab_file_is_refused_by_name_and_the_others_are_found(tmp_path: Path, how: str, says: str) -> None:
    matlab(tmp_path, {PID: [1, 2], "7": [3]}, side=64)
    damaged(tmp_path / "3.mat", how)
    patients = find_patients(tmp_path)
    assert names(patients) == ["figshare_0001", "figshare_0003"]
    assert str(patients[1].problem).startswith(f"{tmp_path / '3.mat'}: {says}")


def test_matlab_file_without_a_mask_is_read_and_not_trained_on(tmp_path: Path) -> None:
    matlab(tmp_path, {PID: [1]}, side=32)
    damaged(tmp_path / "1.mat", "mask")
    (patient,) = find_patients(tmp_path)
    assert patient.masks == ()
    assert read_patient(patient).shape == (32, 32, 1)


# --- what the commands do


@pytest.mark.parametrize(
    ("side", "layout"), [(256, ".png"), (512, ".png"), (512, ".tif"), (256, "matlab"), (512, "matlab")]
)
def test_mask_comes_back_on_the_slices_own_grid_in_the_blobs_place_and_size(
    tmp_path: Path, side: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    image, mask = head(side)
    if layout == "matlab":
        write_matlab(tmp_path / "set", 1, image, mask, PID)
    else:
        write_picture(tmp_path / "set", 1, image, mask, suffix=layout)
    assert brainseg("segment", tmp_path / "set", "--out", tmp_path / "out", "--device", "cpu", "-q") == 0
    (row,) = cohort(tmp_path / "out")
    assert row["case"] == ("figshare_0001" if layout == "matlab" else "1")
    assert {"flair_unconfirmed", "spacing_unknown"} <= set(row["flags"].split(";"))
    assert ("reader_note" in row["flags"]) is (side == 512)
    found = tifffile.imread(tmp_path / "out" / row["case"] / "1_mask.tif") == 255
    assert found.shape == (side, side)
    assert np.count_nonzero(found & mask) > 0.97 * mask.sum()
    assert np.count_nonzero(found & ~mask) < 0.06 * mask.sum()
    written = np.asarray(nibabel.load(tmp_path / "out" / row["case"] / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(written[..., 0].T, found)


def test_the_network_sees_a_slice_of_512_at_the_size_of_one_of_256(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(image.shape[-2:]))
            return image[:, 1:2]

    bundle = replace(open_bundle("residual_unet", device="cpu"), network=Watching())
    for side in (256, 512):
        write_picture(tmp_path / str(side), 1, head(side)[0])
        segment(read_case(tmp_path / str(side)), bundle)
    assert seen == [(208, 240), (112, 128)] * 2  # as it is and at half the resolution


def test_matlab_slices_get_the_masks_that_they_get_alone_and_none_of_their_neighbours(tmp_path: Path) -> None:
    bundle = replace(open_bundle("residual_unet", device="cpu"), network=Bright())
    slices = [head(256, at=place) for place in ((0.3, 0.4), (0.7, 0.6), (0.3, 0.6))]
    for number, (image, mask) in enumerate(slices, 1):
        write_matlab(tmp_path / "matlab", number, image // number, mask, PID)
        write_picture(tmp_path / "pictures", number, image // number)
    together = segment(read_case(tmp_path / "matlab"), bundle)
    assert together.mask.shape == (256, 256, 3)
    for z in range(3):
        alone = segment(read_case(tmp_path / "pictures" / "images" / f"{z + 1}.png"), bundle)
        np.testing.assert_array_equal(together.mask[..., z], alone.mask[..., 0])
        np.testing.assert_array_equal(together.probability[..., z], alone.probability[..., 0])
        assert np.count_nonzero(together.mask[..., z].T & slices[z][1]) > 0.97 * slices[z][1].sum()


def test_pid_is_in_nothing_that_is_written_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    data, out = matlab(tmp_path / "set", {PID: [1, 2], "100360": [3]}), tmp_path / "out"
    assert brainseg("data", "check", data) == 0
    assert brainseg("segment", data, "--out", out, "--device", "cpu") == 0
    assert brainseg("evaluate", "--data", data, "--predictions", out, "--out", tmp_path / "scores") == 0
    said = "".join(capfd.readouterr())
    assert "figshare_0001: matlab, 64 x 64 x 2" in said
    files = [file for folder in (out, tmp_path / "scores") for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 15
    written = b"".join(file.read_bytes() for file in files)
    for spelled in (PID, "100360"):
        assert spelled not in said
        for code in ("ascii", "utf-16-le"):
            assert spelled.encode(code) not in written


def test_data_check_and_split_say_once_that_these_slices_carry_no_patient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pictures(tmp_path / "set", 10)
    assert brainseg("data", "check", data) == 0
    said = capsys.readouterr()
    assert said.err.count(NO_PATIENT) == 1
    assert "10: picture, 64 x 64 x 1, no spacing; no pre-contrast or post-contrast; mask of " in said.out
    assert "10 of 10 patients can be read" in said.out
    assert brainseg("data", "split", data, "--out", tmp_path / "folds.json") == 0
    assert capsys.readouterr().err.count(NO_PATIENT) == 1
    folds = json.loads((tmp_path / "folds.json").read_text())["folds"]
    assert sorted(name for fold in folds for name in fold) == sorted(str(n) for n in range(1, 11))


def test_split_of_matlab_slices_is_by_patient_and_needs_no_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = matlab(tmp_path / "set", {"a": [1, 2, 3], "b": [4, 6], "c": [5]}, side=32)
    assert brainseg("data", "split", data, "--folds", 3, "--out", tmp_path / "folds.json") == 0
    assert capsys.readouterr().err == ""
    folds = json.loads((tmp_path / "folds.json").read_text())["folds"]
    assert sorted(folds) == [["figshare_0001"], ["figshare_0004"], ["figshare_0005"]]
    assert brainseg("data", "split", data, "--by", "slice", "--out", tmp_path / "s.json") == 2  # six are too few
    assert "6 slices are too few to divide" in capsys.readouterr().err


def test_leak_alarm_of_slices_alone_copies_the_nearest_by_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set"
    for number in range(1, 5):  # neighbours in pairs have one mask
        write_picture(data, number, *head(64, at=(0.4, 0.3 if number < 3 else 0.6)))
    split = {"training": ["1/1.png", "4/4.png"], "validation": [], "test": ["2/2.png", "3/3.png"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    arguments = ("--data", data, "--protocol", "A", "--split", tmp_path / "split.json", "--out", tmp_path / "scores")
    assert brainseg("evaluate", *arguments) == 0
    assert "| soft Dice | leak alarm: mask of the nearest training slice | 1.000 |" in capsys.readouterr().out


def test_split_by_slice_writes_its_training_slices_alone(tmp_path: Path) -> None:
    data = matlab(tmp_path / "set", {"a": [1, 2, 3], "b": [4]}, side=32)
    split = SliceSplit(("figshare_0001/1.mat", "figshare_0001/3.mat"), (), ("figshare_0001/2.mat",))
    parts = [["figshare_0001", "figshare_0004"]]
    run = prepare("residual_unet", find_patients(data), parts, data, tmp_path / "run", fold=ALL, split=split)
    assert (run.trained_on, run.by_slice) == (("figshare_0001",), True)
    listed = json.loads((run.root / "datalist.json").read_text())["training"]
    assert [item["case"] for item in listed] == ["figshare_0001_1", "figshare_0001_3"]
    scan = np.asarray(nibabel.load(run.root / "dataset" / "figshare_0001" / "3" / "flair.nii.gz").dataobj)
    np.testing.assert_array_equal(scan, read_patient(find_patients(data)[0]).image[1][..., 2:])


@pytest.mark.parametrize("layout", ["picture", "matlab"])
def test_one_epoch_trains_and_its_run_segments_and_is_evaluated(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "set", tmp_path / "run"
    if layout == "picture":
        pictures(data, 4)
        folds = [["2"], ["1", "3", "4"]]
    else:
        matlab(data, {"a": [1, 2], "b": [3], "c": [4, 5]})
        folds = [["figshare_0003"], ["figshare_0001", "figshare_0004"]]
    (tmp_path / "folds.json").write_text(json.dumps({"folds": folds}))
    fold = ("--folds", tmp_path / "folds.json", "--fold", 0)
    code = brainseg(
        "train", "--bundle", "residual_unet", "--data", data, "--out", run, *fold, "--epochs", 1,
        "--weights", "shipped", *QUICK,
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr()
    assert said.err.count(NO_PATIENT) == (layout == "picture")
    record = json.loads((run / "models" / "training.json").read_text())
    assert (record["trained_on"], record["validated_on"]) == (folds[1], folds[0])
    assert record.get("by_slice", False) is (layout == "picture")
    (item, *_) = json.loads((run / "datalist.json").read_text())["training"]
    assert item["image"] == ["1/1/flair.nii.gz" if layout == "picture" else "figshare_0001/1/flair.nii.gz"] * 3
    scan = nibabel.load(run / "dataset" / item["image"][1])
    assert scan.shape == (64, 64, 1)
    assert scan.get_data_dtype() == np.uint8
    np.testing.assert_allclose(np.diag(scan.affine)[:2], -3.75 * 256 / 64, rtol=1e-6)
    again = ("--epochs", 2, "--resume", "val_interval=1", *QUICK)
    assert brainseg("train", "--bundle", "residual_unet", "--data", data, "--out", run, *fold, *again) == 0
    capsys.readouterr()
    code = brainseg("evaluate", "--data", data, "--bundle", run, *fold, "--out", tmp_path / "scores", "--device", "cpu")
    assert code == 0
    assert ("Caution: these slices carry no patient and each counts as one" in capsys.readouterr().out) is (
        layout == "picture"
    )
