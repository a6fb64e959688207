"""TIFF slices that are wrong or unusual."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from faults.fault import Fault

GROUP = "TIFF"


def slices(folder: Path, count: int = 4) -> list[Path]:
    """Sound colour slices `p_1.tif` and on, a bright square in the FLAIR of each."""
    paths = []
    for number in range(1, count + 1):
        pixels = np.full((64, 64, 3), 80, np.uint8)
        pixels[20:40, 20:40] = 200
        paths.append(folder / f"p_{number}.tif")
        tifffile.imwrite(paths[-1], pixels, photometric="rgb")
    return paths


def empty(folder: Path) -> None:
    slices(folder)[1].write_bytes(b"")


def sixteen_bit(folder: Path) -> None:
    for path in slices(folder):
        tifffile.imwrite(path, tifffile.imread(path).astype(np.uint16) * 100, photometric="rgb")


FAULTS = [
    Fault(GROUP, "empty file", empty, refused="p_2.tif"),
    Fault(GROUP, "16 bit", sixteen_bit),
]
