"""`brainseg compare`: what it takes for a competitor, what it refuses, and what it leaves."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import brainseg, open_bundles_with

from brainseg import bundle as bundles
from brainseg.competitors import compare_folders, read_scored, unique_labels
from brainseg.errors import InputError, UsageError
from brainseg.phantom import make_phantom, write_phantom_nifti
from brainseg.writers.nifti import write_mask

CASES = ("p1", "p2", "p3")


class Bright(torch.nn.Module):
    """Stands in for a network: abnormal is where FLAIR is 1.3 times the head's mean or brighter."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.where(image[:, 1:2] > 1.3, 20.0, -10.0)


@pytest.fixture
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    open_bundles_with(Bright(), monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three NIfTI patients in data/; the truth as predictions in whole/, its even rows for p1 and p2 in half/."""
    root = tmp_path_factory.mktemp("made")
    for number, name in enumerate(CASES):
        phantom = make_phantom(shape=(64, 64, 4), spacing_mm=(4.0, 4.0, 16.0), seed=number)
        write_phantom_nifti(phantom, root / "data", name)
        write_mask(root / "whole" / name / "mask.nii.gz", phantom.mask, phantom.affine)
        if name != "p3":
            half = phantom.mask.copy()
            half[::2] = 0
            write_mask(root / "half" / name / "mask.nii.gz", half, phantom.affine)
    (root / "folds.json").write_text(json.dumps({"folds": [["p1"], ["p2", "p3"]]}))
    assert (
        brainseg("evaluate", "--data", root / "data", "--predictions", root / "whole", "--out", root / "a", "-q") == 0
    )
    return root


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "compare.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def run_of(root: Path, evaluation: Path, cases: list[str]) -> Path:
    """A run of basic_unet that validated on `cases`, with their scores from `evaluation` and without pictures."""
    (root / "models").mkdir(parents=True)
    shutil.copy(bundles.shipped()["basic_unet"] / "models" / "model.pt", root / "models")
    (root / "run.json").write_text(json.dumps({"bundle": "basic_unet", "weights_sha256": None}))
    (root / "models" / "training.json").write_text(json.dumps({"trained_on": ["other"], "validated_on": cases}))
    lines = (evaluation / "per_patient.csv").read_text().splitlines(keepends=True)
    (root / "per_patient.csv").write_text(lines[0] + "".join(line for line in lines if line.split(",")[0] in cases))
    shutil.copy(evaluation / "summary.json", root)
    return root


def test_help_is_quick() -> None:
    listing = "atexit.register(lambda: print(list(sys.modules)))"
    code = f"import sys, atexit; from brainseg.cli import main; {listing}; main(['compare', '--help'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'numpy'", "'matplotlib'", "'scipy'"):
        assert heavy not in loaded


def test_an_evaluation_and_predictions_are_compared_on_the_patients_of_both(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert brainseg("compare", made / "a", made / "half", "--data", made / "data", "--out", tmp_path, "-q") == 0
    said = capsys.readouterr().out
    assert "2 patients compared, 1 left out, of whom not all have scores." in said
    assert "| a | whole | 1.000 |" in said
    assert "| Dice | half - a |" in said
    assert said == (tmp_path / "compare.md").read_text()
    found = rows(tmp_path)
    assert list(found) == ["p1", "p2"]
    for row in found.values():
        assert row["Dice a"] == "1"
        assert float(row["Dice half - a"]) == pytest.approx(float(row["Dice half"]) - 1, abs=1e-5)
        assert float(row["volume error (mL) half"]) > 0
    page = (tmp_path / "compare.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # the chart, the better and the worse patient
    assert str(made) not in page


def test_what_was_scored_here_can_be_compared_again_without_the_data(made: Path, tmp_path: Path) -> None:
    assert brainseg("compare", made / "a", made / "half", "--data", made / "data", "--out", tmp_path / "1", "-q") == 0
    assert brainseg("compare", made / "a", tmp_path / "1" / "scores" / "half", "--out", tmp_path / "2", "-q") == 0
    for name in ("compare.csv", "compare.md"):
        assert (tmp_path / "1" / name).read_text() == (tmp_path / "2" / name).read_text()


@pytest.mark.usefixtures("quick_network")
def test_a_shipped_bundle_is_scored_on_the_others_patients_and_the_caution_is_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainseg import members

    record = {"trained_on": ["p1"], "validated_on": [], "chosen_by": []}
    monkeypatch.setattr(members, "training_record", lambda root: record)
    half = tmp_path / "half"
    shutil.copytree(made / "half" / "p1", half / "p1")
    result = compare_folders([str(half), "basic_unet"], tmp_path / "out", data=made / "data")
    assert result.cases == ("p1",)
    assert result.labels == ["half", "basic_unet"]
    assert result.competitors[1].cautions == ("1 of these 1 patients trained the network, so the figures flatter it",)
    assert list(result.competitors[1].pictures or {}) == ["p1"]


def test_one_fold_is_compared_alone(made: Path, tmp_path: Path) -> None:
    folds = ("--data", made / "data", "--folds", made / "folds.json", "--fold")
    assert brainseg("compare", made / "a", made / "half", *folds, 0, "--out", tmp_path, "-q") == 0
    assert list(rows(tmp_path)) == ["p1"]
    assert brainseg("compare", made / "a", made / "half", *folds, 7, "--out", tmp_path, "-q") == 2


def test_a_cross_validation_is_read_from_its_runs(made: Path, tmp_path: Path) -> None:
    run_of(tmp_path / "cv" / "fold_0", made / "a", ["p1"])
    run_of(tmp_path / "cv" / "fold_1", made / "a", ["p2", "p3"])
    result = compare_folders([str(made / "a"), str(tmp_path / "cv")], tmp_path / "out")
    assert result.cases == CASES
    second = result.competitors[1]
    assert second.what == "whole, cross-validated (fold_0, fold_1)"
    assert second.cautions == ("3 of these 3 patients chose the weights among the epochs, so the figures flatter it",)
    assert [row.equal for row in result.paired if row.metric == "Dice"] == [3]


def test_what_the_evaluations_of_a_cross_validation_say_is_kept(made: Path, tmp_path: Path) -> None:
    """Each fold's words once, and what counts patients counted anew over all folds."""
    for fold, cases in (("fold_0", ["p1"]), ("fold_1", ["p2", "p3"])):
        root = run_of(tmp_path / "cv" / fold, made / "a", cases)
        summary = json.loads((root / "summary.json").read_text())
        count = f"{len(cases)} of these {len(cases)} patients chose the weights among the epochs"
        summary["cautions"] = ["the slices carry no patient", f"{count}, so the figures flatter it"]
        (root / "summary.json").write_text(json.dumps(summary))
    result = compare_folders([str(made / "a"), str(tmp_path / "cv")], tmp_path / "out")
    assert result.competitors[1].cautions == (
        "the slices carry no patient",
        "3 of these 3 patients chose the weights among the epochs, so the figures flatter it",
    )


@pytest.mark.usefixtures("quick_network")
def test_pictures_that_a_run_lacks_are_made_where_the_data_is(made: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", made / "a", ["p1"])
    arguments = [str(made / "a"), str(run)]
    assert compare_folders(arguments, tmp_path / "out").competitors[1].pictures == {}
    result = compare_folders(arguments, tmp_path / "out", data=made / "data")
    first, second = (one.pictures or {} for one in result.competitors)
    assert list(second) == ["p1"]
    np.testing.assert_array_equal(first["p1"].truth, second["p1"].truth)
    assert first["p1"].number == second["p1"].number


def test_a_run_that_cannot_make_pictures_is_compared_without(made: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", made / "a", ["p1"])
    (run / "models" / "model.pt").write_bytes(b"damaged")
    result = compare_folders([str(made / "a"), str(run)], tmp_path / "out", data=made / "data")
    assert result.competitors[1].pictures == {}


def test_runs_that_score_one_patient_twice_are_refused(made: Path, tmp_path: Path) -> None:
    folders = [run_of(tmp_path / name, made / "a", ["p1"]) for name in ("x", "y")]
    with pytest.raises(InputError, match="p1 is scored in another run too"):
        read_scored("cv", folders)


def test_different_protocols_are_refused_before_any_scoring(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(made / "a", tmp_path / "d")
    (other / "summary.json").write_text('{"protocol": "D", "what": "another"}')
    assert brainseg("compare", other, made / "half", "--data", made / "data", "--out", tmp_path / "out", "-q") == 2
    error = capsys.readouterr().err
    assert error == "error: compare: scored by different protocols (d by D, half by E); evaluate all by the same one\n"
    assert not (tmp_path / "out" / "scores").exists()


def test_what_has_no_scores_needs_the_data(made: Path, tmp_path: Path) -> None:
    for one in (str(made / "half"), "basic_unet"):
        with pytest.raises(UsageError, match="has no scores yet; pass --data"):
            compare_folders([str(made / "a"), one], tmp_path)


def test_what_is_nothing_of_the_kind_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder, and no bundle of that name"):
        compare_folders([str(made / "a"), "nothing"], tmp_path)
    with pytest.raises(UsageError, match="holds no scores, run, bundle or predictions"):
        compare_folders([str(made / "a"), str(made / "data")], tmp_path)


def test_one_alone_and_one_twice_are_refused(made: Path, tmp_path: Path) -> None:
    assert brainseg("compare", made / "a", "--out", tmp_path, "-q") == 2
    assert brainseg("compare", made / "a", made / "a", "--out", tmp_path, "-q") == 2


def test_an_output_that_cannot_be_written_is_exit_5(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ("compare", made / "a", made / "half", "--data", made / "data", "-q")
    assert brainseg(*arguments, "--out", tmp_path / "file" / "out") == 5


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("summary.json", "{", "cannot be read"),
        ("summary.json", "{}", "does not say by which protocol"),
        ("per_patient.csv", "case,dice\np1,0.5\n", "has no column unit"),
        ("per_patient.csv", "case\np1,0.5\n", "row 2 has 2 cells, the heading 1"),
    ],
)
def test_damaged_evaluations_are_refused(made: Path, tmp_path: Path, name: str, content: str, why: str) -> None:
    damaged = shutil.copytree(made / "a", tmp_path / "damaged")
    (damaged / name).write_text(content)
    with pytest.raises(InputError, match=why):
        read_scored("damaged", [damaged])


def test_a_cell_that_is_no_number_is_refused(made: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(made / "a", tmp_path / "damaged")
    path = damaged / "per_patient.csv"
    path.write_text(path.read_text().replace("p2,mm,1,", "p2,mm,one,"))
    with pytest.raises(InputError, match="row 3 holds could not convert string to float: 'one'"):
        read_scored("damaged", [damaged])


def test_labels_are_as_short_as_tells_them_apart() -> None:
    assert unique_labels(["x/a", "x/b"]) == ["a", "b"]
    assert unique_labels(["one/fold_0", "two/fold_0"]) == ["one/fold_0", "two/fold_0"]
    assert unique_labels(["/scores", "/one/fold_0", "/two/fold_0"]) == ["scores", "one/fold_0", "two/fold_0"]
    assert unique_labels(["/scores", "/one/scores"]) == ["scores", "one/scores"]
    assert unique_labels(["residual_unet", "runs/residual_unet"]) == ["shipped/residual_unet", "runs/residual_unet"]
    with pytest.raises(UsageError, match="x/a: is given twice"):
        unique_labels(["x/a", "y", "x/./a"])
