"""pictures.npz: a slice of each scored patient with both contours, to be looked at side by side with others later.

Grey values are kept in eight bits, which is what a screen shows.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.axial import GREYS, AxialSlice, in_eight_bits
from brainseg.errors import InputError
from brainseg.writers.atomic import replacing


def write_pictures(path: Path, pictures: Mapping[str, AxialSlice]) -> None:
    """Writes a slice a patient, by case name; one without truth gets an empty array for it."""
    arrays: dict[str, Any] = {"cases": np.array(list(pictures), str)}
    for k, one in enumerate(pictures.values()):
        arrays[f"flair_{k}"] = in_eight_bits(one.flair)
        arrays[f"mask_{k}"] = one.mask
        arrays[f"truth_{k}"] = np.zeros((0, 0), bool) if one.truth is None else one.truth
        width_mm = np.nan if one.width_mm is None else one.width_mm
        arrays[f"place_{k}"] = np.array([one.number, one.count, one.aspect, width_mm])
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_pictures(path: Path) -> dict[str, AxialSlice]:
    """The slices that `write_pictures` wrote, by case name.

    Raises:
        InputError: if it is not such a file.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {str(case): _slice(arrays, k) for k, case in enumerate(arrays["cases"])}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        cause = f"cannot be read as pictures ({type(error).__name__})"
        raise InputError(path, cause, "remove it, or evaluate again") from error


def _slice(arrays: Mapping[str, np.ndarray], k: int) -> AxialSlice:
    number, count, aspect, width_mm = arrays[f"place_{k}"].tolist()
    truth = arrays[f"truth_{k}"]
    return AxialSlice(
        number=int(number),
        count=int(count),
        flair=(arrays[f"flair_{k}"] / GREYS).astype(np.float32),
        mask=arrays[f"mask_{k}"],
        truth=truth if truth.size else None,
        aspect=aspect,
        width_mm=None if np.isnan(width_mm) else width_mm,
    )
