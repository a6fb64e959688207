"""Building blocks of DICOM inputs: a series of a small head, sound but for what is done to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from dicom_files import series, write
from faults.fault import Builder
from pydicom.dataset import FileDataset

SLICES, ROWS, COLUMNS = 5, 32, 32
SPACING = (0.9375, 0.9375, 3.0)
START = (-10.0, -20.0, 30.0)
AFFINE = [[-0.9375, 0, 0, 10], [0, -0.9375, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
STUDY = "1.2.3"
Spoil = Callable[[list[FileDataset]], Any]


def head() -> np.ndarray:
    """A head `(slice, row, column)` with something bright that lies in the middle of no axis."""
    array = np.full((SLICES, ROWS, COLUMNS), 10, np.uint16)
    array[:, 2:30, 4:28] = 100
    array[bright()] = 220
    return array


def bright() -> np.ndarray:
    """What `head` has of brightness and a right mask must have, `(slice, row, column)`."""
    where = np.zeros((SLICES, ROWS, COLUMNS), dtype=np.bool_)
    where[1:4, 5:15, 17:26] = True
    return where


def sound(array: np.ndarray | None = None, **tags: Any) -> list[FileDataset]:
    return series(head() if array is None else array, **{"spacing": SPACING, "start": START, **tags})


def right(results: Path, tolerance_mm: float = 1e-3) -> None:
    """The mask is the bright part of `head`, where its tags say that it lies."""
    mask = nibabel.load(results / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine, AFFINE, atol=tolerance_mm)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), bright().transpose(2, 1, 0))


def nearly_right(results: Path) -> None:
    """As `right`, of slices that are up to 0.02 mm off the grid."""
    right(results, tolerance_mm=0.02)


def of(spoil: Spoil, array: np.ndarray | None = None, **tags: Any) -> Builder:
    """Builds a sound series that `spoil` was done to before it was written."""

    def build(folder: Path) -> None:
        instances = sound(array, **tags)
        spoil(instances)
        write(folder, instances)

    return build


def made_of(array: np.ndarray | None = None, **tags: Any) -> Builder:
    """Builds a series made of `array` with `tags` from the start."""
    return of(lambda _: None, array, **tags)


def differing(which: slice, **tags: Any) -> Builder:
    """Builds a series of which some instances have other `tags`, or lack those that are None."""

    def spoil(instances: list[FileDataset]) -> None:
        for ds in instances[which]:
            for keyword, value in tags.items():
                if value is None:
                    delattr(ds, keyword)
                else:
                    setattr(ds, keyword, value)

    return of(spoil)


def one(**tags: Any) -> Builder:
    """Builds a series of which the third instance, `IM0017.dcm`, differs."""
    return differing(slice(2, 3), **tags)


def every(**tags: Any) -> Builder:
    """Builds a series that has all else as `tags`, or lacks it."""
    return differing(slice(None), **tags)


def moved(number: int, x: float = 0, z: float = 0) -> Builder:
    """Builds a series of which one instance lies elsewhere, in mm."""
    position = [START[0] + x, START[1], START[2] + number * SPACING[2] + z]
    return differing(slice(number, number + 1), ImagePositionPatient=position)


def bytes_of(change: Callable[[bytes], bytes], which: slice = slice(2, 3), **tags: Any) -> Builder:
    """Builds a series of which some files are changed after they were written."""

    def build(folder: Path) -> None:
        for path in write(folder, sound(**tags))[which]:
            path.write_bytes(change(path.read_bytes()))

    return build


def compressed(syntax: str, spoil: Spoil = lambda _: None) -> Builder:
    """Builds a compressed series, and does something to it before it is written."""

    def compress(instances: list[FileDataset]) -> None:
        for ds in instances:
            ds.compress(syntax)
        spoil(instances)

    return of(compress)


def beside(*others: list[FileDataset]) -> Builder:
    """Builds a sound series of the study `STUDY` and others of it, all in one folder."""

    def build(folder: Path) -> None:
        write(folder, sound(StudyInstanceUID=STUDY))
        for number, instances in enumerate(others):
            write(folder, instances, suffix=f".{number}")

    return build
