"""NIfTI volumes that are wrong or unusual."""

from __future__ import annotations

from pathlib import Path

from faults.fault import Fault

GROUP = "NIfTI"


def empty(folder: Path) -> Path:
    path = folder / "p.nii"
    path.write_bytes(b"")
    return path


FAULTS = [
    Fault(GROUP, "empty", empty, refused="p.nii"),
]
