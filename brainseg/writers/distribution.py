"""How the volumes of a cohort are spread, as a histogram made of one cell a scan."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

MOST_BINS = 24
MOST_TICKS = 8
WIDTH, HEIGHT = 720.0, 90.0
TALLEST = 16.0  # of a cell
FEWEST = 3


@dataclass(frozen=True)
class Cell:
    """A scan's place in the histogram, in its units; y grows downwards."""

    case: str
    volume: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Distribution:
    """A histogram of width `WIDTH`.

    Attributes:
        cells: one a scan, stacked in bins of a round width.
        height: of the tallest stack.
        ticks: place and label along the axis.
        median: place of the median.
        words: what it shows, for those who cannot see it.
        unit: "mL", or "voxels" where no scan has a spacing.
    """

    cells: tuple[Cell, ...]
    height: float
    ticks: tuple[tuple[float, str], ...]
    median: float
    words: str
    unit: str


def distribution(volumes: Mapping[str, float], unit: str) -> Distribution | None:
    """The histogram of volumes by case; None for fewer than three."""
    if len(volumes) < FEWEST:
        return None
    largest = max(volumes.values())
    step = _round_step(largest / MOST_BINS)
    bins = int(largest // step) + 1
    wide = WIDTH / bins
    members: list[list[str]] = [[] for _ in range(bins)]
    for case, volume in sorted(volumes.items(), key=lambda item: item[1]):
        members[int(volume // step)].append(case)
    most = max(map(len, members))
    tall = min(TALLEST, HEIGHT / most)
    height, gap = most * tall, 1.0 if tall > 3 else 0.0  # finer gaps would shimmer
    cells = tuple(
        Cell(case, volumes[case], k * wide + 0.5, height - (place + 1) * tall, wide - 1, tall - gap)
        for k, one in enumerate(members)
        for place, case in enumerate(one)
    )
    every = math.ceil((bins + 1) / MOST_TICKS)
    ticks = tuple((k * wide, f"{k * step:,.10g}") for k in range(0, bins + 1, every))
    median = statistics.median(volumes.values())
    quarters = statistics.quantiles(volumes.values(), n=4, method="inclusive")
    words = f"median {_volume(median)} {unit}, middle half {_volume(quarters[0])} to {_volume(quarters[2])} {unit}"
    return Distribution(cells, height, ticks, median / step * wide, words, unit)


def _volume(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, 50 ... (or a tenth of them, and so on) that is at least `least`."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least)
