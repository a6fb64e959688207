"""Figures over patients, against scipy's bootstrap and counts by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from brainseg.scores import CaseScores, score_case
from brainseg.statistics import (
    Figure,
    bootstrap_mean,
    detection,
    expected_calibration_error,
    patient_sensitivity,
    patient_specificity,
    presence_error,
    roc_curve,
    slice_auc,
    slice_sensitivity,
    slice_specificity,
    summarise,
)

SHAPE = (6, 6, 8)


def patient(
    true: list[int], probability: list[float], *, spacing: tuple[float, float, float] | None = None
) -> CaseScores:
    """A patient with tumour on the slices `true`; each slice of one probability, marked where it is 0.5 or more."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:4, 2:4, true] = 1
    values = np.broadcast_to(np.array(probability, np.float32), SHAPE)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:4] = values[2:4, 2:4] >= 0.5
    return score_case("one", truth, mask, values, np.eye(4), spacing)


def cohort(n: int = 12, *, ties: bool = False) -> list[CaseScores]:
    random = np.random.default_rng(7)
    patients = []
    for _ in range(n):
        true = random.choice(8, random.integers(1, 6), replace=False)
        level = random.uniform(0, 0.7, 8) + 0.3 * np.isin(np.arange(8), true)
        patients.append(patient(true.tolist(), (level.round(1) if ties else level).tolist()))
    return patients


def figure(figures: list[Figure], metric: str) -> Figure:
    (found,) = (one for one in figures if one.metric == metric)
    return found


def by_scipy(scores: list[CaseScores], statistic: object) -> tuple[float, float]:
    """scipy's percentile interval of a statistic of patients."""
    result = stats.bootstrap(
        (np.arange(len(scores)),),
        lambda drawn: statistic([scores[i] for i in drawn]),  # type: ignore[operator]
        n_resamples=2000,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(1),
    )
    return tuple(result.confidence_interval)


def test_interval_of_the_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).beta(8, 2, 90)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert bootstrap_mean(values) == pytest.approx(tuple(expected), abs=1e-3)


def test_intervals_repeat_with_the_seed() -> None:
    values = np.random.default_rng(2).random(20)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)
    assert repr(summarise(cohort(4))) == repr(summarise(cohort(4)))


@pytest.mark.parametrize(
    ("metric", "statistic"),
    [
        ("slice detection, sensitivity", slice_sensitivity),
        ("slice detection, specificity", slice_specificity),
        ("slice detection, AUC", slice_auc),
        ("calibration error (ECE)", expected_calibration_error),
    ],
)
def test_pooled_intervals_draw_patients_as_scipy_does(metric: str, statistic: object) -> None:
    scores = cohort()
    found = figure(summarise(scores), metric)
    assert found.value == statistic(scores)  # type: ignore[operator]
    assert (found.low, found.high) == pytest.approx(by_scipy(scores, statistic), abs=0.015)
    assert found.n == len(scores)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_the_share_of_pairs_in_the_right_order(ties: bool) -> None:
    scores = cohort(ties=ties)
    positives = [p for one in scores for p, true in zip(one.slice_score, one.slice_truth, strict=True) if true]
    negatives = [p for one in scores for p, true in zip(one.slice_score, one.slice_truth, strict=True) if not true]
    pairs = [1.0 if p > q else 0.5 if p == q else 0.0 for p in positives for q in negatives]
    assert slice_auc(scores) == pytest.approx(np.mean(pairs))


def test_auc_of_one_kind_of_slice_is_not_a_number() -> None:
    assert math.isnan(slice_auc([patient(list(range(8)), [0.9] * 8)]))


def test_detection_is_counted_by_hand() -> None:
    scores = [
        patient([0, 1, 2], [0.9, 0.9, 0.1, 0.9, 0, 0, 0, 0]),  # finds 2 of 3, marks 1 of 5 wrongly
        patient([0], [0.1] * 8),  # misses the only one
        patient([], [0.1] * 8),
        patient([], [0.9] + [0.1] * 7),  # marks 1 of 8 wrongly
    ]
    assert slice_sensitivity(scores) == 2 / 4
    assert slice_specificity(scores) == 1 - 2 / (5 + 7 + 8 + 8)
    assert patient_sensitivity(scores) == 1 / 2
    assert patient_specificity(scores) == 1 / 2
    figures = summarise(scores)
    assert figure(figures, "patient detection, sensitivity").n == 2
    assert figure(figures, "patient detection, specificity").n == 2
    assert figure(figures, "patient detection, AUC").value == (1 + 0.5 + 0.5) / 4  # 0.9, 0.1 against 0.1, 0.9
    assert figure(figures, "patient detection, AUC").n == 4


def test_specificity_of_patients_is_unknown_where_all_have_tumour() -> None:
    found = figure(summarise(cohort(3)), "patient detection, specificity")
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert found.n == 0


def test_what_is_not_defined_says_why_in_words() -> None:
    figures = summarise(cohort(3))
    assert figure(figures, "patient detection, specificity").note == "every patient has tumour"
    assert figure(figures, "patient detection, AUC").note == "needs patients with and without tumour"
    assert figure(figures, "slice detection, specificity").note == ""
    assert figure(summarise([patient([], [0.1] * 8)]), "slice detection, sensitivity").note == "no slice has tumour"


def test_roc_curve_with_ties_is_that_by_hand() -> None:
    truth = np.array([True, True, False, True, False, False])
    score = np.array([0.9, 0.6, 0.6, 0.6, 0.2, 0.1])
    thresholds, sensitivity, specificity = roc_curve(truth, score)
    assert thresholds.tolist() == [0.9, 0.6, 0.2, 0.1]
    assert sensitivity == pytest.approx([1 / 3, 1, 1, 1])
    assert specificity == pytest.approx([1, 2 / 3, 1 / 3, 0])


@pytest.mark.parametrize("ties", [False, True])
def test_area_under_the_roc_curve_is_the_auc(ties: bool) -> None:
    scores = cohort(ties=ties)
    _, sensitivity, specificity = roc_curve(*detection(scores)["slices"])
    area = np.trapezoid([0, *sensitivity], [0, *(1 - specificity)])
    assert area == pytest.approx(slice_auc(scores))


def test_roc_of_patients_who_all_have_tumour_has_no_specificity() -> None:
    truth, score = detection(cohort(3))["patients"]
    assert truth.tolist() == [True] * 3
    _, sensitivity, specificity = roc_curve(truth, score)
    assert sensitivity[-1] == 1
    assert np.isnan(specificity).all()


def test_presence_error_is_computed_by_hand() -> None:
    probability, truth = np.array([0.1, 0.15, 0.9, 1.0]), np.array([False, True, True, True])
    assert presence_error(probability, truth) == pytest.approx((abs(0.25 - 1) + abs(1.9 - 2)) / 4)


def test_presence_of_a_network_that_means_what_it_says_is_calibrated() -> None:
    level = np.linspace(0.05, 0.95, 10)  # the middle of each bin
    truth = np.concatenate([np.arange(100) < 100 * p for p in level])
    assert presence_error(np.repeat(level, 100), truth) < 1e-9


def test_presence_is_judged_after_its_logistic_function_and_not_without_one() -> None:
    scores = [patient([0], [0.9] + [0.5] * 7), patient([], [0.5] * 8)]
    name = "slice presence, calibration error (ECE)"
    assert figure(summarise(scores, presence=(1.0, 0.0)), name).value == pytest.approx((0.1 + 15 * 0.5) / 16, abs=1e-6)
    lower = figure(summarise(scores, presence=(1.0, -np.log(99))), name)  # odds a 99th: 0.5 is 0.01, 0.9 is 1/12
    assert lower.value == pytest.approx(abs(1 / 12 + 15 * 0.01 - 1) / 16, abs=1e-6)
    assert lower.n == 2
    unknown = figure(summarise(scores), name)
    assert math.isnan(unknown.value)
    assert unknown.note == "needs a bundle's probabilities"


def test_mean_median_and_n_leave_out_patients_without_a_value() -> None:
    known = patient([0, 1], [0.9, 0.1] + [0] * 6)  # Dice 2/3
    perfect = patient([0], [0.9] + [0] * 7)
    neither = patient([], [0] * 8)
    found = figure(summarise([known, perfect, perfect, neither]), "Dice")
    assert found.value == pytest.approx((2 / 3 + 2) / 3)
    assert found.median == 1
    assert found.n == 3
    assert found.note == ""


def test_a_missed_tumour_makes_the_mean_distance_infinite_and_the_median_bears_it() -> None:
    perfect = patient([0], [0.9] + [0] * 7)
    missed = patient([0], [0] * 8)
    found = figure(summarise([perfect, perfect, missed]), "HD95 (pixels)")
    assert math.isinf(found.value)
    assert math.isinf(found.high)
    assert found.low == 0
    assert found.median == 0
    assert found.n == 3
    assert found.note == "1 of 3 infinite (one mask empty), mean of the others 0.000"


def test_one_patient_gives_no_interval() -> None:
    figures = summarise([patient([0, 1], [0.9, 0.1] + [0] * 6)])
    assert figure(figures, "Dice").value == pytest.approx(2 / 3)
    assert all(math.isnan(one.low) and math.isnan(one.high) for one in figures)


def test_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        summarise([])


def test_millimetres_and_pixels_are_never_averaged() -> None:
    scores = [patient([0], [0.9] * 8), patient([0], [0.9] * 8, spacing=(1.0, 1.0, 5.0))]
    names = [one.metric for one in summarise(scores)]
    assert "HD95 (mm)" in names
    assert "HD95 (pixels)" in names
    assert figure(summarise(scores), "HD95 (mm)").n == 1
    assert figure(summarise(scores), "Dice").n == 2


def test_lesions_are_counted_a_patient() -> None:
    both = patient([0, 1, 4, 5], [0.9, 0.9, 0, 0, 0, 0, 0, 0.9])  # finds 1 of 2, and 1 that is none
    figures = summarise([both, patient([0], [0.9] + [0] * 7)])
    assert figure(figures, "lesions found").value == 0.75
    assert figure(figures, "false lesions a patient").value == 0.5


def test_calibration_error_is_computed_by_hand() -> None:
    one = patient([0], [0.9, 0.2] + [0.001] * 6)  # 36 voxels at 0.9, 4 of them tumour; 36 at 0.2, none
    expected = (abs(4 - 36 * 0.905) + 36 * 0.205) / 72
    assert expected_calibration_error([one]) == pytest.approx(expected, abs=1e-9)


def test_a_network_that_means_what_it_says_is_calibrated() -> None:
    random = np.random.default_rng(5)
    probability = random.uniform(0, 1, (60, 60, 60)).astype(np.float32)
    truth = random.uniform(size=probability.shape) < probability
    one = score_case("one", truth, probability >= 0.5, probability, np.eye(4), None)
    assert expected_calibration_error([one]) < 0.01


def test_tumour_that_was_never_in_doubt_is_no_matter_of_calibration() -> None:
    missed = patient([0], [0.001] * 8)
    assert math.isnan(expected_calibration_error([missed]))


def test_masks_alone_have_no_calibration() -> None:
    alone = score_case("one", np.ones(SHAPE), np.ones(SHAPE), None, np.eye(4), None)
    found = figure(summarise([alone, replace(alone, case="two")]), "calibration error (ECE)")
    assert math.isnan(found.value)
    assert found.n == 0
