"""From one voxel grid to another: whether two are the same, and linear interpolation where they are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainseg.readers.volume import Volume

Shape = tuple[int, int, int]
SAME = 1e-4  # voxels: nearer to each other, two places are one
EDGE = 1e-9  # voxels: a point on the border is inside whatever the last bit says


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: (X, Y, Z).
        affine: float64 `(4, 4)`, voxel index to RAS+ mm.
    """

    shape: Shape
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """A volume on another grid.

    Attributes:
        array: float32 (X, Y, Z), 0 outside the field of view.
        inside: bool (X, Y, Z), the voxels whose centre lies in a voxel of the source.
    """

    array: NDArray[np.float32]
    inside: NDArray[np.bool_]


def farthest_mm(shape: Shape, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest distance in mm between where two affines (4x4) place the corner voxels of a grid of `shape`."""
    corners = np.array(list(np.ndindex(2, 2, 2)), dtype=np.float64) * (np.array(shape) - 1)
    homogeneous = np.column_stack([corners, np.ones(len(corners))])
    return float(np.linalg.norm(homogeneous @ (one - other)[:3].T, axis=1).max())


def same_grid(one: Grid, other: Grid, tolerance_mm: float) -> bool:
    """Whether two grids have one shape and their corner voxels lie within `tolerance_mm` of each other."""
    return one.shape == other.shape and farthest_mm(one.shape, one.affine, other.affine) <= tolerance_mm


def resample_onto(volume: Volume, affine: NDArray[np.float64], shape: Shape) -> Resampled:
    """`volume` at the voxels of the grid of `affine` (voxel index to RAS+ mm) and `shape`, interpolated linearly.

    A voxel of the source reaches half its size beyond its centre, also at the border, as ITK has it; beyond that the
    result is 0. Nothing is smoothed first.
    """
    to_source = np.linalg.inv(volume.affine) @ affine
    along_axes = np.diag([*np.diag(to_source)[:3], 1.0])
    along_axes[:3, 3] = to_source[:3, 3]
    if farthest_mm(shape, along_axes, to_source) < SAME:
        return _resampled_along_axes(volume.array, along_axes, shape)
    from scipy.ndimage import affine_transform

    array = affine_transform(
        volume.array,
        to_source[:3, :3],
        offset=to_source[:3, 3],
        output_shape=shape,
        output=np.float32,
        order=1,
        mode="nearest",
    )
    inside = np.ones(shape, dtype=np.bool_)
    columns, rows = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    for z in range(shape[2]):  # a plane at a time, to save memory
        for axis, (along_x, along_y, along_z, start) in enumerate(to_source[:3]):
            index = columns * along_x + rows * along_y + (z * along_z + start)
            inside[..., z] &= _inside(index, volume.array.shape[axis])
    array[~inside] = 0
    return Resampled(array, inside)


def _resampled_along_axes(array: NDArray[np.float32], to_source: NDArray[np.float64], shape: Shape) -> Resampled:
    """The same where the axes of both grids are parallel, so that each is interpolated by itself, much faster."""
    sizes = array.shape
    places = [np.arange(size) * to_source[axis, axis] + to_source[axis, 3] for axis, size in enumerate(shape)]
    for axis in sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis]):  # what shrinks the array first
        size = array.shape[axis]
        place = np.clip(places[axis], 0, size - 1)
        below = np.minimum(place.astype(np.intp), max(size - 2, 0))
        share = (place - below).astype(np.float32).reshape([-1 if one == axis else 1 for one in range(3)])
        first = array.take(below, axis)
        first += share * (array.take(np.minimum(below + 1, size - 1), axis) - first)
        array = first
    x, y, z = (_inside(place, size) for place, size in zip(places, sizes, strict=True))
    inside = x[:, None, None] & y[:, None] & z
    array[~inside] = 0
    return Resampled(array, inside)


def _inside(index: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Which places along an axis of `size` voxels lie in one of them."""
    return (index >= -0.5 - EDGE) & (index < size - 0.5 - EDGE)
