"""Networks side by side on the same patients: paired differences, how sure they are, and what they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainseg.errors import InputError, UsageError
from brainseg.statistics import bootstrap_mean, quantile

if TYPE_CHECKING:
    from brainseg.axial import AxialSlice
    from brainseg.history import History

Floats = NDArray[np.float64]

DICE = "Dice"
FEWEST_NONZERO = 6  # with five, even five of one sign have a two-sided p of 0.0625: no test worth printing
MOST_EXACT = 50  # signed ranks are counted out up to here, approximated beyond
DECIMALS = 9  # 0.9 - 0.8 and 0.8 - 0.7 are the same difference


@dataclass(frozen=True)
class Score:
    """What is compared of one patient.

    Attributes:
        dice: hard Dice of the volume; NaN where truth and mask are empty.
        hd95: in `unit`; infinite where one of the two is empty.
        volume_error: |volume - true volume|, mL, or voxels where the spacing is unknown.
        unit: "mm", or "pixels" where the spacing is unknown.
        true_voxels: size of the truth.
    """

    dice: float
    hd95: float
    volume_error: float
    unit: str
    true_voxels: int


@dataclass(frozen=True)
class Competitor:
    """One of the networks, or folders of predictions, that are compared.

    Attributes:
        label: short name, unlike that of any other.
        what: what was scored, as its evaluation says.
        protocol: its letter.
        definition: of the protocol, in words.
        scores: by case name.
        cautions: what a reader of its scores must know.
        pictures: by case name, the slice with the largest tumour, with both contours; may lack any.
        histories: of its training runs, where their events are there.
    """

    label: str
    what: str
    protocol: str
    definition: str
    scores: Mapping[str, Score]
    cautions: tuple[str, ...] = ()
    pictures: Mapping[str, AxialSlice] | None = None
    histories: tuple[History, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One figure of every competitor and patient.

    Attributes:
        name: with its unit.
        more_is_better: Dice, but not a distance or an error.
        values: (competitors, patients); NaN where it is not defined or has another unit.
    """

    name: str
    more_is_better: bool
    values: Floats


@dataclass(frozen=True)
class Paired:
    """The differences, patient by patient, of one competitor minus the first.

    Attributes:
        metric: name of it.
        label: of the competitor.
        n: patients for whom both have the metric.
        mean, low, high: mean difference and its 95% bootstrap interval; no interval (NaN) where a difference is
            infinite.
        median: of the differences.
        p: Wilcoxon's signed-rank test, two-sided; see `signed_rank_p`.
        p_holm: `p` corrected for as many competitors as were tested on this metric.
        better, worse, equal: patients for whom the competitor is so.
        note: what else to know.
    """

    metric: str
    label: str
    n: int
    mean: float
    low: float
    high: float
    median: float
    p: float
    p_holm: float
    better: int
    worse: int
    equal: int
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Competitors, cut to the patients that all of them have.

    Attributes:
        competitors: the first is what the others are compared with.
        cases: names of the patients, in the order of the first.
        left_out: patients that some, but not all, have scores of.
        metrics: all values.
        paired: by metric, then by competitor.
    """

    competitors: tuple[Competitor, ...]
    cases: tuple[str, ...]
    left_out: int
    metrics: tuple[Metric, ...]
    paired: tuple[Paired, ...]

    @property
    def labels(self) -> list[str]:
        return [one.label for one in self.competitors]


def compare(competitors: Sequence[Competitor], *, seed: int = 0) -> Comparison:
    """Every competitor against the first, on the patients that all have.

    Raises:
        UsageError: fewer than two, or of different protocols.
        InputError: no patient in common, or one that was scored on different scans or masks.
    """
    if len(competitors) < 2:
        raise UsageError("compare", f"{len(competitors)} to compare", "give two or more")
    refuse_protocol_mix({one.label: one.protocol for one in competitors})
    first, *others = competitors
    cases = tuple(case for case in first.scores if all(case in one.scores for one in others))
    if not cases:
        names = ", ".join(one.label for one in competitors)
        raise InputError(names, "have no patient in common", "score them on the same patients")
    for case in cases:
        truths = {(one.scores[case].unit, one.scores[case].true_voxels) for one in competitors}
        if len(truths) > 1:
            raise InputError(case, "was scored against different masks or grids", "score all on the same data")
    known = set().union(*(one.scores for one in competitors))
    cut = tuple(replace(one, scores={case: one.scores[case] for case in cases}) for one in competitors)
    metrics = tuple(_metrics(cut, cases))
    paired = tuple(row for metric in metrics for row in _against_first(metric, [one.label for one in cut], seed))
    return Comparison(cut, cases, len(known) - len(cases), metrics, paired)


def refuse_protocol_mix(protocols: Mapping[str, str]) -> None:
    """Figures of different protocols answer different questions; `protocols` by label.

    Raises:
        UsageError: the protocols are not all the same.
    """
    if len(set(protocols.values())) > 1:
        each = ", ".join(f"{label} by {protocol}" for label, protocol in protocols.items())
        raise UsageError("compare", f"scored by different protocols ({each})", "evaluate all by the same one")


def notable(comparison: Comparison) -> dict[str, str]:
    """Title -> case: the best, median and worst patient by the competitors' mean Dice; fewer if they coincide.

    Patients without a Dice (nothing there, and nothing marked) are none of these.
    """
    dice = comparison.metrics[0].values.mean(axis=0)
    order = [int(i) for i in np.argsort(-dice, kind="stable") if not np.isnan(dice[i])]
    if not order:
        return {}
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    chosen: dict[str, str] = {}
    for title, i in places.items():
        if comparison.cases[i] not in chosen.values():
            chosen[title] = comparison.cases[i]
    return chosen


def paired_differences(differences: Floats, *, metric: str, label: str, more_is_better: bool, seed: int = 0) -> Paired:
    """Figures of `differences` (n,), NaN where there is none; `p_holm` is `p` until others are tested with it."""
    defined = np.round(differences[~np.isnan(differences)], DECIMALS)
    finite = defined[np.isfinite(defined)]
    gains = defined if more_is_better else -defined
    mean = low = high = float("nan")
    note = ""
    if finite.size == defined.size and defined.size:
        mean = float(defined.mean())
        low, high = bootstrap_mean(defined, seed=seed)
    elif defined.size:
        one_sided = len({*np.sign(defined[np.isinf(defined)])}) == 1
        mean = float(defined[np.isinf(defined)][0]) if one_sided else float("nan")
        note = f"{defined.size - finite.size} of {defined.size} infinite (one mask empty)"
        note += f", mean of the others {finite.mean():+.3f}" if finite.size else ""
    p = signed_rank_p(defined)
    return Paired(
        metric=metric,
        label=label,
        n=len(defined),
        mean=mean,
        low=low,
        high=high,
        median=quantile(defined, 0.5),
        p=p,
        p_holm=p,
        better=int(np.count_nonzero(gains > 0)),
        worse=int(np.count_nonzero(gains < 0)),
        equal=int(np.count_nonzero(gains == 0)),
        note=note,
    )


def signed_rank_p(differences: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that `differences` (n,) are symmetric about zero.

    Zeros are dropped, as Wilcoxon did; tied sizes share their mean rank. The distribution is exact for up to 50
    differences, tied ones too, else normal with the correction for ties. NaN with fewer than 6 that are not zero.
    Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1945.
    """
    from scipy.stats import rankdata, wilcoxon

    nonzero = differences[differences != 0]
    if len(nonzero) < FEWEST_NONZERO:
        return float("nan")
    if len(nonzero) > MOST_EXACT:
        return float(wilcoxon(nonzero, method="approx").pvalue)
    doubled = np.rint(2 * rankdata(np.abs(nonzero))).astype(int)  # whole numbers, also where ranks are shared
    ways = np.ones(1)  # in which signs give each sum of the ranks of what is positive
    for rank in doubled:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    found = int(doubled[nonzero > 0].sum())
    tail = min(ways[: found + 1].sum(), ways[found:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values of one family; NaN stays, and does not count.

    The k-th smallest of m, from 0, is multiplied by m - k; it is never below the one before, nor above 1.
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.
    """
    tested = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected, least = [float("nan")] * len(p), 0.0
    for k, (value, i) in enumerate(tested):
        least = corrected[i] = min(1.0, max(least, value * (len(tested) - k)))
    return corrected


def _against_first(metric: Metric, labels: Sequence[str], seed: int) -> list[Paired]:
    rows = [
        paired_differences(
            differences(metric, k), metric=metric.name, label=label, more_is_better=metric.more_is_better, seed=seed
        )
        for k, label in enumerate(labels)
        if k
    ]
    return [replace(row, p_holm=p) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]


def differences(metric: Metric, k: int) -> Floats:
    """Competitor `k` minus the first, patient by patient; NaN where either is, or where both are infinite."""
    with np.errstate(invalid="ignore"):
        result: Floats = metric.values[k] - metric.values[0]
    return result


def _metrics(competitors: Sequence[Competitor], cases: Sequence[str]) -> list[Metric]:
    def values(name: str, unit: str | None = None) -> Floats:
        return np.array(
            [
                [getattr(one.scores[case], name) if unit in (None, one.scores[case].unit) else np.nan for case in cases]
                for one in competitors
            ]
        )

    found = [Metric(DICE, True, values("dice"))]
    for unit in sorted({one.unit for one in competitors[0].scores.values()}):
        size = "mL" if unit == "mm" else "voxels"
        found.append(Metric(f"HD95 ({unit})", False, values("hd95", unit)))
        found.append(Metric(f"volume error ({size})", False, values("volume_error", unit)))
    return found
