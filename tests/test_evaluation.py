"""evaluate: from a folder of patients to protocol E's figures, and what it refuses or warns of."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import brainseg, open_bundles_with
from matplotlib import image as pictures

from brainseg import bundle as bundles
from brainseg.bundle import Bundle, open_bundle
from brainseg.case import TIFF_AFFINE
from brainseg.errors import InputError, UsageError
from brainseg.evaluation import evaluate, from_members, markdown, review_run, write_evaluation
from brainseg.members import Member
from brainseg.phantom import Phantom, make_phantom, write_phantom_nifti, write_phantom_tiff
from brainseg.readers import read_case
from brainseg.scores import CaseScores
from brainseg.study import find_patients
from brainseg.writers.nifti import write_mask, write_probability
from brainseg.writers.pictures import read_pictures

SHIFTED = np.eye(4)
SHIFTED[0, 3] = 4.0  # one voxel
MIRRORED = np.diag([-1.0, 1.0, 1.0, 1.0])


class Bright(torch.nn.Module):
    """Stands in for a network: abnormal is where one channel is 1.3 times the head's mean or brighter."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        bright = image[:, self.channel : self.channel + 1] > 1.3
        return torch.where(bright, 20.0, -10.0)  # a slice outvotes its neighbours


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(shape=(64, 64, 12), spacing_mm=(4.0, 4.0, 12.0))


@pytest.fixture
def study(phantom: Phantom, tmp_path: Path) -> Path:
    """Two NIfTI patients `a` and `b`, with masks."""
    for name in "ab":
        write_phantom_nifti(phantom, tmp_path / "study", name)
    return tmp_path / "study"


@pytest.fixture
def predictions(phantom: Phantom, tmp_path: Path) -> Path:
    """The truth for `a`, and for `b` the half of it with even X."""
    half = phantom.mask.copy()
    half[::2] = 0
    for name, mask in (("a", phantom.mask), ("b", half)):
        write_mask(tmp_path / "predictions" / name / "mask.nii.gz", mask, phantom.affine)
    return tmp_path / "predictions"


@pytest.fixture
def thin(tmp_path: Path) -> Path:
    """Two NIfTI patients of three slices, quick to segment."""
    phantom = make_phantom(shape=(64, 64, 3), spacing_mm=(4.0, 4.0, 16.0))
    for name in "ab":
        write_phantom_nifti(phantom, tmp_path / "thin", name)
    return tmp_path / "thin"


@pytest.fixture(scope="module")
def network() -> Bundle:
    return replace(open_bundle("residual_unet", device="cpu"), network=Bright(1))


@pytest.fixture
def run(network: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was trained on `a` and validated on `b`."""
    root = tmp_path / "run"
    (root / "models").mkdir(parents=True)
    (root / "models" / "training.json").write_text('{"trained_on": ["a", "other"], "validated_on": ["b"]}')
    monkeypatch.setattr(bundles, "open_bundle", lambda *_, **__: replace(network, root=root))
    return root


def test_predictions_are_scored_patient_by_patient(study: Path, predictions: Path, phantom: Phantom) -> None:
    result = evaluate(study, predictions=predictions)
    assert [one.case for one in result.scores] == ["a", "b"]
    true = np.count_nonzero(phantom.mask)
    half = np.count_nonzero(phantom.mask[1::2])
    assert [one.dice for one in result.scores] == pytest.approx([1, 2 * half / (half + true)])
    assert [one.volume_ml for one in result.scores] == pytest.approx([true * 0.192, half * 0.192])
    assert {one.unit for one in result.scores} == {"mm"}
    assert (result.protocol, result.what, result.cautions) == ("E", "predictions", ())
    assert all(math.isnan(one.confidence) for one in result.scores)


def test_saved_probabilities_are_scored_too(study: Path, predictions: Path, phantom: Phantom) -> None:
    probability = phantom.mask * np.float32(0.875)
    for name in "ab":
        write_probability(predictions / name / "probability.nii.gz", probability, phantom.affine)
    first, second = evaluate(study, predictions=predictions).scores
    assert first.slice_score.max() == second.slice_score.max() == 0.875
    assert first.positives[87] == np.count_nonzero(phantom.mask)


def test_probabilities_of_some_are_not_mixed_with_masks_of_others(
    study: Path, predictions: Path, phantom: Phantom
) -> None:
    write_probability(predictions / "a" / "probability.nii.gz", phantom.mask * np.float32(0.875), phantom.affine)
    result = evaluate(study, predictions=predictions)
    assert result.cautions == ("probabilities were saved for 1 of these 2 patients, so none of them counts",)
    assert all(math.isnan(one.confidence) and one.slice_score.max() == 1 for one in result.scores)


def test_predictions_of_segment_bear_the_cautions_of_the_network_that_made_them(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        open_bundles_with(Bright(1), patch)
        assert brainseg("segment", study, "--out", tmp_path / "out", "-q") == 0
    assert evaluate(study, predictions=tmp_path / "out").cautions == ()
    path = tmp_path / "out" / "a" / "case.json"
    record = json.loads(path.read_text())
    root = tmp_path / "residual_unet"
    (root / "models").mkdir(parents=True)
    (root / "models" / "model.pt.sha256").write_text(f"{record['made']['networks'][0][1]}  model.pt\n")
    (root / "models" / "training.json").write_text('{"trained_on": ["a", "other"], "validated_on": []}')
    monkeypatch.setattr("brainseg.predictions.shipped", lambda: {"residual_unet": root})
    told = evaluate(study, predictions=tmp_path / "out").cautions
    assert told == ("1 of these 2 patients trained the network, so the figures flatter it",)
    record["made"] |= {"networks": [["mine", "cd" * 32, 0.5]], "mask": "0" * 64}
    path.write_text(json.dumps(record))
    assert evaluate(study, predictions=tmp_path / "out").cautions == (
        "1 of these 2 masks were edited by hand, so they are not the network's own",
        "it is not recorded here which patients trained mine cdcdcdcdcdcd",
    )


def test_several_scans_of_one_person_are_told(study: Path, predictions: Path, tmp_path: Path) -> None:
    for name, session in (("a", "sub-1_ses-1"), ("b", "sub-1_ses-2")):
        shutil.copytree(study / name, tmp_path / "bids" / f"sub-1/{session[6:]}/anat")
        for file in (tmp_path / "bids" / f"sub-1/{session[6:]}/anat").iterdir():
            file.rename(file.with_name(f"{session}_{file.name}"))
        (predictions / name).rename(predictions / session)
    (caution,) = evaluate(tmp_path / "bids", predictions=predictions).cautions
    assert caution == "these 2 scans are of 1 person and each counts, so the intervals are too narrow"


def test_picture_is_the_slice_with_the_largest_tumour_and_not_the_whole_volume(
    study: Path, predictions: Path, phantom: Phantom
) -> None:
    picture = evaluate(study, predictions=predictions).pictures["b"]
    largest = np.count_nonzero(phantom.mask, axis=(0, 1)).argmax()
    assert picture.number == largest + 1
    np.testing.assert_array_equal(picture.truth, phantom.mask[..., largest].T > 0)
    assert picture.flair.base is None  # a view would keep the volume of every patient in memory
    assert picture.mask.base is None


def test_missing_prediction_is_refused_and_named(study: Path, predictions: Path) -> None:
    (predictions / "b" / "mask.nii.gz").unlink()
    with pytest.raises(InputError, match=r"b/mask\.nii\.gz: no prediction there; segment this patient first"):
        evaluate(study, predictions=predictions)


def test_prediction_of_another_shape_is_refused(study: Path, predictions: Path, phantom: Phantom) -> None:
    write_mask(predictions / "b" / "mask.nii.gz", phantom.mask[:, :, 1:], phantom.affine)
    with pytest.raises(InputError, match="has 64 x 64 x 11 voxels, the scan 64 x 64 x 12"):
        evaluate(study, predictions=predictions)


@pytest.mark.parametrize("moved", [SHIFTED, MIRRORED])
@pytest.mark.parametrize("name", ["mask", "probability"])
def test_prediction_of_the_same_shape_elsewhere_is_refused(
    study: Path, predictions: Path, phantom: Phantom, moved: np.ndarray, name: str
) -> None:
    write = write_mask if name == "mask" else write_probability
    write_probability(predictions / "a" / "probability.nii.gz", phantom.mask, phantom.affine)
    write(predictions / "b" / f"{name}.nii.gz", phantom.mask, moved @ phantom.affine)
    with pytest.raises(InputError, match=rf"{name}\.nii\.gz: lies up to [\d.]+ mm from the scan"):
        evaluate(study, predictions=predictions)


@pytest.mark.parametrize("spacing", [1.0, 0.9])
def test_prediction_of_slices_without_spacing_may_have_any_voxel_size(
    phantom: Phantom, tmp_path: Path, spacing: float
) -> None:
    write_phantom_tiff(phantom, tmp_path / "study", "a")
    affine = TIFF_AFFINE @ np.diag([spacing, spacing, 5.0, 1.0])
    write_mask(tmp_path / "predictions" / "a" / "mask.nii.gz", phantom.mask, affine)
    (one,) = evaluate(tmp_path / "study", predictions=tmp_path / "predictions").scores
    assert (one.dice, one.unit, one.volume_ml) == (1, "pixels", None)


def test_prediction_of_slices_must_not_be_mirrored(phantom: Phantom, tmp_path: Path) -> None:
    write_phantom_tiff(phantom, tmp_path / "study", "a")
    write_mask(tmp_path / "predictions" / "a" / "mask.nii.gz", phantom.mask, np.eye(4))
    with pytest.raises(InputError, match="axes in other directions"):
        evaluate(tmp_path / "study", predictions=tmp_path / "predictions")


def test_empty_prediction_is_in_the_figures_as_the_worst(study: Path, predictions: Path, phantom: Phantom) -> None:
    write_mask(predictions / "b" / "mask.nii.gz", phantom.mask * 0, phantom.affine)
    result = evaluate(study, predictions=predictions)
    figures = {figure.metric: figure for figure in result.figures}
    assert figures["Dice"].value == 0.5
    assert math.isinf(figures["HD95 (mm)"].value)
    assert "| infinite | 0.000 to infinite | infinite | 2 | E | 1 of 2 infinite" in markdown(result)


def test_patient_without_a_mask_is_not_scored(study: Path, predictions: Path) -> None:
    (study / "b" / "flair_mask.nii.gz").unlink()
    assert [one.case for one in evaluate(study, predictions=predictions).scores] == ["a"]


def test_no_mask_at_all_is_refused(study: Path, predictions: Path) -> None:
    for name in "ab":
        (study / name / "flair_mask.nii.gz").unlink()
    with pytest.raises(InputError, match="no patient there has a mask"):
        evaluate(study, predictions=predictions)


def test_patient_that_cannot_be_read_is_refused_before_any_work(phantom: Phantom, tmp_path: Path) -> None:
    for name in "ab":
        write_phantom_tiff(phantom, tmp_path / "study", name)
    (tmp_path / "study" / "b" / "b_3.tif").unlink()
    (problem,) = [one.problem for one in find_patients(tmp_path / "study") if one.problem]
    with pytest.raises(InputError) as raised:  # and not for want of a prediction of the first
        evaluate(tmp_path / "study", predictions=tmp_path)
    assert str(raised.value) == str(problem)


@pytest.mark.parametrize("both", [False, True])
def test_bundle_and_predictions_are_one_or_the_other(study: Path, predictions: Path, both: bool) -> None:
    with pytest.raises(UsageError, match="one of the two"):
        evaluate(study, bundle="x" if both else None, predictions=predictions if both else None)


def test_fold_without_a_fold_file_is_refused(study: Path, predictions: Path) -> None:
    with pytest.raises(UsageError, match="give both, or none"):
        evaluate(study, predictions=predictions, fold=0)


def test_fold_is_scored_alone_and_its_absent_patients_are_told(study: Path, predictions: Path, tmp_path: Path) -> None:
    folds = tmp_path / "folds.json"
    folds.write_text('{"folds": [["a"], ["b", "gone"]]}')
    first, second = (evaluate(study, predictions=predictions, folds=folds, fold=fold) for fold in (0, 1))
    assert ([one.case for one in first.scores], first.cautions) == (["a"], ())
    assert [one.case for one in second.scores] == ["b"]
    assert second.cautions == ("only 1 of the 2 patients of fold 1 are there",)


def test_only_the_patients_that_are_named_are_scored(study: Path, predictions: Path) -> None:
    assert [one.case for one in evaluate(study, predictions=predictions, only={"b", "gone"}).scores] == ["b"]
    with pytest.raises(InputError, match="no patient to score is there"):
        evaluate(study, predictions=predictions, only={"gone"})


def test_progress_is_told_after_each_patient(study: Path, predictions: Path) -> None:
    said: list[str] = []

    def advance(count: int) -> Callable[[str], None]:
        said.append(str(count))
        return said.append

    evaluate(study, predictions=predictions, advance=advance)
    assert said[:2] == ["2", "a: Dice 1.000"]
    assert len(said) == 3


# --- a bundle


def test_bundle_is_scored_with_its_probabilities(thin: Path, run: Path, network: Bundle) -> None:
    mask, probability = from_members([Member("", network, {})])(read_case(thin / "a"))
    result = evaluate(thin, bundle="run")
    assert result.what == "residual_unet, all sequences"
    assert [one.dice for one in result.scores] == [result.scores[0].dice] * 2  # they are one phantom
    assert result.scores[0].voxels == np.count_nonzero(mask) > 0
    assert result.scores[0].slice_score.tolist() == probability.max(axis=(0, 1)).tolist()
    assert result.scores[0].confidence > 0
    assert {figure.metric: figure.n for figure in result.figures}["calibration error (ECE)"] == 2


def test_patients_that_made_the_network_are_a_caution(thin: Path, run: Path) -> None:
    expected = (
        "1 of these 2 patients trained the network, so the figures flatter it",
        "1 of these 2 patients chose the weights among the epochs, so the figures flatter it",
    )
    result = evaluate(thin, bundle="run")
    assert result.cautions == expected
    for caution in expected:
        assert f"Caution: {caution}." in markdown(result)


def test_network_that_knows_none_of_the_patients_has_no_caution(thin: Path, run: Path) -> None:
    (run / "models" / "training.json").write_text('{"trained_on": ["c"], "validated_on": null}')
    assert evaluate(thin, bundle="run").cautions == ()
    (run / "models" / "training.json").unlink()
    assert evaluate(thin, bundle="run").cautions == ()


def test_damaged_training_record_is_refused(thin: Path, run: Path) -> None:
    (run / "models" / "training.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        evaluate(thin, bundle="run")


def test_flair_alone_gives_the_network_flair_in_every_channel(thin: Path, network: Bundle) -> None:
    case = read_case(thin / "a")
    expected, _ = from_members([Member("", network, {})])(case)
    for channel in (0, 2):
        other = replace(network, network=Bright(channel))
        np.testing.assert_array_equal(from_members([Member("", other, {})], flair_alone=True)(case)[0], expected)
        assert not np.array_equal(from_members([Member("", other, {})])(case)[0], expected)
    assert not np.array_equal(case.image[0], case.image[1])  # the case itself is untouched


def test_flair_alone_is_said_beside_the_figures(thin: Path, run: Path) -> None:
    result = evaluate(thin, bundle="run", flair_alone=True)
    assert result.what == "residual_unet, FLAIR alone"
    assert "Scored: residual_unet, FLAIR alone." in markdown(result)


def test_review_of_a_run_says_that_its_patients_chose_the_weights(thin: Path, run: Path) -> None:
    patients = [one for one in find_patients(thin) if one.name == "b"]
    result = review_run(run, patients, settings={"learning_rate": 0.001})
    assert result.cautions == ("1 of these 1 patients chose the weights among the epochs, so the figures flatter it",)
    assert "Caution: 1 of these 1 patients" in (run / "summary.md").read_text()
    assert list(run.glob("events.out.tfevents.*"))


# --- what is written


def test_tables_hold_every_patient_and_figure(study: Path, predictions: Path, tmp_path: Path) -> None:
    result = evaluate(study, predictions=predictions)
    write_evaluation(result, tmp_path / "out")
    with (tmp_path / "out" / "per_patient.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["a", "b"]
    assert [float(row["dice"]) for row in rows] == pytest.approx([one.dice for one in result.scores], rel=1e-5)
    assert [row["confidence"] for row in rows] == ["", ""]
    arrays = {"slice_truth", "slice_score", "slice_marked", "positives", "negatives"}
    assert set(rows[0]) == set(CaseScores.__dataclass_fields__) - arrays
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["protocol"] == "E"
    figures = {figure["metric"]: figure for figure in summary["figures"]}
    assert figures["Dice"]["value"] == pytest.approx(sum(one.dice for one in result.scores) / 2)
    assert figures["patient detection, specificity"]["value"] is None
    assert (tmp_path / "out" / "summary.md").read_text() == markdown(result)


def test_pictures_of_every_patient_are_kept(study: Path, predictions: Path, tmp_path: Path) -> None:
    result = evaluate(study, predictions=predictions)
    write_evaluation(result, tmp_path / "out")
    read = read_pictures(tmp_path / "out" / "pictures.npz")
    assert list(read) == ["a", "b"]
    np.testing.assert_array_equal(read["b"].mask, result.pictures["b"].mask)


def test_every_figure_has_its_protocol_beside_it(study: Path, predictions: Path) -> None:
    table = [line for line in markdown(evaluate(study, predictions=predictions)).splitlines() if line.startswith("|")]
    heads, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert heads == ["metric", "mean", "95% interval", "median", "patients", "protocol", "note"]
    assert {row[heads.index("protocol")] for row in rows} == {"E"}
    assert len(rows) == 17


def test_roc_is_written_as_a_table_and_a_picture(
    study: Path, predictions: Path, phantom: Phantom, tmp_path: Path
) -> None:
    write_evaluation(evaluate(study, predictions=predictions), tmp_path / "out")
    with (tmp_path / "out" / "roc.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    slices = [row for row in rows if row["of"] == "slices"]
    assert [row["threshold"] for row in slices] == ["1", "0"]  # masks alone
    assert [(row["sensitivity"], row["specificity"]) for row in slices] == [("1", "1"), ("1", "0")]
    patients = [row for row in rows if row["of"] == "patients"]
    assert [(row["sensitivity"], row["specificity"]) for row in patients] == [("1", "")]  # all have tumour
    assert pictures.imread(tmp_path / "out" / "roc.png").shape[0] > 300
    assert "| every patient has tumour |" in (tmp_path / "out" / "summary.md").read_text()


def test_presence_of_a_bundle_is_judged(thin: Path, run: Path) -> None:
    figures = {figure.metric: figure for figure in evaluate(thin, bundle="run").figures}
    assert 0 <= figures["slice presence, calibration error (ECE)"].value < 1
