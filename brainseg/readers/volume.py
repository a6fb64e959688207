"""What every reader gives: one sequence as an array on its own grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Spacing


@dataclass(frozen=True)
class Volume:
    """One sequence on its own grid, before the channels of a Case are put together.

    Attributes:
        array: float32 `(X, Y, Z)`, finite.
        affine: float64 `(4, 4)`, voxel index to RAS+ mm (voxels where `spacing_mm` is None).
        spacing_mm: size of a voxel along X, Y, Z; None where the source does not say.
        files: in order of Z where there is one a slice, else one.
        notes: what the reader did or saw that the user should know.
        frame: DICOM's frame of reference; empty where there is none. Positions of two frames cannot be compared.
        filled: indices along Z that no file holds, interpolated across a gap (`allow_gap`); `files` passes over them.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing_mm: Spacing | None
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    filled: tuple[int, ...] = ()
    frame: str = ""
