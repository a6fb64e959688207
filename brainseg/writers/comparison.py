"""compare.md, compare.csv and compare.html: networks side by side on the same patients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.comparison import DICE, Comparison, Paired, differences, notable
from brainseg.statistics import LEVEL, RESAMPLES, bootstrap_mean
from brainseg.writers.atomic import replacing
from brainseg.writers.overlay import contour_grid
from brainseg.writers.page import embedded, rendered
from brainseg.writers.tables import write_table

CHART_DPI = 130
PICTURE_DPI = 200
NOTE, HOLM, INTERVAL = "note", "p (Holm)", f"{LEVEL:.0%} interval"
COMPETITOR_COLUMNS = ("competitor", "what was scored", "mean Dice", INTERVAL, "median Dice", "patients", "protocol")


@dataclass(frozen=True)
class _Picture:
    title: str
    case: str
    content: str


def write_comparison(out: Path, comparison: Comparison) -> None:
    """Writes the three files to `out`.

    Raises:
        MachineError: if one cannot be written.
    """
    write_table(out / "compare.csv", *_csv(comparison))
    page = _page(comparison)
    for name, text in (("compare.html", page), ("compare.md", markdown(comparison))):
        with replacing(out / name) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def markdown(comparison: Comparison) -> str:
    """What was compared, and the figures, as Markdown tables."""
    lines = [
        *(f"{line}." for line in _said(comparison)),
        *(f"Caution: {caution}." for caution in _cautions(comparison)),
        "",
        *_markdown_table(COMPETITOR_COLUMNS, _competitor_rows(comparison)),
        "",
        *_markdown_table(*_paired_table(comparison)),
    ]
    return "\n".join(lines) + "\n"


def _said(comparison: Comparison) -> Iterator[str]:
    first, count = comparison.competitors[0], len(comparison.cases)
    left_out = (
        f"{comparison.left_out} left out, of whom not all have scores" if comparison.left_out else "none left out"
    )
    yield f"{count} {'patient' if count == 1 else 'patients'} compared, {left_out}"
    yield f"Protocol {first.protocol}: {first.definition}"
    yield (
        f"Differences are the named one minus {comparison.labels[0]}, patient by patient; intervals: {LEVEL:.0%}, "
        f"patients resampled {RESAMPLES:,} times; p: Wilcoxon's signed-rank test without zeros, two-sided, none with "
        "fewer than 6 differences"
    )


def _cautions(comparison: Comparison) -> list[str]:
    return [f"{one.label}: {caution}" for one in comparison.competitors for caution in one.cautions]


def _competitor_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one, values in zip(comparison.competitors, comparison.metrics[0].values, strict=True):
        dice = values[~np.isnan(values)]
        low, high = bootstrap_mean(dice) if dice.size else (math.nan, math.nan)
        mean, median = (float(np.mean(dice)), float(np.median(dice))) if dice.size else (math.nan, math.nan)
        interval = f"{_number(low)} to {_number(high)}" if dice.size else "-"
        rows.append((one.label, one.what, _number(mean), interval, _number(median), str(dice.size), one.protocol))
    return rows


def _paired_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the differences, without the columns that would say nothing."""
    rows = [_paired_row(row, comparison.labels[0]) for row in comparison.paired]
    idle = {HOLM} if len(comparison.competitors) == 2 else set()
    idle |= set() if any(row[NOTE] for row in rows) else {NOTE}
    columns = [name for name in rows[0] if name not in idle]
    return columns, [[row[name] for name in columns] for row in rows]


def _paired_row(row: Paired, first: str) -> dict[str, str]:
    digits = 0 if "voxels" in row.metric else 3

    def signed(value: float) -> str:
        return _number(value, digits, sign="+")

    return {
        "metric": row.metric,
        "difference": f"{row.label} - {first}",
        "mean": signed(row.mean),
        INTERVAL: "-" if math.isnan(row.low) else f"{signed(row.low)} to {signed(row.high)}",
        "median": signed(row.median),
        "p": _probability(row.p),
        HOLM: _probability(row.p_holm),
        "better / worse / equal": f"{row.better} / {row.worse} / {row.equal}",
        "patients": str(row.n),
        NOTE: row.note,
    }


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |"


def _number(value: float, digits: int = 3, *, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return f"{value:{sign}.{digits}f}"


def _probability(p: float) -> str:
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _csv(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    """A row a patient: of each metric a column a competitor, then one a difference from the first."""
    labels = comparison.labels
    columns, values = ["case"], []
    for metric in comparison.metrics:
        columns += [f"{metric.name} {label}" for label in labels]
        columns += [f"{metric.name} {label} - {labels[0]}" for label in labels[1:]]
        values += [*metric.values, *(differences(metric, k) for k in range(1, len(labels)))]
    rows = [[case, *(float(one[i]) for one in values)] for i, case in enumerate(comparison.cases)]
    return columns, rows


def _page(comparison: Comparison) -> str:
    from brainseg.writers.charts import dice_figure, history_figure

    dice = comparison.metrics[0].values
    histories = {one.label: one.histories for one in comparison.competitors}
    pictures, why_none = _pictures(comparison)
    paired_columns, paired_rows = _paired_table(comparison)
    return rendered(
        "comparison.html.j2",
        labels=comparison.labels,
        count=len(comparison.cases),
        summary=_summary(comparison),
        cautions=_cautions(comparison),
        said=list(_said(comparison)),
        competitor_columns=COMPETITOR_COLUMNS,
        competitor_rows=_competitor_rows(comparison),
        paired_columns=paired_columns,
        paired_rows=paired_rows,
        patients=_patient_rows(comparison),
        chart=embedded(dice_figure(dice, comparison.labels), CHART_DPI),
        history=embedded(history_figure(histories), CHART_DPI) if any(histories.values()) else None,
        untold=[label for label, runs in histories.items() if not runs],
        pictures=pictures,
        why_none=why_none,
    )


def _summary(comparison: Comparison) -> list[tuple[str, str, str]]:
    count, left_out = len(comparison.cases), comparison.left_out
    summary = [("Patients", str(count), f"{left_out} left out" if left_out else "")]
    for row in comparison.paired:
        if row.metric == DICE:
            cells = _paired_row(row, comparison.labels[0])
            summary.append((f"Dice, {cells['difference']}", cells["mean"], cells[INTERVAL]))
    return summary


def _patient_rows(comparison: Comparison) -> list[tuple[str, list[float | None]]]:
    """Dice of every competitor and its difference from the first, None where it is not defined."""
    metric = comparison.metrics[0]
    columns = [*metric.values, *(differences(metric, k) for k in range(1, len(comparison.labels)))]
    return [
        (case, [None if math.isnan(one[i]) else float(one[i]) for one in columns])
        for i, case in enumerate(comparison.cases)
    ]


def _pictures(comparison: Comparison) -> tuple[list[_Picture], str]:
    """The best, the median and the worst patient, or why there is none."""
    found = []
    chosen = notable(comparison)
    for title, case in chosen.items():
        slices = [(one.pictures or {}).get(case) for one in comparison.competitors]
        shown = [one for one in slices if one is not None]
        if len(shown) < len(slices) or len({(one.number, one.flair.shape) for one in shown}) > 1:
            continue
        titles = [f"{one.label}  Dice {one.scores[case].dice:.2f}" for one in comparison.competitors]
        figure = contour_grid(shown, titles, columns=min(len(shown), 4))
        found.append(_Picture(title, case, embedded(figure, PICTURE_DPI)))
    if len(found) == len(chosen):
        return found, ""
    without = [one.label for one in comparison.competitors if not set(chosen.values()) <= set(one.pictures or {})]
    if without:
        return found, f"{', '.join(without)}: scored without pictures; pass --data for a run, or evaluate again"
    return found, "the competitors show different slices"
