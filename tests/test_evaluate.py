"""Scores of one patient, and protocol E's figures over patients, against numbers worked out by hand."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainseg.case import TIFF_AFFINE
from brainseg.errors import BrainsegError, InputError, UsageError
from brainseg.evaluation import evaluate, markdown, write_evaluation
from brainseg.phantom import make_phantom, write_phantom_tiff
from brainseg.scores import CaseScores, score_case
from brainseg.statistics import bootstrap_mean, slice_auc, slice_sensitivity, slice_specificity, summarise

SHAPE = (20, 8, 4)


def lines(*spans: tuple[int, int, int, int]) -> np.ndarray:
    """Lines along X: (from, to, y, z)."""
    mask = np.zeros(SHAPE, np.uint8)
    for start, stop, y, z in spans:
        mask[start:stop, y, z] = 1
    return mask


def score(truth, mask, probability=None, spacing_mm=None, case="P", affine=TIFF_AFFINE) -> CaseScores:
    return score_case(case, truth, mask, probability, affine, spacing_mm)


TRUTH, HALF = lines((0, 10, 3, 1)), lines((5, 15, 3, 1))
EMPTY = lines()


# --- one patient


def test_two_lines_of_ten_that_share_five_have_dice_one_half() -> None:
    one = score(TRUTH, HALF)
    assert (one.dice, one.iou, one.precision, one.recall) == pytest.approx((0.5, 1 / 3, 0.5, 0.5))
    assert (one.true_voxels, one.voxels) == (10, 10)


def test_surface_dice_and_hd95_count_voxels_without_a_spacing_and_millimetres_with_one() -> None:
    # Every voxel of a line is surface. Distances of 0..9 to 5..14 are 5 4 3 2 1 0 0 0 0 0, and the same backwards.
    pixels = score(TRUTH, HALF)
    assert pixels.unit == "pixels"
    assert pixels.hd95 == pytest.approx(np.percentile([5, 4, 3, 2, 1, 0, 0, 0, 0, 0], 95))
    assert pixels.surface_dice == pytest.approx(0.7)
    mm = score(TRUTH, HALF, spacing_mm=(2.0, 1.0, 1.0))
    assert mm.unit == "mm"
    assert mm.hd95 == pytest.approx(2 * pixels.hd95)
    assert mm.surface_dice == pytest.approx(0.6)  # one voxel is now 2 mm away


def test_volumes_are_blank_without_a_spacing_and_in_ml_with_one() -> None:
    assert score(TRUTH, HALF).volume_ml is None
    one = score(TRUTH, lines((0, 5, 3, 1)), spacing_mm=(10.0, 10.0, 5.0))
    assert (one.true_volume_ml, one.volume_ml) == pytest.approx((5.0, 2.5))


def test_dice_over_tumour_slices_is_the_mean_of_those_slices_alone() -> None:
    truth = lines((0, 10, 3, 1), (0, 10, 3, 2))
    mask = lines((0, 10, 3, 1), (0, 10, 3, 3))  # right, missed, and invented where there is no tumour
    one = score(truth, mask)
    assert one.dice_tumour_slices == pytest.approx(0.5)
    assert one.slice_truth.tolist() == [False, True, True, False]
    assert one.slice_marked.tolist() == [False, True, False, True]


def test_lesion_is_found_by_one_shared_voxel_and_false_without_any() -> None:
    truth = lines((0, 4, 1, 1), (10, 14, 1, 1), (0, 4, 6, 3))
    mask = lines((3, 6, 1, 1), (16, 19, 1, 1))
    one = score(truth, mask)
    assert (one.true_lesions, one.found_lesions) == (3, 1)
    assert (one.lesions, one.false_lesions) == (2, 1)


def test_voxels_that_touch_at_a_corner_are_one_lesion() -> None:
    truth = EMPTY.copy()
    truth[2, 2, 1] = truth[3, 3, 2] = 1
    assert score(truth, truth).true_lesions == 1


def test_slices_run_along_the_axial_axis_of_the_affine() -> None:
    sagittal = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)  # X is head-foot
    assert score(TRUTH, HALF, affine=sagittal).slice_truth.tolist() == [True] * 10 + [False] * 10


def test_slice_score_is_its_highest_probability() -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[0, 0, 0], probability[5, 3, 1] = 0.25, 0.75
    assert score(TRUTH, HALF, probability).slice_score.tolist() == [0.25, 0.75, 0.0, 0.0]


def test_histograms_count_each_voxel_inside_and_outside_the_tumour() -> None:
    probability = np.zeros(SHAPE, np.float32)
    probability[:10, 3, 1], probability[10:14, 3, 1] = 0.875, 0.125
    one = score(TRUTH, HALF, probability)
    assert (one.positives.sum(), one.positives[87]) == (10, 10)
    assert (one.negatives.sum(), one.negatives[12]) == (20 * 8 * 4 - 10, 4)


def test_both_empty_is_nan_and_not_a_flattering_one() -> None:
    one = score(EMPTY, EMPTY)
    for value in (one.dice, one.iou, one.precision, one.recall, one.hd95, one.surface_dice, one.dice_tumour_slices):
        assert math.isnan(value)
    assert (one.lesions, one.true_lesions) == (0, 0)


def test_missed_tumour_has_dice_0_and_infinite_distance() -> None:
    one = score(TRUTH, EMPTY)
    assert (one.dice, one.recall, one.surface_dice, one.dice_tumour_slices) == (0, 0, 0, 0)
    assert math.isnan(one.precision)
    assert math.isinf(one.hd95)


def test_invented_tumour_has_dice_0_and_no_recall() -> None:
    one = score(EMPTY, HALF)
    assert (one.dice, one.precision, one.false_lesions) == (0, 0, 1)
    assert math.isnan(one.recall)
    assert math.isnan(one.dice_tumour_slices)


# --- figures over patients


def cohort() -> list[CaseScores]:
    """Dice 1, 0.5 and 0."""
    masks = {"A": TRUTH, "B": HALF, "C": lines((0, 10, 6, 3))}
    return [score(TRUTH, mask, mask * np.float32(0.875), case=name) for name, mask in masks.items()]


def test_figures_hold_mean_median_and_n() -> None:
    figures = {one.metric: one for one in summarise(cohort())}
    dice = figures["Dice"]
    assert (dice.value, dice.median, dice.n) == (0.5, 0.5, 3)
    assert (dice.low, dice.high) == (0.0, 1.0)
    assert figures["lesions found"].value == pytest.approx(2 / 3)
    assert figures["false lesions a patient"].value == pytest.approx(1 / 3)


def test_patient_without_a_value_does_not_count() -> None:
    figures = {one.metric: one for one in summarise([*cohort(), score(EMPTY, EMPTY, case="D")])}
    assert figures["Dice"].n == 3
    assert figures["Dice"].value == 0.5
    assert figures["false lesions a patient"].n == 4


def test_slices_of_all_patients_are_pooled() -> None:
    scores = cohort()  # one tumour slice each; the mask of C is on an empty one
    assert slice_sensitivity(scores) == pytest.approx(2 / 3)
    assert slice_specificity(scores) == pytest.approx(8 / 9)
    # Slices with tumour score .875 .875 0, those without .875 and eight times 0: of 27 pairs 16 are won, 10 tied.
    assert slice_auc(scores) == pytest.approx((16 + 0.5 * (2 + 8)) / 27)


def test_auc_agrees_with_every_pair_counted() -> None:
    random = np.random.default_rng(1)
    scores = [
        replace(one, slice_truth=random.random(30) < 0.4, slice_score=random.integers(0, 8, 30) / 8) for one in cohort()
    ]
    truth = np.concatenate([one.slice_truth for one in scores])
    level = np.concatenate([one.slice_score for one in scores])
    difference = level[truth][:, None] - level[~truth][None]
    assert slice_auc(scores) == pytest.approx(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_auc_of_slices_of_one_kind_is_nan() -> None:
    assert math.isnan(slice_auc([score(EMPTY, HALF)]))


def test_bootstrap_of_two_patients_has_the_closed_form() -> None:
    # The mean of two drawn from {0, 1} is 0, 0.5, 1 with chance 1/4, 1/2, 1/4, so the interval is all of it.
    assert bootstrap_mean(np.array([0.0, 1.0])) == (0.0, 1.0)


def test_bootstrap_has_the_binomial_interval() -> None:
    from scipy.stats import binom

    values = np.repeat([0.0, 1.0], (60, 40))  # a drawn mean is binomial(100, 0.4) / 100
    low, high = bootstrap_mean(values)
    assert low == pytest.approx(binom.ppf(0.025, 100, 0.4) / 100, abs=0.011)
    assert high == pytest.approx(binom.ppf(0.975, 100, 0.4) / 100, abs=0.011)


def test_bootstrap_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).beta(6, 2, 40)
    judge = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=7).confidence_interval
    assert bootstrap_mean(values) == pytest.approx((judge.low, judge.high), abs=0.003)


def test_bootstrap_is_the_same_each_time_for_a_seed() -> None:
    values = np.random.default_rng(3).random(20)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


# --- from files to files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with masks, and predictions that are those masks."""
    from brainseg.readers import read_ground_truth
    from brainseg.study import find_patients

    folder = tmp_path_factory.mktemp("set")
    for number in range(2):
        phantom = make_phantom(shape=(64, 64, 6), spacing_mm=(3.6, 3.6, 24.0), seed=number)
        write_phantom_tiff(phantom, folder / "scans", f"p{number}")
    for patient in find_patients(folder / "scans"):
        (folder / "masks" / patient.name).mkdir(parents=True)
        image = nibabel.Nifti1Image(read_ground_truth(patient), TIFF_AFFINE)
        nibabel.save(image, folder / "masks" / patient.name / "mask.nii.gz")
    (folder / "folds.json").write_text(json.dumps({"folds": [["p0"], ["p1"]]}))
    return folder


def test_predictions_that_are_the_truth_have_dice_1(data: Path, tmp_path: Path) -> None:
    result = evaluate(data / "scans", predictions=data / "masks")
    assert [(one.case, one.dice) for one in result.scores] == [("p0", 1.0), ("p1", 1.0)]
    write_evaluation(result, tmp_path)
    with (tmp_path / "per_patient.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], float(row["dice"]), row["unit"]) for row in rows] == [
        ("p0", 1, "pixels"),
        ("p1", 1, "pixels"),
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["protocol"] == "E"
    assert (summary["figures"][0]["metric"], summary["figures"][0]["value"]) == ("Dice", 1.0)
    assert (tmp_path / "summary.md").read_text() == markdown(result)


def test_markdown_has_protocol_interval_and_n(data: Path) -> None:
    text = markdown(evaluate(data / "scans", predictions=data / "masks"))
    assert text.startswith("Protocol E: whole patients")
    assert "| Dice | 1.000 | 1.000 to 1.000 | 1.000 | 2 |" in text


def test_fold_scores_its_own_patients_only(data: Path) -> None:
    result = evaluate(data / "scans", predictions=data / "masks", folds=data / "folds.json", fold=1)
    assert [one.case for one in result.scores] == ["p1"]


def test_neither_bundle_nor_predictions_is_usage(data: Path) -> None:
    with pytest.raises(UsageError, match="what to score"):
        evaluate(data / "scans")


def test_missing_prediction_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prediction there"):
        evaluate(data / "scans", predictions=tmp_path)


def test_prediction_on_another_grid_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "p0").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 6), np.uint8), TIFF_AFFINE), tmp_path / "p0" / "mask.nii.gz")
    with pytest.raises(BrainsegError, match="the scan's own grid"):
        evaluate(data / "scans", predictions=tmp_path)
