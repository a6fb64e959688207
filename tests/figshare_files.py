"""Synthetic slices in the layouts of the figshare brain tumour set: images/ and masks/, and its own MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image


def head(side: int, *, at: tuple[float, float] = (0.625, 0.3), radius: float = 0.06) -> tuple[Any, Any]:
    """A slice (row, column) of a head in uint8, and the mask of its bright blob; places in parts of the side.

    The head fills the slice from 1/8 to 7/8 of its width and 1/16 to 15/16 of its height. `at` is (row, column).
    """
    row, column = (np.mgrid[:side, :side] + 0.5) / side
    inside = ((column - 0.5) / 0.375) ** 2 + ((row - 0.5) / 0.4375) ** 2 < 1
    blob = (row - at[0]) ** 2 + (column - at[1]) ** 2 < radius**2
    image = np.where(blob, 220, np.where(inside, 90 + 20 * np.sin(40 * row) * np.cos(30 * column), 0))
    return image.astype(np.uint8), blob


def write_picture(folder: Path, number: int, image: Any, mask: Any = None, suffix: str = ".png") -> None:
    """`images/<number><suffix>` and `masks/<number><suffix>` (0/255)."""
    for kind, pixels in (("images", image), ("masks", None if mask is None else mask * np.uint8(255))):
        if pixels is not None:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            file = folder / kind / f"{number}{suffix}"
            if suffix == ".tif":
                tifffile.imwrite(file, pixels, photometric="minisblack", metadata=None)
            else:
                Image.fromarray(pixels).save(file)


def write_matlab(folder: Path, number: int, image: Any, mask: Any, pid: str) -> Path:
    """`<number>.mat` as MATLAB 7.3 writes it: HDF5 with each array transposed and its text as uint16."""
    h5py = pytest.importorskip("h5py")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number}.mat"
    with h5py.File(file, "w", userblock_size=512) as content:
        struct = content.create_group("cjdata")
        struct["image"] = np.asarray(image).T.astype(np.int16)
        struct["tumorMask"] = np.asarray(mask).T.astype(np.uint8)
        struct["PID"] = np.frombuffer(pid.encode("utf-16-le"), np.uint16)[:, None]
        struct["label"] = np.array([[2.0]])
        struct["tumorBorder"] = np.array([[10.0, 12.0, 11.0]])
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return file
