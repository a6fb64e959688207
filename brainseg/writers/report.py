"""The cohort's report: one HTML page with its pictures inside, that asks nothing of any network.

The page's own style and script are allowed by their hashes in its content security policy; everything that comes from
the user's files is escaped by the template.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.errors import InputError
from brainseg.results import CaseDetail, CohortRow, Failure
from brainseg.units import millilitres
from brainseg.writers.atomic import replacing
from brainseg.writers.overlay import NOTICE

if TYPE_CHECKING:
    from PIL.Image import Image

    from brainseg.writers.scroller import Scroller

log = logging.getLogger(__name__)

MOST_LESIONS = 12
MOST_PAGE_BYTES = 60_000_000  # what the pictures of a large cohort share
MOST_PICTURE_BYTES, LEAST_PICTURE_BYTES = 240_000, 40_000  # of a scan's overlay
MOST_SCROLLER_BYTES, LEAST_SCROLLER_BYTES = 1_200_000, 50_000  # of the slices to scroll through
OVERLAY_SHARE = 0.4
BAR_WIDTH = 60
FEWEST_TO_SHARE = 3  # scans that carry one flag, for the table to leave it to a line below

Summary = tuple[str, str, str]


def write_report(
    path: Path,
    rows: Sequence[CohortRow],
    failures: Sequence[Failure],
    run: Mapping[str, Any],
    cases: Mapping[str, CaseDetail],
    *,
    flag_words: Mapping[str, str] | None = None,
) -> None:
    """Writes the report of a cohort as one self-contained page, with what a person should look at first.

    Args:
        path: usually OUT/report.html.
        rows: one a case; failures come first on the page, then those with most flags, else in this order.
        failures: what was not done, why, and what to do.
        run: versions, hashes and settings, as in run.json; long lists are only counted.
        cases: by case name, what is known beyond the row; a case may be absent.
        flag_words: a sentence for each flag; a flag without one is shown with its dashes as spaces.

    Raises:
        InputError: if an overlay cannot be read as a picture.
        MachineError: if the page cannot be written.
    """
    import jinja2

    folder = Path(__file__).parent
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rows = sorted(rows, key=lambda row: (row.status != "failed", -len(row.flags)))
    details = {row.case: cases.get(row.case, CaseDetail()) for row in rows}
    any_volume = any(row.volume_ml is not None for row in rows)
    any_truth = any(detail.truth_ml is not None for detail in details.values())
    shown = _Shown(rows, details, flag_words or {})
    page = environment.get_template("report.html.j2").stream(
        rows=shown,
        failures=failures,
        run=list(_run_lines(run)),
        summary=_summary(rows),
        spread=_spread(rows),
        columns=_columns(any_volume, any_truth),
        any_volume=any_volume,
        any_truth=any_truth,
        any_unknown=any(row.volume_ml is None and row.volume_voxels is not None for row in rows),
        policy=content_policy(style, script),
        style=style,
        script=script,
        notice=NOTICE,
        millilitres=millilitres,
    )
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for part in page:
            stream.write(part)


class _Shown:
    """The rows as the template needs them, made while it runs, so that one picture at a time is in memory."""

    def __init__(
        self, rows: Sequence[CohortRow], details: Mapping[str, CaseDetail], flag_words: Mapping[str, str]
    ) -> None:
        self.rows, self.details, self.flag_words = rows, details, flag_words
        self.largest_ml = max((row.volume_ml or 0.0 for row in rows), default=0.0)
        done = [row.flags for row in rows if row.status != "failed"]
        self.shared = set.intersection(*map(set, done)) if len(done) >= FEWEST_TO_SHARE else set()
        share = MOST_PAGE_BYTES / max(1, sum(detail.overlay is not None for detail in details.values()))
        self.overlay_room = round(min(MOST_PICTURE_BYTES, max(LEAST_PICTURE_BYTES, OVERLAY_SHARE * share)))
        self.scroller_room = round(min(MOST_SCROLLER_BYTES, max(LEAST_SCROLLER_BYTES, share - self.overlay_room)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shared_words(self) -> list[str]:
        """What is flagged of every scan, and so said once."""
        return [self._words(flag) for flag in sorted(self.shared)]

    def _words(self, flag: str) -> str:
        return self.flag_words.get(flag, flag.replace("-", " ").replace("_", " "))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self.rows, start=1):
            yield self._shown(number, row)

    def _shown(self, number: int, row: CohortRow) -> dict[str, Any]:
        detail = self.details[row.case]
        bar = self.largest_ml > 0 and len(self.rows) > 1 and row.volume_ml is not None
        return asdict(row) | {
            "anchor": f"scan-{number}",
            "failed": row.status == "failed",
            "words": [self._words(flag) for flag in row.flags],
            "own_words": [self._words(flag) for flag in row.flags if flag not in self.shared],
            "share": round(BAR_WIDTH * (row.volume_ml or 0) / self.largest_ml, 1) if bar else None,
            "truth_ml": detail.truth_ml,
            "notes": [note[:1].upper() + note[1:] for note in detail.notes],
            "table": detail.lesions[:MOST_LESIONS],
            "any_side": any(lesion.side for lesion in detail.lesions),
            "more": max(0, len(detail.lesions) - MOST_LESIONS),
            "picture": _Picture(detail.overlay, self.overlay_room) if detail.overlay else None,
            "scroller": lambda: self._scroller(detail),
        }

    def _scroller(self, detail: CaseDetail) -> Scroller | None:
        from brainseg.writers.scroller import make_scroller

        if detail.slices is None or detail.mask is None:
            return None
        try:
            return make_scroller(detail.slices, detail.mask, self.scroller_room)
        except InputError as error:  # the page can do without, and shows that it does
            log.warning("no slices to scroll through in the report: %s", error)
            return None


class _Picture:
    """A picture that is read, shrunk and encoded only where the template prints it."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def __str__(self) -> str:
        return picture_uri(self.path, self.limit)


def picture_uri(path: Path, limit: int = MOST_PICTURE_BYTES) -> str:
    """The picture at `path` as a data URI of at most `limit` bytes, as JPEG and smaller where needed.

    Raises:
        InputError: if it cannot be read.
    """
    import PIL.Image

    room = limit * 3 // 4  # base64 makes four characters of three bytes
    try:
        content = path.read_bytes()
        with PIL.Image.open(io.BytesIO(content)) as image:
            kind, picture = image.format, image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # all three come of broken pictures
        raise InputError(path, "cannot be read as a picture", "remove it and run again") from error
    if len(content) > room or kind != "PNG":
        content, kind = _jpeg(picture, room), "JPEG"
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode('ascii')}"


def _jpeg(picture: Image, room: int) -> bytes:
    """JPEG in at most `room` bytes, made coarser and then smaller until it fits."""
    quality, width = 85, min(1400, picture.width)
    while True:
        smaller = picture.copy()
        smaller.thumbnail((width, 4 * width))
        stream = io.BytesIO()
        smaller.save(stream, "JPEG", quality=quality, subsampling=0)  # thin coloured lines stay sharp
        if stream.tell() <= room or width < 100:
            return stream.getvalue()
        quality, width = max(65, quality - 5), round(0.88 * width)


def content_policy(style: str, script: str) -> str:
    """The page may show its own style, script and embedded pictures, and nothing else."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _spread(rows: Sequence[CohortRow]) -> dict[str, Any] | None:
    """The histogram of volumes with the link of each cell, in mL, or in voxels where no scan has a spacing."""
    from brainseg.writers.distribution import distribution

    anchors = {row.case: f"scan-{number}" for number, row in enumerate(rows, start=1)}
    millilitres = {row.case: row.volume_ml for row in rows if row.volume_ml is not None}
    voxels = {row.case: float(row.volume_voxels) for row in rows if row.volume_voxels is not None}
    chart = distribution(millilitres, "mL") if millilitres else distribution(voxels, "voxels")
    return None if chart is None else {"chart": chart, "anchors": anchors}


def _columns(any_volume: bool, any_truth: bool) -> list[tuple[str, str]]:
    """Heading and kind ("text" or "number") of each column of the table of all scans."""
    return [
        ("Scan", "text"),
        ("Status", "text"),
        *([("Volume, mL", "number")] if any_volume else []),
        *([("True volume, mL", "number")] if any_truth else []),
        ("Voxels", "number"),
        ("Lesions", "number"),
        ("Confidence", "number"),
        ("Flags", "number"),
    ]


def _summary(rows: Sequence[CohortRow]) -> list[Summary]:
    failed = sum(row.status == "failed" for row in rows)
    flagged = sum(bool(row.flags) for row in rows)
    volumes = [row.volume_ml for row in rows if row.volume_ml is not None]
    summary = [("Done", str(len(rows) - failed), f"of {len(rows)}"), ("With flags", str(flagged), "")]
    if failed:
        summary.insert(1, ("Not done", str(failed), ""))
    if len(volumes) == 1:
        summary.append(("Volume", f"{millilitres(volumes[0])} mL", ""))
    elif volumes:
        spread = f"{millilitres(min(volumes))} to {millilitres(max(volumes))}, {len(volumes)} scans"
        summary.append(("Median volume", f"{millilitres(statistics.median(volumes))} mL", spread))
    return summary


def _run_lines(run: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`run` as names and short texts: nested names joined by dots, long tables and lists counted."""
    for name, value in run.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping) and len(value) <= 12:
            yield from _run_lines(value, f"{label}.")
        elif isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(value) > 12):
            yield label, f"{len(value)} entries, in run.json"
        elif isinstance(value, list | tuple):
            yield label, " ".join(str(item) for item in value)
        elif value is not None:
            yield label, str(value)
