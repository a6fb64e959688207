"""What every reader asks of a volume, whatever its format: a size that fits, one sane grid, values that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import spacing_of
from brainseg.errors import InputError

MOST_VOXELS = 2**29  # 2 GiB of float32
SHEAR = 1e-3  # largest cosine between two axes
SMALLEST_MM, LARGEST_MM = 0.01, 50.0
LABELS = 16
LARGEST_LABEL = 10  # BraTS goes to 4


def checked_shape(where: Path, sizes: Sequence[int]) -> tuple[int, int, int]:
    """The (X, Y, Z) of a volume that declares `sizes`, its trailing axes of one voxel left out.

    Raises:
        InputError: if an axis is empty, there are fewer than three or several frames, or more than 2**29 voxels.
    """
    declared = " x ".join(map(str, sizes))
    if not sizes or min(sizes) < 1:
        raise InputError(where, f"declares {declared or 'no'} voxels", "export it again")
    if len(sizes) < 3 or sorted(sizes[:3])[1] < 2:
        raise InputError(where, f"is not a volume but an image of {declared}", "give the whole 3-D volume")
    if any(size > 1 for size in sizes[3:]):
        raise InputError(where, f"holds several frames ({declared})", "give a single 3-D FLAIR volume")
    x, y, z = (int(size) for size in sizes[:3])
    if x * y * z > MOST_VOXELS:
        cause = f"declares {declared} voxels, more than the {MOST_VOXELS} that are read"
        raise InputError(where, cause, "crop or downsample it, or export it again if that is not its size")
    return x, y, z


def checked_affine(where: Path, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """`affine` (4x4, voxel index to mm) itself, if its axes are perpendicular and its voxels of a possible size.

    Raises:
        InputError: if they are not.
    """
    if not np.isfinite(affine).all():
        raise InputError(where, "has an affine that is not finite", "export it again with its geometry")
    spacing = spacing_of(affine)
    if not all(SMALLEST_MM <= size <= LARGEST_MM for size in spacing):
        cause = f"has voxels of {' x '.join(f'{size:.4g}' for size in spacing)} mm"
        raise InputError(where, cause, "check its spacing and units, and export it again")
    directions = affine[:3, :3] / np.array(spacing)
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR:
        raise InputError(
            where, "has a sheared affine: its axes are not perpendicular", "resample it to a straight grid"
        )
    return affine


def checked_values(where: Path, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """`array` itself, if it is finite and not the same everywhere.

    Raises:
        InputError: if it is not.
    """
    checked_finite(where, array)
    if (lowest := float(array.min())) == float(array.max()):
        raise InputError(where, f"holds nothing: all its voxels are {lowest:g}", "export it again")
    return array


def refuse_label_map(where: Path, array: NDArray[np.float32]) -> None:
    """Refuses what would be segmented but is itself a mask.

    Raises:
        InputError: if `array` holds nothing but small whole numbers, as labels are.
    """
    if array.min() < 0 or array.max() > LARGEST_LABEL:
        return
    values = np.unique(array)
    if np.array_equal(values, np.rint(values)):
        cause = f"holds nothing but {', '.join(f'{value:g}' for value in values)}, so it is a mask and no scan"
        raise InputError(where, cause, "give the FLAIR that it belongs to, or pass --force")


def checked_finite(where: Path, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """`array` itself, if it is finite.

    Raises:
        InputError: if it is not.
    """
    extremes = float(array.min()), float(array.max())  # NaN where there is one
    if not np.isfinite(extremes).all():
        what = "infinite" if not np.isnan(extremes).any() else "NaN"
        count = int((~np.isfinite(array)).sum())
        raise InputError(where, f"has {what} values ({count} of {array.size} voxels)", "replace them, by 0 if outside")
    return array


def binary_mask(where: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    """1 where `values` are not 0; any label of a few counts as inside.

    Raises:
        InputError: if they are no labels: not whole numbers, or more than 16 different ones.
    """
    if values.dtype.kind not in "biu":
        if not np.isfinite(values).all():
            raise InputError(where, "is no mask: it has NaN or infinite values", "replace them by 0")
        whole = np.rint(values)
        if np.abs(values - whole).max(initial=0) > 1e-3:
            raise InputError(where, "is no mask: its values are not whole numbers", "threshold it")
        values = whole
    if len(np.unique(values)) > LABELS:
        raise InputError(where, f"is no mask: it has more than {LABELS} different values", "give 0 and 1")
    mask: NDArray[np.uint8] = (values != 0).astype(np.uint8)
    return mask
