"""Charts: patients as dots and boxes, curves of trainings, ROC curves, volumes over time; figures without pyplot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.units import millilitres

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from brainseg.history import History
    from brainseg.statistics import Figure as Summary

# Okabe and Ito, Color Universal Design, 2008: apart in every common form of colour blindness
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
FAINT = "#626b76"
LINE = "#d9dde2"
MOST_ACROSS = 3
PANEL = 4.4  # inches
LONGEST_LABEL = 32
Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def dice_figure(dice: NDArray[np.float64], labels: Sequence[str]) -> Figure:
    """Dice (competitors, patients): every other against the first, a dot a patient, then a box for each."""
    panels = len(labels)
    across = 2 if panels == 4 else min(MOST_ACROSS, panels)
    down = math.ceil(panels / across)
    figure = _figure(across * PANEL, down * PANEL)
    low = _floor(dice)
    for k in range(1, panels):
        axes = figure.add_subplot(down, across, k)
        axes.plot([low, 1], [low, 1], color=FAINT, linewidth=0.8, zorder=1)
        axes.scatter(dice[0], dice[k], s=22, color=_colour(k), alpha=0.75, linewidths=0, zorder=2, clip_on=False)
        axes.set(xlim=(low, 1), ylim=(low, 1), aspect="equal")
        axes.set_xlabel(f"Dice of {_short(labels[0])}", parse_math=False, color=_colour(0))
        axes.set_ylabel(f"Dice of {_short(labels[k])}", parse_math=False, color=_colour(k))
        _tidy(axes)
    _boxes(figure.add_subplot(down, across, panels), dice, labels, low)
    return figure


def history_figure(histories: Mapping[str, Sequence[History]]) -> Figure:
    """Training loss and validation Dice over the epochs: a colour a competitor (label -> its runs), a line a run."""
    figure = _figure(2 * PANEL, 0.75 * PANEL)
    loss, dice = figure.subplots(1, 2)
    for k, runs in enumerate(histories.values()):
        for run in runs:
            style: dict[str, Any] = {"color": _colour(k), "alpha": 0.85, "linewidth": 1.2}
            loss.plot(*run.loss.T, marker="o" if len(run.loss) == 1 else None, markersize=3, **style)
            dice.plot(*run.dice.T, marker="o", markersize=3, clip_on=False, **style)
    loss.set_ylabel("training loss")
    dice.set_ylabel("validation Dice, mean of patients")
    reached = [run.dice[:, 1] for runs in histories.values() for run in runs]
    dice.set_ylim(_floor(np.concatenate(reached)), 1)
    if not any(map(len, reached)):
        dice.text(0.5, 0.5, "no validation recorded", transform=dice.transAxes, ha="center", color=FAINT, size=9)
    _name_colours(loss, {label: _colour(k) for k, (label, runs) in enumerate(histories.items()) if runs})
    for axes in (loss, dice):
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        _tidy(axes)
    return figure


def roc_figure(curves: Mapping[str, Curve], figures: Sequence[Summary]) -> Figure:
    """ROC curves of "slices" and "patients" (thresholds, sensitivity, specificity), and where the mask stands on each.

    `figures` are those of the evaluation, from which sensitivity and specificity of the mask and the area come.
    """
    known = {one.metric: one for one in figures}
    figure = _figure(2 * PANEL, PANEL)
    for axes, (of, (_, sensitivity, specificity)) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        unit = of.removesuffix("s")
        found, spared, area = (known[f"{unit} detection, {what}"] for what in ("sensitivity", "specificity", "AUC"))
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=f"1 - specificity, {of}", ylabel=f"sensitivity, {of}")
        _tidy(axes)
        words = [f"mask: sensitivity {_told(found)}", f"mask: specificity {_told(spared)}", f"area {_told(area)}"]
        if not math.isnan(area.value):
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
            style: dict[str, Any] = {"linewidth": 1.6, "clip_on": False}
            curve = "highest probability, before clean-up"
            axes.plot([0, *(1 - specificity)], [0, *sensitivity], color=_colour(0), label=curve, **style)
            point = "mask, after clean-up"
            axes.plot(1 - spared.value, found.value, "o", color=_colour(1), markersize=7, label=point, clip_on=False)
            axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.15))
        axes.text(0.97, 0.04, "\n".join(words), transform=axes.transAxes, ha="right", va="bottom", size=8)
    return figure


def _told(one: Summary) -> str:
    if math.isnan(one.value):
        return f"not defined: {one.note}"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def volume_figure(
    places: Sequence[float], volumes: Sequence[float], intervals: Sequence[Sequence[tuple[float, float]]], across: str
) -> Figure:
    """Volumes in mL over time, with bars of the true volumes that each may come from.

    Args:
        places: of the visits along the horizontal axis.
        volumes: of the visits, mL.
        intervals: for each visit the bars (lowest, highest), the thickest first, or none.
        across: what the horizontal axis is.
    """
    figure = _figure(2 * PANEL, 0.8 * PANEL)
    axes = figure.add_subplot()
    for place, bars in zip(places, intervals, strict=True):
        for (low, high), width in zip(bars, (5.0, 1.2), strict=False):
            axes.plot([place, place], [low, high], color=_colour(0), alpha=0.35, linewidth=width)
    axes.plot(places, volumes, color=_colour(0), linewidth=1.2, marker="o", markersize=6)
    for place, volume in zip(places, volumes, strict=True):
        axes.annotate(millilitres(volume), (place, volume), (7, 4), textcoords="offset points", size=8)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.08)
    axes.set_xlabel(across)
    axes.set_ylabel("volume, mL")
    _tidy(axes)
    return figure


def _boxes(axes: Axes, dice: NDArray[np.float64], labels: Sequence[str], low: float) -> None:
    """A box from quartile to quartile with the median, whiskers to 1.5 times its length, each patient beside it."""
    places = np.arange(1, len(labels) + 1)
    values = [one[~np.isnan(one)] for one in dice]
    boxes = axes.boxplot(values, positions=places - 0.14, widths=0.3, showfliers=False, patch_artist=True)
    aside = np.random.default_rng(0).uniform(0.1, 0.3, dice.shape[1])
    for k, place in enumerate(places):
        boxes["boxes"][k].set(facecolor=_colour(k), alpha=0.35, edgecolor=_colour(k))
        for part in (*boxes["whiskers"][2 * k : 2 * k + 2], *boxes["caps"][2 * k : 2 * k + 2]):
            part.set(color=_colour(k))
        boxes["medians"][k].set(color=_colour(k), linewidth=2)
        axes.scatter(place + aside, dice[k], s=9, color=_colour(k), alpha=0.7, linewidths=0, clip_on=False)
    axes.set(xlim=(0.5, len(labels) + 0.5), ylim=(low, 1))
    axes.set_xticks(places, [_short(label) for label in labels], parse_math=False)
    if max(map(len, labels)) * len(labels) > 36:
        axes.tick_params(axis="x", rotation=20)
    axes.set_ylabel("Dice")
    _tidy(axes)


def _floor(dice: NDArray[np.float64]) -> float:
    """A round number below all of `dice`, for axes that two charts share."""
    known = dice[~np.isnan(dice)]
    return max(0.0, math.floor(10 * float(known.min(initial=1.0)) - 0.2) / 10)


def _name_colours(axes: Axes, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=str(k)) for k, colour in enumerate(colours.values())]
    legend = axes.legend(handles=handles, frameon=False, fontsize=8)
    for text, label in zip(legend.get_texts(), colours, strict=True):  # a label that begins with _ would be left out
        text.set_parse_math(False)
        text.set_text(_short(label))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="#ffffff", layout="constrained")


def _tidy(axes: Axes) -> None:
    axes.grid(True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)
    axes.tick_params(labelsize=8, length=0, colors=FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _short(label: str) -> str:
    from brainseg.writers.overlay import drawable

    return drawable(label, LONGEST_LABEL)
