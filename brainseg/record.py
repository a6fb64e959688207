"""case.json: what a case was made from, what was written of it, and so whether it is done and as it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Spacing
from brainseg.midline import Midline
from brainseg.quality import Head
from brainseg.results import CohortRow
from brainseg.study import walk
from brainseg.weights import file_sha256

RECORD, MASK = walk.RECORD, "mask.nii.gz"

Network = tuple[str, str, float]  # name of a bundle, SHA-256 of its weights, threshold


@dataclass(frozen=True)
class Made:
    """What the network made of a case, whatever a person has changed since.

    Attributes:
        mask: SHA-256 of mask.nii.gz.
        confidence: of the case.
        flags: of the case.
        networks: that made it; None where an earlier version did not record it.
        errors_of: by which of `volume_error.VOLUME_ERRORS` the volume may err; empty where none speaks of such a case.
        head: in the scan; None where an earlier version did not record it.
    """

    mask: str
    confidence: float | None
    flags: tuple[str, ...]
    networks: tuple[Network, ...] | None = None
    errors_of: str = ""
    head: Head | None = None


@dataclass(frozen=True)
class Record:
    """One case as it was written.

    Attributes:
        fingerprint: of inputs, settings and weights.
        inputs: SHA-256 of every input file, by its path relative to the input.
        notes: of the reader.
        row: of cohort.csv.
        shape, affine, spacing_mm: of the scan's grid, as in `Case`.
        made: what the network made.
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
    made: Made
    files: dict[str, str]
    truth_ml: float | None = None
    midline: Midline | None = None

    def whole(self, folder: Path) -> bool:
        """Whether no file is gone from `folder`, and the mask is the one that was measured."""
        there = all((folder / name).is_file() for name in self.files)
        return there and file_sha256(folder / MASK) == self.files[MASK]

    def edited(self, folder: Path) -> bool:
        """Whether the mask in `folder` is not the one that the network made."""
        return (folder / MASK).is_file() and file_sha256(folder / MASK) != self.made.mask


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
            made=made_of(content),
            files=dict(content["files"]),
            truth_ml=content["truth_ml"],
            midline=None if plane is None else Midline(plane),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return record if MASK in record.files else None


def made_of(content: Mapping[str, Any]) -> Made:
    """What a record's JSON says that the network made."""
    made = content["made"]
    if isinstance(made, str):  # of a version that wrote less
        return Made(made, content["confidence"], tuple(content["row"]["flags"]))
    head = made["head"]
    return Made(
        mask=made["mask"],
        confidence=made["confidence"],
        flags=tuple(made["flags"]),
        networks=tuple((str(name), str(weights), float(cut)) for name, weights, cut in made["networks"]),
        errors_of=made["errors_of"],
        head=None if head is None else Head(float(head["voxels"]), bool(head["cut_off"])),
    )


def _plane(midline: Any) -> tuple[float, float, float, float] | None:
    if midline is None:
        return None
    a, b, c, d = (float(value) for value in midline["plane"])
    return a, b, c, d
