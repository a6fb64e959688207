"""follow.csv and follow.html: a patient's volumes over time, with what of a change may be error."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from brainseg.follow import DAYS_PER_MONTH, FOLLOW_FLAGS, Change, Followed, Visit, when_of
from brainseg.units import millilitres
from brainseg.volume_error import LEVEL, LEVELS
from brainseg.writers.atomic import replacing
from brainseg.writers.overlay import contour_grid
from brainseg.writers.page import embedded, rendered
from brainseg.writers.tables import write_table

COLUMNS = (
    "visit",
    "days",
    "volume_ml",
    "low",
    "high",
    "change_ml",
    "change_percent",
    "percent_per_month",
    "beyond_error",
    "exceeds_percent",
    "volume_voxels",
    "flags",
)
CHART_DPI, PICTURE_DPI = 130, 200
BARS = (80, LEVEL)  # of the chart, the thick one first
FEW_DAYS = 120  # up to here the chart counts days, beyond it months


def write_follow(out: Path, followed: Followed) -> None:
    """Writes both files to `out`.

    Raises:
        MachineError: if one cannot be written.
    """
    write_table(out / "follow.csv", COLUMNS, (_cells(visit, change) for visit, change in _rows(followed)))
    page = _page(followed)
    with replacing(out / "follow.html") as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def lines(followed: Followed) -> Iterator[str]:
    """What was found, a line a visit, for the terminal."""
    for number, (visit, change) in enumerate(_rows(followed)):
        volume = (
            f"{visit.voxels} voxels" if visit.volume_ml is None else f"{millilitres(visit.volume_ml)} mL{_range(visit)}"
        )
        words = [f"{visit.name}, {when_of(visit, number)}: {volume}"]
        if change.ml is not None:
            words.append(f"{millilitres(change.ml, signed=True)} mL")
        if change.percent is not None:
            words.append(f"{change.percent:+.0f}%")
        if change.percent_per_month is not None:
            words.append(f"{change.percent_per_month:+.1f}% a month")
        if change.exceeds is not None:
            side = "beyond error" if change.beyond_error else "within error"
            words.append(f"{side} ({_share(change.exceeds)} of unchanged pairs differ by more)")
        yield ", ".join(words) + (f"  [{', '.join(visit.flags)}]" if visit.flags else "")
    yield f"intervals {followed.when}"
    if followed.picture.why:
        yield f"picture: {followed.picture.why}"
    yield from followed.notes


def _rows(followed: Followed) -> Iterator[tuple[Visit, Change]]:
    yield from zip(followed.visits, (Change(), *followed.changes), strict=True)


def _cells(visit: Visit, change: Change) -> tuple[Any, ...]:
    beyond = None if change.beyond_error is None else "yes" if change.beyond_error else "no"
    return (
        visit.name,
        visit.days,
        visit.volume_ml,
        visit.low,
        visit.high,
        change.ml,
        change.percent,
        change.percent_per_month,
        beyond,
        change.exceeds,
        visit.voxels,
        ";".join(visit.flags),
    )


def _range(visit: Visit) -> str:
    if visit.low is None or visit.high is None:
        return ""
    return f" ({millilitres(visit.low)} to {millilitres(visit.high)})"


def _share(exceeds: int) -> str:
    """The share of unchanged pairs that differ by more than a change that `exceeds` this percentage of them."""
    if exceeds == LEVEL:
        return f"fewer than {100 - LEVEL}%"
    if exceeds == 0:
        return f"more than {100 - LEVELS[0]}%"
    above = next(level for below, level in pairwise(LEVELS) if below == exceeds)
    return f"{100 - above} to {100 - exceeds}%"


def _page(followed: Followed) -> str:
    picture = followed.picture
    grid = None
    if picture.rows:
        slices = [one for row in picture.rows for one in row]
        titles = [f"{caption}, slice {row[0].number}" for row in picture.rows for caption in picture.captions]
        grid = embedded(contour_grid(slices, titles, columns=len(picture.captions)), PICTURE_DPI)
    known = list(dict.fromkeys(visit.error for visit in followed.visits if visit.error is not None))
    flagged = {flag: [visit.name for visit in followed.visits if flag in visit.flags] for flag in FOLLOW_FLAGS}
    return rendered(
        "follow.html.j2",
        rows=[_shown(number, *row) for number, row in enumerate(_rows(followed))],
        when=followed.when,
        notes=followed.notes,
        flagged=[(", ".join(names), FOLLOW_FLAGS[flag]) for flag, names in flagged.items() if names],
        errors=[(one, dict(zip(LEVELS, (f"{factor:.2f}" for factor in one.pairs), strict=True))) for one in known],
        level=LEVEL,
        bars=BARS,
        chart=_chart(followed),
        picture=grid,
        why_none=picture.why,
        summary=_summary(followed),
    )


def _shown(number: int, visit: Visit, change: Change) -> dict[str, Any]:
    return {
        "name": visit.name,
        "when": when_of(visit, number),
        "volume": None if visit.volume_ml is None else millilitres(visit.volume_ml),
        "range": _range(visit).strip(" ()") or None,
        "voxels": f"{visit.voxels:,}",
        "ml": None if change.ml is None else millilitres(change.ml, signed=True),
        "percent": None if change.percent is None else f"{change.percent:+.0f}%",
        "rate": None if change.percent_per_month is None else f"{change.percent_per_month:+.1f}%",
        "beyond": None if change.beyond_error is None else "yes" if change.beyond_error else "no",
        "share": None if change.exceeds is None else _share(change.exceeds),
    }


def _summary(followed: Followed) -> list[tuple[str, str, str]]:
    first, last, change = followed.visits[0], followed.visits[-1], followed.changes[-1]
    summary = [("Visits", str(len(followed.visits)), "")]
    if first.days is not None and last.days is not None:
        summary.append(("Interval", f"{last.days} days", f"{last.days / DAYS_PER_MONTH:.1f} months"))
    if first.volume_ml is not None and last.volume_ml is not None:
        summary.append(
            ("First and last volume", f"{millilitres(first.volume_ml)}, {millilitres(last.volume_ml)} mL", "")
        )
    if change.percent is not None:
        side = {True: "beyond error", False: "within error", None: ""}[change.beyond_error]
        summary.append(("Change", f"{change.percent:+.0f}%", side))
    return summary


def _chart(followed: Followed) -> str | None:
    """Volumes over time; none with fewer than two."""
    from brainseg.writers.charts import volume_figure

    known = [(number, visit) for number, visit in enumerate(followed.visits, start=1) if visit.volume_ml is not None]
    if len(known) < 2:
        return None
    days = [visit.days for _, visit in known if visit.days is not None]
    if len(days) < len(known):
        places, across = [float(number) for number, _ in known], "visit"
    elif max(days) <= FEW_DAYS:
        places, across = [float(day) for day in days], "days since the baseline"
    else:
        places, across = [day / DAYS_PER_MONTH for day in days], "months since the baseline"
    volumes = [visit.volume_ml for _, visit in known if visit.volume_ml is not None]
    intervals = [_bars(visit) for _, visit in known]
    return embedded(volume_figure(places, volumes, intervals, across), CHART_DPI)


def _bars(visit: Visit) -> list[tuple[float, float]]:
    """For each of `BARS` from where to where; none where the errors are not known."""
    if visit.volume_ml is None or visit.error is None:
        return []
    bounds = [visit.error.interval(visit.volume_ml, level) for level in BARS]
    return [(low, 0.0 if high is None else high) for low, high in bounds]
