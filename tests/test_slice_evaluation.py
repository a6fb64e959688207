"""Protocols A and B from a folder of slices to a table that always holds the leak alarm; C and D beside them."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from command import brainseg

from brainseg import protocols
from brainseg.case import TIFF_AFFINE
from brainseg.errors import InputError, UsageError
from brainseg.evaluation import evaluate, markdown
from brainseg.leak import ALARM, NOTHING
from brainseg.phantom import Phantom, make_phantom, write_phantom_nifti, write_phantom_tiff
from brainseg.slice_evaluation import evaluate_slices, slice_markdown, write_slice_evaluation
from brainseg.writers.nifti import write_mask

HEADS = ["metric", "scored", "value", "95% interval", "slices", "patients", "protocol", "note"]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(shape=(64, 64, 12), spacing_mm=(4.0, 4.0, 12.0))


@pytest.fixture
def study(phantom: Phantom, tmp_path: Path) -> Path:
    """Two patients `a` and `b` of 12 slices."""
    for name in "ab":
        write_phantom_tiff(phantom, tmp_path / "study", name)
    return tmp_path / "study"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Slices 5 to 8 of `a` are the test; all else of it trains, and of `b` one slice validates."""
    content = {
        "training": [f"a/a_{i}.tif" for i in (1, 2, 3, 4, 9, 10, 11, 12)],
        "validation": ["b/b_1.tif"],
        "test": [f"a/a_{i}.tif" for i in (5, 6, 7, 8)],
    }
    (tmp_path / "split.json").write_text(json.dumps(content))
    return tmp_path / "split.json"


def predicted(folder: Path, phantom: Phantom, *names: str, mask: np.ndarray | None = None) -> Path:
    for name in names:
        write_mask(folder / name / "mask.nii.gz", phantom.mask if mask is None else mask, TIFF_AFFINE)
    return folder


def rows(table: str) -> list[dict[str, str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    heads, _, *cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert heads == HEADS
    return [dict(zip(heads, row, strict=True)) for row in cells]


def test_alarm_scores_the_masks_of_the_nearest_training_slices(study: Path, split: Path, phantom: Phantom) -> None:
    result = evaluate_slices(study, protocol="A", split=split)
    truth, copied = phantom.mask[..., 4:8], phantom.mask[..., [3, 3, 8, 8]]
    both, sizes = int((truth & copied).sum()), int(truth.sum()) + int(copied.sum())
    soft, _, pooled, *_ = result.figures[ALARM]
    assert both > 0
    assert soft.value == pytest.approx((2 * both + 1) / (sizes + 1))
    assert pooled.value == pytest.approx(2 * both / sizes)
    assert [one.name for one in result.slices[ALARM]] == [f"a/a_{i}.tif" for i in (5, 6, 7, 8)]


def test_every_table_has_the_alarm_and_nothing_and_its_protocol(study: Path, split: Path, phantom: Phantom) -> None:
    predictions = predicted(study.parent / "mine", phantom, "a")
    for protocol, metrics in (("A", 5), ("B", 6)):
        result = evaluate_slices(study, protocol=protocol, split=split, predictions=predictions)
        table = rows(slice_markdown(result))
        assert [row["scored"] for row in table] == ["mine", ALARM, NOTHING] * metrics
        assert {(row["protocol"], row["slices"]) for row in table} == {(protocol, "4")}
        assert [float(row["value"]) for row in table[:1]] == [1.0]
        assert "Caution: slices of one patient lie on both sides" in slice_markdown(result)
        assert "split.json; 8 training, 1 validation and 4 test slices" in result.split


def test_without_a_split_one_is_made_and_said(study: Path) -> None:
    result = evaluate_slices(study, protocol="A")
    assert "made here, seed 0, as no --split was given; 22 training, 1 validation and 1 test slices" in result.split
    assert list(result.figures) == [ALARM, NOTHING]


def test_only_patients_with_test_slices_need_a_prediction(study: Path, split: Path, phantom: Phantom) -> None:
    predictions = predicted(study.parent / "mine", phantom, "a")
    assert evaluate_slices(study, protocol="A", split=split, predictions=predictions).figures["mine"][0].n == 1


def test_absent_slices_are_told_and_no_test_slice_is_refused(study: Path, split: Path) -> None:
    content = json.loads(split.read_text())
    split.write_text(json.dumps(content | {"training": [*content["training"], "gone/gone_1.tif"]}))
    assert "only 8 of the 9 training slices are there" in evaluate_slices(study, protocol="A", split=split).cautions
    split.write_text(json.dumps(content | {"test": [*content["test"], "gone/gone_1.tif"]}))
    assert "only 4 of the 5 test slices are there" in evaluate_slices(study, protocol="A", split=split).cautions
    split.write_text(json.dumps(content | {"test": ["gone/gone_1.tif"]}))
    with pytest.raises(InputError, match="none of the test slices is there"):
        evaluate_slices(study, protocol="A", split=split)


def test_volumes_have_no_slices_to_divide(phantom: Phantom, tmp_path: Path) -> None:
    write_phantom_nifti(phantom, tmp_path / "study", "a")
    with pytest.raises(InputError, match="is no stack of TIFF slices"):
        evaluate_slices(tmp_path / "study", protocol="A")


def test_tables_of_slices_are_written(study: Path, split: Path, tmp_path: Path) -> None:
    result = evaluate_slices(study, protocol="B", split=split)
    write_slice_evaluation(result, tmp_path / "out")
    with (tmp_path / "out" / "per_slice.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(row["scored"], row["name"]) for row in table[3:5]] == [(ALARM, "a/a_8.tif"), (NOTHING, "a/a_5.tif")]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["protocol"], len(summary["figures"])) == ("B", 12)
    assert (tmp_path / "out" / "summary.md").read_text() == slice_markdown(result)


def test_protocols_do_not_mix(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="A scores slices"):
        evaluate(study, protocol="A", predictions=tmp_path)
    with pytest.raises(UsageError, match="C scores patients"):
        evaluate_slices(study, protocol="C")
    with pytest.raises(UsageError, match="both say what to score"):
        evaluate_slices(study, protocol="A", bundle="x", predictions=tmp_path)
    with pytest.raises(UsageError, match="ten patients of its own"):
        evaluate(study, protocol="D", predictions=tmp_path, folds=tmp_path, fold=0)


# --- C and D


def test_c_is_one_dice_of_all_patients_beside_their_own(study: Path, phantom: Phantom) -> None:
    half = phantom.mask.copy()
    half[::2] = 0
    predicted(study.parent / "mine", phantom, "a")
    result = evaluate(study, protocol="C", predictions=predicted(study.parent / "mine", phantom, "b", mask=half))
    true, left = np.count_nonzero(phantom.mask), np.count_nonzero(half)
    assert [one.dice for one in result.scores] == pytest.approx([1, 2 * left / (left + true)])
    (figure,) = result.figures
    assert figure.value == pytest.approx(2 * (true + left) / (3 * true + left))
    assert "| Dice of all patients together | " in markdown(result)
    assert " | 2 | C | " in markdown(result)


def test_d_scores_the_ten_with_mean_and_median(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "COMPLETE", 11)
    names = [f"P{i:02d}" for i in range(11)]
    for name in names:
        write_phantom_tiff(phantom, tmp_path / "study", name)
    random.seed(42)
    ten = sorted(random.sample(names, 10))
    predictions = predicted(tmp_path / "mine", phantom, *ten)
    result = evaluate(tmp_path / "study", protocol="D", predictions=predictions)
    assert [one.case for one in result.scores] == ten
    (figure,) = result.figures
    assert (figure.metric, figure.n, figure.median) == ("Dice", 10, figure.value)
    inner = phantom.mask[..., 1:-1]
    assert {one.true_voxels for one in result.scores} == {int(inner.sum())}
    assert f"| Dice | {figure.value:.3f} | " in markdown(result)
    assert "Protocol D: ten patients" in markdown(result)


# --- the command line


def test_split_by_slice_warns_and_evaluate_reads_it(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "slices.json"
    assert brainseg("data", "split", study, "--by", "slice", "--seed", 4, "--out", out) == 0
    assert capsys.readouterr().err.startswith("warning: slices of one patient lie on both sides of this split")
    assert brainseg("evaluate", "--data", study, "--protocol", "B", "--split", out, "--out", tmp_path / "scores") == 0
    said = capsys.readouterr().out
    assert "slices.json; 22 training" in said
    assert f"| soft Dice | {ALARM} | " in said
    assert (tmp_path / "scores" / "summary.md").read_text() in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--protocol", "A", "--fold", 0, "--out", "x", "--data"], "has no folds of patients"),
        (["evaluate", "--split", __file__, "--out", "x", "--data"], "protocol E scores whole patients"),
        (["evaluate", "--protocol", "D", "--predictions", ".", "--out", "x", "--data"], "draws its ten out of 110"),
        (["data", "split", "--by", "slice", "--folds", 5, "--out", "x"], "leave it out with --by slice"),
        (["train", "--bundle", "basic_unet", "--split", __file__, "--out", "x", "--data"], "not a split of slices"),
    ],
)
def test_what_does_not_fit_together_is_one_line(
    study: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], message: str
) -> None:
    assert brainseg(*arguments, study) in (2, 3)
    assert message in capsys.readouterr().err
