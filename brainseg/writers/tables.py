"""cohort.csv, lesions.csv, slices.csv, failures.json and run.json; the CSV files read back to what was written."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from brainseg.errors import InputError
from brainseg.measures import Lesion
from brainseg.presence import SlicePresence
from brainseg.results import CohortRow, Failure
from brainseg.writers.atomic import replacing

COHORT_COLUMNS = (
    "case",
    "status",
    "volume_ml",
    "volume_voxels",
    "lesions",
    "confidence",
    "flags",
    "seconds",
    "input",
    "error",
)
INTERVAL_COLUMNS = ("volume_low_ml", "volume_high_ml")
LESION_COLUMNS = (
    "lesion",
    "volume_ml",
    "voxels",
    "centroid_x_mm",
    "centroid_y_mm",
    "centroid_z_mm",
    "centroid_i",
    "centroid_j",
    "centroid_k",
    "diameter_mm",
    "diameter_pixels",
    "first_slice",
    "last_slice",
    "confidence",
)
BOX_COLUMNS = (  # after those that every lesions.csv has had
    *(f"box_{end}_{axis}" for end in ("first", "last") for axis in "ijk"),
    *(f"box_{end}_{axis}_mm" for end in ("low", "high") for axis in "xyz"),
)
SPHERICITY, SIDE = "sphericity", "side"
LATER_COLUMNS = (*BOX_COLUMNS, SPHERICITY, SIDE)
SLICE_COLUMNS = ("slice", "area_voxels", "area_mm2", "probability", "present")

# A spreadsheet runs a cell that begins so. An apostrophe before it disarms it; cells that already look disarmed get
# one more, so that reading can take exactly one away.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_UNKNOWN = (None, None, None)
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def write_cohort(path: Path, rows: Iterable[CohortRow]) -> None:
    """Writes cohort.csv: a row a case in the given order; what is unknown stays blank, flags are joined by ";"."""
    write_table(path, (*COHORT_COLUMNS, *INTERVAL_COLUMNS), (_cohort_cells(row) for row in rows))


def read_cohort(path: Path) -> list[CohortRow]:
    """The rows of a cohort.csv that `write_cohort` wrote; numbers have its six significant digits.

    Raises:
        InputError: if it is not such a table.
    """
    return [
        _row_or_error(path, number, _cohort_row, cells)
        for number, cells in enumerate(_read_csv(path, COHORT_COLUMNS, INTERVAL_COLUMNS), start=2)
    ]


def write_lesions(path: Path, lesions: Iterable[Lesion]) -> None:
    """Writes lesions.csv: a row a lesion, numbered from 1.

    Centroids and boxes are RAS+ mm (x, y, z) and voxel indices counted from 0 (i, j, k), of a box the first and the
    last, both included; slices are counted from 1, as viewers do, also where file names begin with another number.
    Millimetres and millilitres are blank where the spacing is unknown. The side is the patient's own left or right of
    the head's midline, "both" where at least a tenth of the lesion lies on either side; it is blank where slices stand
    alone or may be of any plane, and where the head has no halves that are alike.
    """
    rows = (_lesion_cells(number, lesion) for number, lesion in enumerate(lesions, start=1))
    write_table(path, (*LESION_COLUMNS, *LATER_COLUMNS), rows)


def read_lesions(path: Path) -> list[Lesion]:
    """The lesions of a lesions.csv that `write_lesions` wrote, now or before it had boxes or sides.

    Raises:
        InputError: if it is not such a table.
    """
    return [
        _row_or_error(path, number, _lesion, cells)
        for number, cells in enumerate(_read_csv(path, LESION_COLUMNS, LATER_COLUMNS[:-1], LATER_COLUMNS), start=2)
    ]


def write_slices(path: Path, slices: Iterable[SlicePresence]) -> None:
    """Writes slices.csv: a row an axial slice, counted from 1; mm2 are blank where the spacing is unknown."""
    rows = (
        (one.number, one.area_voxels, one.area_mm2, one.probability, "yes" if one.present else "no") for one in slices
    )
    write_table(path, SLICE_COLUMNS, rows)


def read_presence(path: Path) -> list[float]:
    """The probability of each slice in a slices.csv that `write_slices` wrote.

    Raises:
        InputError: if it is not such a table.
    """
    rows = enumerate(_read_csv(path, SLICE_COLUMNS), start=2)
    return [_row_or_error(path, number, lambda cells: float(cells["probability"]), cells) for number, cells in rows]


def write_failures(path: Path, failures: Iterable[Failure]) -> None:
    """Writes failures.json: a list of objects with case, input, cause and remedy."""
    write_json(path, [asdict(failure) for failure in failures])


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """Writes run.json: versions, command, hashes and settings as given, paths as text."""
    write_json(path, run)


def write_json(path: Path, value: Any) -> None:
    """Writes strict JSON, indented, UTF-8; NaN and infinity become null, paths and numpy numbers plain values."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as partial:
        partial.write_bytes(_encoded(text + "\n"))


def _cohort_cells(row: CohortRow) -> tuple[Any, ...]:
    cells = asdict(row) | {"flags": ";".join(flag.replace(";", ",") for flag in row.flags)}
    return tuple(cells[column] for column in (*COHORT_COLUMNS, *INTERVAL_COLUMNS))


def _cohort_row(cells: Mapping[str, str]) -> CohortRow:
    return CohortRow(
        case=cells["case"],
        status=cells["status"],
        volume_ml=_float(cells["volume_ml"]),
        volume_voxels=_int(cells["volume_voxels"]),
        lesions=_int(cells["lesions"]),
        confidence=_float(cells["confidence"]),
        flags=tuple(flag for flag in cells["flags"].split(";") if flag),
        seconds=_float(cells["seconds"]),
        input=cells["input"],
        error=cells["error"],
        volume_low_ml=_float(cells.get("volume_low_ml", "")),
        volume_high_ml=_float(cells.get("volume_high_ml", "")),
    )


def _lesion_cells(number: int, lesion: Lesion) -> tuple[Any, ...]:
    return (
        number,
        lesion.volume_ml,
        lesion.voxels,
        *(lesion.centroid_mm or _UNKNOWN),
        *lesion.centroid_voxel,
        lesion.diameter_mm,
        lesion.diameter_pixels,
        lesion.first_slice + 1,
        lesion.last_slice + 1,
        lesion.confidence,
        *(index for end in lesion.box_voxel or (_UNKNOWN, _UNKNOWN) for index in end),
        *(place for end in lesion.box_mm or (_UNKNOWN, _UNKNOWN) for place in end),
        lesion.sphericity,
        lesion.side,
    )


def _lesion(cells: Mapping[str, str]) -> Lesion:
    x, y, z = (_float(cells[f"centroid_{axis}_mm"]) for axis in "xyz")
    return Lesion(
        voxels=int(cells["voxels"]),
        volume_ml=_float(cells["volume_ml"]),
        centroid_voxel=(float(cells["centroid_i"]), float(cells["centroid_j"]), float(cells["centroid_k"])),
        centroid_mm=None if x is None or y is None or z is None else (x, y, z),
        diameter_mm=_float(cells["diameter_mm"]),
        diameter_pixels=float(cells["diameter_pixels"]),
        first_slice=int(cells["first_slice"]) - 1,
        last_slice=int(cells["last_slice"]) - 1,
        confidence=_float(cells["confidence"]),
        box_voxel=_box(cells, BOX_COLUMNS[:6], int),
        box_mm=_box(cells, BOX_COLUMNS[6:], float),
        sphericity=_float(cells.get(SPHERICITY, "")),
        side=cells.get(SIDE, ""),
    )


def _box(cells: Mapping[str, str], columns: Sequence[str], number: Callable[[str], Any]) -> Any:
    """First and last corner of a box, or None where the table leaves it out."""
    values = [cells.get(column) or None for column in columns]
    known = tuple(number(value) for value in values if value is not None)
    return (known[:3], known[3:]) if len(known) == len(columns) else None


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV with a heading; None is blank, and no cell is taken for a formula by a spreadsheet."""
    lines: list[str] = []
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")  # so that it quotes both
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    text = "".join(line.removesuffix("\r\n") + "\n" for line in lines)
    with replacing(path) as partial:
        partial.write_bytes(_encoded(text))


def read_table(path: Path, remedy: str) -> tuple[list[str], list[dict[str, str]]]:
    """Heading and rows of a CSV that `write_table` wrote, cells as text.

    Raises:
        InputError: if it is not such a table; `remedy` says what to do.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            header, *rows = [[_uncell(cell) for cell in row] for row in csv.reader(lines, strict=True)] or [[]]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(path, f"cannot be read as CSV ({error})", remedy) from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(path, f"row {number} has {len(row)} cells, the heading {len(header)}", remedy)
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def _read_csv(path: Path, columns: Sequence[str], *later: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a table with `columns` alone, or with those of one of the `later` versions after them."""
    header, rows = read_table(path, "run segment again, or brainseg report")
    if header not in ([*columns, *more] for more in ((), *later)):
        raise InputError(path, f"does not have the columns {','.join(columns)}", "run segment again")
    return rows


def _row_or_error(path: Path, number: int, build: Any, cells: Mapping[str, str]) -> Any:
    try:
        return build(cells)
    except ValueError as error:
        raise InputError(path, f"row {number} holds {error}", "run segment again") from error


def _cell(value: Any) -> str:
    """One CSV cell: blank for None and NaN, six significant digits for a float, text disarmed."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return "minus inf" if value == -math.inf else f"{value:.6g}"  # a spreadsheet would compute -inf
    text = str(value)
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def _uncell(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _encoded(text: str) -> bytes:
    """UTF-8, with an escape for what a file name may hold and UTF-8 may not."""
    return text.encode("utf-8", errors="backslashreplace")


def _float(text: str) -> float | None:
    return float(text) if text else None


def _int(text: str) -> int | None:
    return int(text) if text else None


def _plain(value: Any) -> Any:
    """`value` with nothing but what strict JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if hasattr(value, "tolist"):  # numpy arrays and numbers
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
