"""A DICOM SEG of the tumour as a mask on the grid of the FLAIR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import LPS_TO_RAS, Case
from brainseg.errors import InputError
from brainseg.readers.grid import EDGE, Grid
from brainseg.study import headers
from brainseg.study.segmentation import read_seg_header

MOST_VOXELS = 2**29
AGAIN = "fetch or export it again"


def read_dicom_seg(path: Path, onto: Grid | Case) -> NDArray[np.uint8]:
    """All segments of the tumour together, uint8 0/1 `(X, Y, Z)` on the grid of `onto`.

    A SEG drawn on another series (the T1 after contrast) is brought there by nearest neighbour; slices that it does not
    hold, and what lies beyond its voxels, are 0. Of a fractional SEG a half or more counts. That both share a frame of
    reference is for the caller to know.

    Args:
        path: of the SEG.
        onto: what has the shape `(X, Y, Z)` and affine (voxel index to RAS+ mm) of the FLAIR.

    Raises:
        InputError: it is damaged or no SEG, names no tumour, or its frames do not make one regular grid.
    """
    try:
        numbers = read_seg_header(path).tumour
    except ValueError:
        raise InputError(path, "is not a DICOM SEG that can be read", AGAIN) from None
    if not numbers:
        raise InputError(path, "has no segment that names a tumour", "give a SEG of the tumour")
    with headers.quiet():
        array, affine = _joined(path, numbers)
    return _nearest(array, affine, onto.shape, onto.affine)


def _joined(path: Path, numbers: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The union of segments, indexed (slice, row, column), and the affine of these to RAS+ mm."""
    import highdicom

    try:
        ds = headers.dataset(path, ["NumberOfFrames", "Rows", "Columns"])
        declared = [headers.number(ds, keyword) or 0 for keyword in ("NumberOfFrames", "Rows", "Columns")]
    except ValueError:
        raise InputError(path, "is damaged", AGAIN) from None
    _refuse_huge(path, declared)
    try:
        seg: Any = highdicom.seg.segread(path)
        geometry = seg.get_volume_geometry(allow_missing_positions=True)
    except Exception as error:  # damaged data sets raise anything, and the words may quote them
        raise InputError(path, f"is a damaged DICOM SEG ({type(error).__name__})", AGAIN) from None
    if geometry is None:
        raise InputError(path, "has frames that do not make one regular grid", "resample it, or give a NIfTI mask")
    _refuse_huge(path, geometry.spatial_shape)
    joined = np.zeros(geometry.spatial_shape, dtype=np.bool_)
    try:
        for number in numbers:
            volume = seg.get_volume(segment_numbers=[number], allow_missing_positions=True)
            joined |= volume.array[..., 0] >= 0.5
    except Exception as error:
        raise InputError(path, f"is a damaged DICOM SEG ({type(error).__name__})", AGAIN) from None
    return joined, LPS_TO_RAS @ np.asarray(geometry.affine, dtype=np.float64)


def _refuse_huge(path: Path, sizes: Any) -> None:
    if np.prod([float(size) for size in sizes]) > MOST_VOXELS:
        shown = " x ".join(f"{int(size)}" for size in sizes)
        raise InputError(path, f"has {shown} voxels, more than {MOST_VOXELS}", "crop it")


def _nearest(
    array: NDArray[np.bool_], affine: NDArray[np.float64], shape: tuple[int, int, int], onto: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """`array` at the voxels of another grid; a voxel reaches half its size beyond its centre, as in grid.py."""
    to_source = np.linalg.inv(affine) @ onto
    result = np.zeros(shape, dtype=np.uint8)
    columns, rows = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    for z in range(shape[2]):
        inside = np.ones(shape[:2], dtype=np.bool_)
        indices = []
        for axis, (along_x, along_y, along_z, start) in enumerate(to_source[:3]):
            index = columns * along_x + rows * along_y + (z * along_z + start)
            inside &= (index >= -0.5 - EDGE) & (index < array.shape[axis] - 0.5 - EDGE)
            indices.append(np.clip(np.floor(index + 0.5 + EDGE).astype(np.intp), 0, array.shape[axis] - 1))
        result[..., z] = array[tuple(indices)] & inside
    return result
