"""The pipeline of a cohort: what overlaps, what is done again, and what one case's trouble does to the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import Bright, brainseg, open_bundles_with

from brainseg import casework
from brainseg.errors import InputError, MachineError
from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti
from brainseg.volume_error import VOLUME_ERRORS, VolumeError
from brainseg.writers.tables import read_cohort


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))
    for number in range(4):
        write_phantom_nifti(phantom, folder, f"p{number}")
    return folder


@pytest.fixture(autouse=True)
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    open_bundles_with(Bright(), monkeypatch)


@pytest.mark.parametrize("step", ["load", "segmented", "finish"])
def test_a_case_that_fails_in_any_step_fails_alone(
    step: str, patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = getattr(casework, step)

    def failing(first: casework.Loaded | casework.Job, *rest: object) -> object:
        job = first.job if isinstance(first, casework.Loaded) else first
        if job.patient.name == "p1":
            raise InputError("p1.nii", "is spoiled", "copy it again")
        return original(first, *rest)

    monkeypatch.setattr(f"brainseg.cohort.{step}", failing)
    assert brainseg("segment", patients, "--out", tmp_path, "-q") == 4
    assert capsys.readouterr().err == "error: p1.nii: is spoiled; copy it again\n"
    assert [(row.case, row.status) for row in read_cohort(tmp_path / "cohort.csv")] == [
        ("p0", "done"), ("p2", "done"), ("p3", "done"), ("p1", "failed"),
    ]  # fmt: skip


def test_a_disk_that_is_full_ends_the_run_with_exit_5(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*rest: object) -> object:
        raise MachineError(tmp_path, "the disk is full", "free some space and run again")

    monkeypatch.setattr("brainseg.cohort.finish", full)
    assert brainseg("segment", patients, "--out", tmp_path, "-q") == 5
    assert "the disk is full; free some space and run again" in capsys.readouterr().err
    assert not (tmp_path / "cohort.csv").exists()


def test_a_case_of_which_a_file_is_gone_is_done_again_and_the_others_are_not(patients: Path, tmp_path: Path) -> None:
    assert brainseg("segment", patients, "--out", tmp_path, "-q") == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("p*/mask.nii.gz")}
    (tmp_path / "p2" / "lesions.csv").unlink()
    assert brainseg("segment", patients, "--out", tmp_path, "-q") == 0
    assert (tmp_path / "p2" / "lesions.csv").is_file()
    assert {path.parent.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp} == {"p2"}
    assert list(json.loads((tmp_path / "p2" / "case.json").read_text())["files"]) == [
        "lesions.csv", "mask.nii.gz", "overlay.png", "slices.csv", "slices.webp",
    ]  # fmt: skip


def test_what_pre_and_post_name_decides_whether_a_case_is_done_again(patients: Path, tmp_path: Path) -> None:
    """Other files, the same files for each other, and files of a folder: each is another case."""
    flair = tmp_path / "in" / "flair.nii.gz"
    flair.parent.mkdir()
    shutil.copy(patients / "p0" / flair.name, flair)
    t1, contrast = (patients / "p0" / name for name in ("t1.nii.gz", "t1c.nii.gz"))
    folder = tmp_path / "post"
    folder.mkdir()
    out = tmp_path / "out"
    made = set()
    for options in ([], ["--pre", t1], ["--pre", t1, "--post", contrast], ["--pre", contrast, "--post", t1]):
        assert brainseg("segment", flair, "--out", out, "-q", *options) == 0
        made.add(json.loads(next(out.glob("*/case.json")).read_text())["fingerprint"])
    assert len(made) == 4
    for content in (contrast, t1):
        shutil.copy(content, folder / "t1c.nii.gz")
        assert brainseg("segment", flair, "--out", out, "-q", "--post", folder) == 0
        record = json.loads(next(out.glob("*/case.json")).read_text())
        assert list(record["inputs"]) == ["flair.nii.gz", "--post post/t1c.nii.gz"]
        made.add(record["fingerprint"])
    assert len(made) == 6


@pytest.mark.parametrize(
    ("files", "options", "known"),
    [
        (("flair", "t1", "t1c"), [], VOLUME_ERRORS[0]),
        (("flair", "t1c"), [], VOLUME_ERRORS[0]),  # as some of the cross-validation's patients
        (("flair",), [], VOLUME_ERRORS[1]),
        (("flair", "t1", "t1c"), ["--threshold", "0.5"], None),
        (("flair", "t1", "t1c"), ["--tta"], None),
        (("flair", "t1", "t1c"), ["--bundle", "basic_unet"], None),
    ],
)
def test_a_range_of_true_volumes_only_where_the_cross_validation_measured_such_a_case(
    files: Sequence[str], options: list[str], known: VolumeError | None, patients: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        shutil.copy(patients / "p0" / f"{name}.nii.gz", tmp_path / "in")
    assert brainseg("segment", tmp_path / "in", "--out", tmp_path / "out", "-q", *options) == 0
    (row,) = read_cohort(tmp_path / "out" / "cohort.csv")
    assert (row.volume_ml or 0) > 0
    assert row.volume_low_ml == (None if known is None else pytest.approx(known.interval(row.volume_ml)[0], rel=1e-3))


def test_files_of_one_name_are_told_apart_by_the_folders_that_they_lie_in(patients: Path, tmp_path: Path) -> None:
    """In whatever order they are given, and also in what the table says they came from."""
    for name in ("A", "B"):
        (tmp_path / name / "anat").mkdir(parents=True)
        shutil.copy(patients / "p0" / "flair.nii.gz", tmp_path / name / "anat")
    scans = [tmp_path / name / "anat" / "flair.nii.gz" for name in ("A", "B")]
    for order in (scans, scans[::-1]):
        assert brainseg("segment", *order, "--out", tmp_path / "out", "-q") == 0
        rows = read_cohort(tmp_path / "out" / "cohort.csv")
        assert {(row.case, row.input) for row in rows} == {
            ("A_anat_flair", "A/anat/flair.nii.gz"), ("B_anat_flair", "B/anat/flair.nii.gz"),
        }  # fmt: skip


def test_results_of_another_scan_of_the_same_name_are_not_lost(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for site, seed in (("a", 1), ("b", 2)):
        phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), seed=seed)
        write_phantom_nifti(phantom, tmp_path / site, "P01")
    out = tmp_path / "out"
    assert brainseg("segment", tmp_path / "a", "--out", out, "-q") == 0
    before = (out / "P01" / "mask.nii.gz").read_bytes()
    assert brainseg("segment", tmp_path / "b", "--out", out, "-q") == 3
    assert "P01: holds results of another scan (a/P01); choose another --out" in capsys.readouterr().err
    assert (out / "P01" / "mask.nii.gz").read_bytes() == before
    assert brainseg("segment", tmp_path / "b", "--out", out, "-q", "--overwrite") == 0
    assert (out / "P01" / "mask.nii.gz").read_bytes() != before


def test_cases_of_earlier_runs_are_told_of(patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brainseg("segment", patients, "--out", tmp_path) == 0
    assert "earlier runs" not in capsys.readouterr().err
    assert brainseg("segment", patients / "p1", "--out", tmp_path) == 0
    assert "also holds 3 cases of earlier runs; brainseg report lists them too" in capsys.readouterr().err


def test_a_scan_that_was_replaced_where_it_lay_is_done_again(tmp_path: Path) -> None:
    masks = set()
    for seed in (1, 2):
        phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), seed=seed)
        write_phantom_nifti(phantom, tmp_path / "a", "P01")
        assert brainseg("segment", tmp_path / "a", "--out", tmp_path / "out", "-q") == 0
        masks.add((tmp_path / "out" / "P01" / "mask.nii.gz").read_bytes())
    assert len(masks) == 2


def test_a_mask_given_for_a_scan_is_refused_by_its_values(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(patients / "p0" / "flair_mask.nii.gz", tmp_path / "P01.nii.gz")
    assert brainseg("segment", tmp_path / "P01.nii.gz", "--out", tmp_path / "out", "-q") == 3
    assert "P01.nii.gz: holds nothing but 0, 1, so it is a mask and no scan" in capsys.readouterr().err


def test_results_never_lie_among_the_files_of_their_scan(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(patients, tmp_path / "own")
    (own / "p1" / "mask.nii.gz").write_bytes((own / "p1" / "flair_mask.nii.gz").read_bytes())
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    for scans, out in ((own, own), (own / "p1", own), (own / "p1", own / "p1")):
        assert brainseg("segment", scans, "--out", out, "-q") == 2
        assert "results would lie among the files of" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert brainseg("segment", own, "--out", own / "results", "-q") == 0


def test_a_link_that_leads_nowhere_costs_its_own_case_alone(patients: Path, tmp_path: Path) -> None:
    some = shutil.copytree(patients / "p0", tmp_path / "some" / "p0").parent
    (some / "gone").mkdir()
    (some / "gone" / "0001.dcm").symlink_to("/no/such/file")
    assert brainseg("segment", some, "--out", tmp_path / "out", "-q") == 4
    assert (tmp_path / "out" / "p0" / "mask.nii.gz").is_file()


def test_the_manifest_says_what_was_asked_for(patients: Path, tmp_path: Path) -> None:
    asked = ("--threshold", "0.0", "--format", "nifti,gif", "--pre", patients / "p1" / "t1.nii.gz", "--tta", "-q")
    assert brainseg("segment", patients / "p0", "--out", tmp_path / "out", *asked) == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    command = "brainseg segment p0 --out OUT --tta --threshold 0.0 --pre t1.nii.gz --format nifti,gif"
    assert run["command"] == command
    assert run["settings"]["threshold"] == 0
    assert len(run["bundles"][0]["configs_sha256"]) == 64


def test_what_was_forced_is_not_taken_for_unchanged_without(tmp_path: Path) -> None:
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))
    t1 = write_phantom_dicom(phantom, tmp_path) / "T1_PRE"
    assert brainseg("segment", t1, "--out", tmp_path / "out", "-q", "--force") == 0
    assert brainseg("segment", t1, "--out", tmp_path / "out", "-q") == 3


def test_a_case_that_cannot_be_written_leaves_no_mask(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ValueError

    monkeypatch.setattr("brainseg.writers.tables.write_slices", failing)
    assert brainseg("segment", patients / "p0", "--out", tmp_path, "-q") == 3
    assert not (tmp_path / "p0" / "mask.nii.gz").exists()
