"""case.json: what a case was made from, what was written of it, and so whether it is done and as it was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Case, Spacing
from brainseg.midline import Midline
from brainseg.results import CohortRow
from brainseg.weights import file_sha256

RECORD, MASK = "case.json", "mask.nii.gz"


@dataclass(frozen=True)
class Record:
    """One case as it was written.

    Attributes:
        fingerprint: of inputs, settings and weights.
        inputs: SHA-256 of every input file, by its path relative to the input.
        notes: of the reader.
        row: of cohort.csv.
        shape, affine, spacing_mm: of the scan's grid, as in `Case`.
        made, confidence, interval_ml: of the network's own mask: SHA-256 of mask.nii.gz, confidence of the case, and
            lowest and highest true volume that it may stand for.
        files: SHA-256 of every file as it was last written or measured.
        truth_ml: the true volume, where it is known.
        midline: of the head, where it is known; a mask that is corrected is measured with it.
    """

    fingerprint: str
    inputs: dict[str, str]
    notes: tuple[str, ...]
    row: CohortRow
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    spacing_mm: Spacing | None
    made: str
    confidence: float | None
    files: dict[str, str]
    truth_ml: float | None = None
    interval_ml: tuple[float | None, float | None] = (None, None)
    midline: Midline | None = None

    def whole(self, folder: Path) -> bool:
        """Whether no file is gone from `folder`, and the mask is the one that was measured."""
        there = all((folder / name).is_file() for name in self.files)
        return there and file_sha256(folder / MASK) == self.files[MASK]

    def edited(self, folder: Path) -> bool:
        """Whether the mask in `folder` is not the one that the network made."""
        return (folder / MASK).is_file() and file_sha256(folder / MASK) != self.made


def new_record(
    folder: Path,
    case: Case,
    made_from: str,
    inputs: dict[str, str],
    notes: Sequence[str],
    row: CohortRow,
    truth_ml: float | None,
    midline: Midline | None,
) -> Record:
    """The record of a case whose results lie in `folder`; the other arguments are the attributes of `Record`."""
    files = hashes_of(folder)
    grid = case.shape, case.affine, case.spacing_mm
    made = files[MASK], row.confidence
    interval_ml = row.volume_low_ml, row.volume_high_ml
    return Record(made_from, inputs, tuple(notes), row, *grid, *made, files, truth_ml, interval_ml, midline)


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file directly in `folder` but the record itself."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: file_sha256(path) for path in files if path.name != RECORD}


def write_record(folder: Path, record: Record) -> None:
    """Says in `folder` that the case is done: written last, so that a case without it is done again."""
    from brainseg.writers.tables import write_json

    write_json(folder / RECORD, asdict(record))


def read_record(folder: Path) -> Record | None:
    """What `write_record` wrote; None where the case is not done, or was by a version that wrote less."""
    try:
        content: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        row = {**content["row"], "case": folder.name, "flags": tuple(content["row"]["flags"])}
        x, y, z = (int(size) for size in content["shape"])
        spacing_mm = content["spacing_mm"]
        low, high = content.get("interval_ml") or (row.get("volume_low_ml"), row.get("volume_high_ml"))
        plane = _plane(content.get("midline"))
        record = Record(
            fingerprint=content["fingerprint"],
            inputs=dict(content["inputs"]),
            notes=tuple(str(note) for note in content["notes"]),
            row=CohortRow(**row),
            shape=(x, y, z),
            affine=np.array(content["affine"], np.float64).reshape(4, 4),
            spacing_mm=None
            if spacing_mm is None
            else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
            made=content["made"],
            confidence=content["confidence"],
            files=dict(content["files"]),
            truth_ml=content["truth_ml"],
            interval_ml=(low, high),
            midline=None if plane is None else Midline(plane),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return record if MASK in record.files else None


def _plane(midline: Any) -> tuple[float, float, float, float] | None:
    if midline is None:
        return None
    a, b, c, d = (float(value) for value in midline["plane"])
    return a, b, c, d
