"""The command line as a user meets it: exit codes, the one line, the files left behind."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from command import Bright, brainseg, open_bundles_with
from PIL import Image

from brainseg.phantom import Phantom, make_phantom, write_phantom_dicom, write_phantom_nifti, write_phantom_tiff
from brainseg.study.walk import LOCK

UNTRAINED = ["resnet34_unet", "resnet50_attention_unet", "resnet50_unet"]
UNTRAINED_NOTE = "no weights shipped: train it"


@pytest.fixture(autouse=True)
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    open_bundles_with(Bright(), monkeypatch)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))


@pytest.fixture
def patients(phantom: Phantom, tmp_path: Path) -> Path:
    """One patient as TIFF, one as NIfTI, one as DICOM."""
    folder = tmp_path / "patients"
    write_phantom_tiff(phantom, folder, "tiff_one")
    write_phantom_nifti(phantom, folder, "nifti_one")
    write_phantom_dicom(phantom, folder, "dicom_one")
    return folder


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "cohort.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_help_answers_in_under_half_a_second_without_heavy_imports() -> None:
    listing = "atexit.register(lambda: print(list(sys.modules)))"
    code = f"import sys, atexit; from brainseg.cli import main; {listing}; main(['-h'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'monai'", "'numpy'", "'nibabel'", "'pydicom'", "'itk'", "'matplotlib'"):
        assert heavy not in loaded


def test_bundle_list_prints_one_bare_name_a_line_and_beside_it_what_ships_untrained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert brainseg("bundle", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["attention_unet", "basic_unet", "residual_unet"]
    assert [line.split("  ") for line in lines[3:]] == [[name, f"({UNTRAINED_NOTE})"] for name in UNTRAINED]


def test_bundle_verify_and_info_say_what_ships_untrained(capsys: pytest.CaptureFixture[str]) -> None:
    assert brainseg("bundle", "verify", *UNTRAINED) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: {UNTRAINED_NOTE}" for name in UNTRAINED]
    assert brainseg("bundle", "info", UNTRAINED[0]) == 0
    assert f"weights      {UNTRAINED_NOTE}" in capsys.readouterr().out


def test_a_bundle_without_weights_is_refused_in_one_line(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert brainseg("segment", patients, "--out", tmp_path / "out", "--bundle", UNTRAINED[0]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: resnet34_unet: no weights shipped; train it (brainseg train --bundle resnet34_unet)")
    assert len(said.splitlines()) == 1


def test_an_ensemble_is_of_those_that_ship_with_weights(patients: Path, tmp_path: Path) -> None:
    assert brainseg("segment", patients / "nifti_one", "--out", tmp_path / "out", "--ensemble", "-q") == 0
    assert "resnet" not in (tmp_path / "out" / "run.json").read_text()


def test_three_formats_of_one_patient_give_the_same_mask(patients: Path, phantom: Phantom, tmp_path: Path) -> None:
    out, sized = tmp_path / "out", tmp_path / "sized"
    assert brainseg("segment", patients, "--out", out, "-q") == 0
    assert brainseg("segment", patients / "tiff_one", "--out", sized, "--spacing", 3.6, 3.6, 12, "-q") == 0
    done = rows(out)
    assert set(done) == {"tiff_one", "nifti_one", "dicom_one"}
    assert done["tiff_one"]["volume_ml"] == ""
    assert "spacing_unknown" in done["tiff_one"]["flags"]
    assert "flair_unconfirmed" not in done["dicom_one"]["flags"]
    for row in (done["nifti_one"], done["dicom_one"], rows(sized)["tiff_one"]):
        assert float(row["volume_ml"]) == pytest.approx(int(row["volume_voxels"]) * 0.15552, rel=1e-3)
    nifti, dicom = (nibabel.load(out / name / "mask.nii.gz") for name in ("nifti_one", "dicom_one"))
    tiff = nibabel.load(sized / "tiff_one" / "mask.nii.gz")
    np.testing.assert_array_equal(nifti.get_fdata(), dicom.get_fdata())
    np.testing.assert_array_equal(nifti.get_fdata(), tiff.get_fdata())
    np.testing.assert_allclose(nifti.affine, phantom.affine, atol=1e-5)
    np.testing.assert_allclose(dicom.affine, phantom.affine, atol=1e-3)
    assert len(list((sized / "tiff_one").glob("*.tif"))) == 12
    middle = tifffile.imread(sized / "tiff_one" / "tiff_one_8_mask.tif")
    np.testing.assert_array_equal(middle.T > 0, tiff.get_fdata()[..., 7] > 0)


def test_one_bad_patient_harms_no_other(patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = patients / "nifti_one" / "flair.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    out = tmp_path / "out"
    assert brainseg("segment", patients, "--out", out, "-q") == 4
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "flair.nii.gz" in error
    assert "\n" not in error
    assert {case: row["status"] for case, row in rows(out).items()} == {
        "dicom_one": "done", "tiff_one": "done", "nifti_one": "failed",
    }  # fmt: skip
    assert not (out / "nifti_one").exists()
    failures = json.loads((out / "failures.json").read_text())
    assert [failure["case"] for failure in failures] == ["nifti_one"]


def test_nothing_done_is_exit_3(patients: Path, tmp_path: Path) -> None:
    for slice_ in (patients / "tiff_one").glob("*_3.tif"):
        slice_.unlink()
    assert brainseg("segment", patients / "tiff_one", "--out", tmp_path / "out", "-q") == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["segment", "no/such/path", "--out", "out"], 2),
        (["segment", "--out", "out"], 2),
        (["segment", ".", "--out", "out", "--bundle", "nothing"], 2),
        (["segment", ".", "--out", "out", "--threshold", "nan"], 2),
        (["segment", ".", "--out", "out", "--pre", "no/such/file"], 2),
        (["segment", ".", "--out", "out", "--spacing", "0", "1", "1"], 2),
        (["evaluate", "--data", "no/such/path", "--out", "out"], 2),
        (["no-such-command"], 2),
    ],
)
def test_usage_errors_are_exit_2(
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phantom: Phantom,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_phantom_nifti(phantom, tmp_path)
    assert brainseg(*arguments) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_an_output_that_cannot_be_written_is_exit_5_before_any_work(patients: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert brainseg("segment", patients, "--out", tmp_path / "file" / "out", "-q") == 5


def test_a_second_process_on_the_same_output_is_exit_5(patients: Path, tmp_path: Path) -> None:
    import filelock

    out = tmp_path / "out"
    out.mkdir()
    with filelock.FileLock(str(out / LOCK)):
        assert brainseg("segment", patients, "--out", out, "-q") == 5


def test_a_foreign_bundle_is_exit_6(patients: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign" / "configs").mkdir(parents=True)
    (tmp_path / "foreign" / "configs" / "inference.json").write_text("{}")
    assert brainseg("segment", patients, "--out", tmp_path / "out", "--bundle", tmp_path / "foreign", "-q") == 6


def test_a_rerun_computes_only_what_changed(patients: Path, tmp_path: Path, phantom: Phantom) -> None:
    out = tmp_path / "out"
    assert brainseg("segment", patients, "--out", out, "-q") == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("mask.nii.gz")}
    first = (out / "nifti_one" / "mask.nii.gz").read_bytes()
    write_phantom_nifti(
        make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), growth=1.5), patients, "nifti_one"
    )
    time.sleep(0.01)
    assert brainseg("segment", patients, "--out", out, "-q") == 0
    changed = {path.parent.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"nifti_one"}
    assert (out / "nifti_one" / "mask.nii.gz").read_bytes() != first
    assert len(rows(out)) == 3


def test_every_slice_has_a_row_that_agrees_with_the_mask(patients: Path, tmp_path: Path) -> None:
    assert brainseg("segment", patients / "nifti_one", "--out", tmp_path / "out", "-q") == 0
    folder = tmp_path / "out" / "nifti_one"
    areas = np.count_nonzero(nibabel.load(folder / "mask.nii.gz").get_fdata(), axis=(0, 1))
    with (folder / "slices.csv").open(newline="") as stream:
        slices = list(csv.DictReader(stream))
    assert [int(row["slice"]) for row in slices] == list(range(1, 13))
    assert [int(row["area_voxels"]) for row in slices] == areas.tolist()
    assert [float(row["area_mm2"]) for row in slices] == pytest.approx(areas * 3.6**2, rel=1e-5)
    assert [row["present"] for row in slices] == ["yes" if area else "no" for area in areas]
    assert all(0 <= float(row["probability"]) <= 1 for row in slices)


def test_the_animation_is_written_where_asked_for_and_never_left_from_an_earlier_mask(
    patients: Path, tmp_path: Path
) -> None:
    arguments = ["segment", patients / "nifti_one", "--out", tmp_path / "out", "-q"]
    animation = tmp_path / "out" / "nifti_one" / "overlay.gif"
    assert brainseg(*arguments) == 0
    assert not animation.exists()
    assert brainseg(*arguments, "--format", "gif") == 0
    with Image.open(animation) as picture:
        assert picture.n_frames == 12
    assert brainseg(*arguments) == 0
    assert not animation.exists()
    assert brainseg(*arguments, "--format", "gfi") == 2


def test_two_patients_of_one_name_get_two_outputs(phantom: Phantom, tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_phantom_nifti(phantom, tmp_path / place, "same")
    out = tmp_path / "out"
    assert brainseg("segment", tmp_path / "a", tmp_path / "b", "--out", out, "-q") == 0
    assert set(rows(out)) == {"a_same", "b_same"}


def test_the_header_identity_of_dicom_leaves_in_no_output(patients: Path, tmp_path: Path) -> None:
    import pydicom

    for path in (patients / "dicom_one").rglob("*.dcm"):
        instance = pydicom.dcmread(path)
        instance.PatientName, instance.PatientID, instance.AccessionNumber = "Zzyzx^Quux", "ID-271828", "ACC314159"
        instance.save_as(path)
    out = tmp_path / "out"
    assert brainseg("segment", patients / "dicom_one", "--out", out) == 0
    for path in (path for path in out.rglob("*") if path.is_file() and path.name != "seg.dcm"):  # which must
        content = path.read_bytes()
        for secret in (b"Zzyzx", b"Quux", b"271828", b"ACC314159"):
            assert secret not in content, path


def test_a_series_that_is_not_flair_is_refused_and_forced(phantom: Phantom, tmp_path: Path) -> None:
    write_phantom_dicom(phantom, tmp_path, "one")
    t1 = tmp_path / "one" / "T1_PRE"
    assert brainseg("segment", t1, "--out", tmp_path / "out", "-q") == 3
    assert brainseg("segment", t1, "--out", tmp_path / "out", "-q", "--force") == 0


def test_data_check_says_what_is_there(patients: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brainseg("data", "check", patients) == 0
    said = capsys.readouterr().out
    assert "3 of 3 patients can be read" in said
    assert "tiff_one: tiff, 64 x 64 x 12, no spacing" in said


def test_data_split_divides_patients_and_train_reads_it(phantom: Phantom, tmp_path: Path) -> None:
    for number in range(4):
        write_phantom_tiff(phantom, tmp_path / "set", f"p{number}")
    assert brainseg("data", "split", tmp_path / "set", "--folds", 2, "--out", tmp_path / "folds.json") == 0
    folds = json.loads((tmp_path / "folds.json").read_text())["folds"]
    assert sorted(name for fold in folds for name in fold) == ["p0", "p1", "p2", "p3"]
    assert [len(fold) for fold in folds] == [2, 2]


def test_data_phantom_writes_three_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brainseg("data", "phantom", "--out", tmp_path, "--format", "nifti") == 0
    assert "true volume 30" in capsys.readouterr().out
    assert (tmp_path / "nifti" / "phantom" / "flair.nii.gz").is_file()
