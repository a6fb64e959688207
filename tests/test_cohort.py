"""The pipeline of a cohort: what overlaps, what is done again, and what one case's trouble does to the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Bright, brainseg, open_bundles_with

from brainseg import casework
from brainseg.errors import InputError, MachineError
from brainseg.phantom import make_phantom, write_phantom_nifti
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
