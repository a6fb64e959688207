"""Paired differences, their test and its correction, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from brainseg.comparison import (
    MOST_EXACT,
    Competitor,
    Score,
    compare,
    differences,
    holm,
    notable,
    paired_differences,
    signed_rank_p,
)
from brainseg.errors import InputError, UsageError

NAN, INFINITE = float("nan"), float("inf")


def competitor(label: str, dice: dict[str, float], *, protocol: str = "E", **more: object) -> Competitor:
    given = {"hd95": 2.0, "volume_error": 1.0, "unit": "mm", "true_voxels": 100} | more
    return Competitor(
        label, f"{label}, all", protocol, "by volume", {case: Score(one, **given) for case, one in dice.items()}
    )


def of(values: list[float], *, more_is_better: bool = True):
    return paired_differences(np.array(values), metric="m", label="b", more_is_better=more_is_better)


def test_mean_median_and_counts_of_differences_are_those_by_hand() -> None:
    row = of([0.1, 0.2, -0.1, 0.0, NAN])
    assert (row.n, row.better, row.worse, row.equal) == (4, 2, 1, 1)
    assert row.mean == pytest.approx(0.05)
    assert row.median == pytest.approx(0.05)
    assert -0.1 <= row.low < 0.05 < row.high <= 0.2


def test_less_is_better_of_a_distance() -> None:
    row = of([0.1, 0.2, -0.1, 0.0], more_is_better=False)
    assert (row.better, row.worse, row.equal) == (1, 2, 1)


def test_interval_of_two_differences_is_their_range_and_the_same_every_time() -> None:
    row = of([0.1, 0.3])
    assert (row.low, row.high) == pytest.approx((0.1, 0.3))
    assert (row.low, row.high) == (of([0.1, 0.3]).low, of([0.1, 0.3]).high)


def test_infinite_difference_counts_but_has_no_interval() -> None:
    row = of([INFINITE, 1.0, 3.0], more_is_better=False)
    assert (row.worse, row.median, row.mean) == (3, 3.0, INFINITE)
    assert math.isnan(row.low)
    assert row.note == "1 of 3 infinite (one mask empty), mean of the others +2.000"


def test_infinite_differences_of_both_signs_have_no_mean() -> None:
    assert math.isnan(of([INFINITE, -INFINITE, 1.0]).mean)


def test_six_differences_of_one_sign_have_a_p_of_two_in_sixty_four() -> None:
    assert signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(2 / 64)
    assert signed_rank_p(np.array([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(4 / 64)


def test_p_is_that_of_all_signs_counted_out() -> None:
    sample = np.array([0.3, -0.1, 0.7, 0.2, -0.5, 0.9, 0.4])
    ranks = np.argsort(np.argsort(np.abs(sample))) + 1
    least = min(ranks[sample > 0].sum(), ranks[sample < 0].sum())
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=7)]
    assert signed_rank_p(sample) == pytest.approx(2 * np.mean([one <= least for one in sums]))


@pytest.mark.parametrize(
    "sample", [[0.0, 0.1, 0.1, 0.2, -0.1, 0.3, 0.4, 0.0], [0.1] * 6, [1, 2, 4, 0, 3, -1, 0, 2, 2, -1]]
)
def test_zeros_are_dropped_and_with_ties_too_p_is_that_of_all_signs_counted_out(sample: list[float]) -> None:
    from scipy.stats import rankdata

    nonzero = np.array([one for one in sample if one])
    ranks = rankdata(np.abs(nonzero))
    least = min(ranks[nonzero > 0].sum(), ranks[nonzero < 0].sum())
    sums = [np.dot(ranks, signs) for signs in product((0, 1), repeat=len(ranks))]
    assert signed_rank_p(np.array(sample, float)) == pytest.approx(2 * np.mean([one <= least for one in sums]))


def test_more_differences_than_are_counted_out_are_near_what_would_be() -> None:
    sample = np.random.default_rng(0).normal(0.2, 1, MOST_EXACT + 1)
    assert signed_rank_p(sample) == pytest.approx(signed_rank_p(sample[:-1]), abs=0.05)


def test_five_differences_have_no_p() -> None:
    assert math.isnan(signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0])))


def test_same_differences_in_decimals_are_ties() -> None:
    row = of([0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6, 0.1, 0.1, 0.1])
    assert row.p == pytest.approx(signed_rank_p(np.full(6, 0.1)))


def test_holm_multiplies_the_smallest_most_and_never_descends() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]


def test_holm_does_not_count_what_was_not_tested() -> None:
    corrected = holm([NAN, 0.01, 0.04])
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.02, 0.04])


def test_only_patients_that_all_have_are_compared() -> None:
    first = competitor("a", {"p1": 0.5, "p2": 0.6, "p3": 0.7})
    result = compare([first, competitor("b", {"p3": 0.9, "p2": 0.5, "p4": 1.0})])
    assert (result.cases, result.left_out) == (("p2", "p3"), 2)
    assert differences(result.metrics[0], 1).tolist() == pytest.approx([-0.1, 0.2])
    assert {(row.metric, row.n) for row in result.paired} == {("Dice", 2), ("HD95 (mm)", 2), ("volume error (mL)", 2)}


def test_every_one_is_compared_with_the_first_and_corrected_for_the_others() -> None:
    cases = [f"p{k}" for k in range(6)]
    first = competitor("a", dict.fromkeys(cases, 0.5))
    others = [competitor(name, {case: 0.5 + gain * (k + 1) for k, case in enumerate(cases)}) for name, gain in
              (("b", 0.01), ("c", -0.02))]  # fmt: skip
    rows = [row for row in compare([first, *others]).paired if row.metric == "Dice"]
    assert [(row.label, row.p, row.p_holm) for row in rows] == [("b", 2 / 64, 4 / 64), ("c", 2 / 64, 4 / 64)]
    assert [row.mean for row in rows] == pytest.approx([0.035, -0.07])


def test_patients_with_and_without_a_spacing_are_never_averaged_into_one_distance() -> None:
    both = [competitor(name, {"p1": 0.5, "p2": 0.6}) for name in "ab"]
    for one in both:
        one.scores["p2"] = Score(0.6, 3.0, 9.0, "pixels", 100)
    assert {(row.metric, row.n) for row in compare(both).paired} == {
        ("Dice", 2), ("HD95 (mm)", 1), ("volume error (mL)", 1), ("HD95 (pixels)", 1), ("volume error (voxels)", 1),
    }  # fmt: skip


def test_two_infinite_distances_have_no_difference() -> None:
    both = [competitor(name, {"p1": 0.0}, hd95=INFINITE) for name in "ab"]
    assert {row.metric: row.n for row in compare(both).paired}["HD95 (mm)"] == 0


def test_different_protocols_are_refused() -> None:
    with pytest.raises(UsageError, match=r"scored by different protocols \(a by E, b by D\); evaluate all by the same"):
        compare([competitor("a", {"p": 0.5}), competitor("b", {"p": 0.5}, protocol="D")])


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(InputError, match="a, b: have no patient in common"):
        compare([competitor("a", {"p": 0.5}), competitor("b", {"q": 0.5})])


def test_scores_against_different_truths_are_refused() -> None:
    with pytest.raises(InputError, match="p: was scored against different masks or grids"):
        compare([competitor("a", {"p": 0.5}), competitor("b", {"p": 0.5}, true_voxels=101)])


def test_best_median_and_worst_are_by_mean_dice() -> None:
    first = competitor("a", {"p1": 0.9, "p2": 0.2, "p3": 0.5})
    second = competitor("b", {"p1": 0.1, "p2": 0.9, "p3": 0.8})
    assert notable(compare([first, second])) == {"best": "p3", "median": "p2", "worst": "p1"}
    assert notable(compare([competitor(name, {"p": 0.5}) for name in "ab"])) == {"best": "p"}


def test_a_patient_without_a_dice_is_not_called_the_worst() -> None:
    scores = {"p0": 0.9, "p1": 0.8, "p2": 0.2, "p3": math.nan, "p4": math.nan, "p5": math.nan}
    both = [competitor(name, scores) for name in "ab"]
    assert notable(compare(both)) == {"best": "p0", "median": "p1", "worst": "p2"}
    assert notable(compare([competitor(name, {"p": math.nan}) for name in "ab"])) == {}
