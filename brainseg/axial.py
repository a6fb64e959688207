"""A scan's axial slices as a reader sees them: radiological (anterior up, the patient's right at the image's left).

Scans of any orientation are turned to that view by whole axes, never resampled, so that what is shown is what was
measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import FLAIR, Case, Spacing, spacing_of

SEEN = 0.08  # of the window: brighter is head, not air
GREYS = 255  # of a screen
ENOUGH = 2**24  # voxels to choose a window by


@dataclass(frozen=True)
class AxialSlice:
    """One axial slice turned to the radiological view: row 0 anterior, column 0 at the patient's right.

    Attributes:
        number: its place along the scan's own axial axis, counted from 1 as viewers do, whatever its file is called.
        count: how many slices the scan has.
        flair: float32 `(rows, columns)`, 0 (black) to 1 (white), windowed over the whole volume.
        mask, truth: bool of the same shape; `truth` None if unknown.
        aspect: height of a pixel divided by its width.
        width_mm: width of a pixel; None where the spacing is unknown.
    """

    number: int
    count: int
    flair: NDArray[np.float32]
    mask: NDArray[np.bool_]
    truth: NDArray[np.bool_] | None
    aspect: float
    width_mm: float | None


def axial_slices(case: Case, mask: NDArray[Any], truth: NDArray[Any] | None = None) -> Iterator[AxialSlice]:
    """The axial slices of `case` with its `mask` (and `truth`), both (X, Y, Z), from foot to head.

    The oblique part of an affine is not resampled away: "axial" is the voxel plane closest to it.
    """
    for array in (mask, truth):
        if array is not None and np.shape(array) != case.shape:
            raise ValueError(f"mask and truth must have the case's shape {case.shape}, got {np.shape(array)}")
    flair = axial_view(_windowed(case.image[FLAIR]), case.affine)
    return slices_of_view(flair, mask, case.affine, case.spacing_mm, truth)


def axial_view(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """`array` (X, Y, Z) turned by whole axes to (slice from foot to head, row from anterior, column from right)."""
    from nibabel import orientations

    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LPS"))
    turned: NDArray[Any] = orientations.apply_orientation(array, turn).transpose(2, 1, 0)
    return turned


def view_geometry(affine: NDArray[np.float64]) -> tuple[float, float, bool]:
    """Width and height of a pixel of the `axial_view`, and whether the scan numbers its slices from foot to head."""
    from nibabel import orientations

    native = orientations.io_orientation(affine)
    steps = {int(world): step for (world, _), step in zip(native, spacing_of(affine), strict=True)}
    upwards = {int(world): direction > 0 for world, direction in native}[2]
    return steps[0], steps[1], upwards


def slices_of_view(
    flair: NDArray[np.float32],
    mask: NDArray[Any],
    affine: NDArray[np.float64],
    spacing_mm: Spacing | None,
    truth: NDArray[Any] | None = None,
) -> Iterator[AxialSlice]:
    """The slices of a scan whose windowed `flair` is in its `axial_view` already; `mask` and `truth` are (X, Y, Z)."""
    shown = axial_view(np.asarray(mask) != 0, affine)
    true = None if truth is None else axial_view(np.asarray(truth) != 0, affine)
    width, height, upwards = view_geometry(affine)
    count = len(flair)
    for k in range(count):
        yield AxialSlice(
            number=k + 1 if upwards else count - k,
            count=count,
            flair=flair[k],
            mask=shown[k],
            truth=None if true is None else true[k],
            aspect=height / width,
            width_mm=None if spacing_mm is None else width,
        )


def in_eight_bits(flair: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Windowed grey values, 0 to 1, as 0 to `GREYS`."""
    return np.round(flair * GREYS).astype(np.uint8)


def head_box(shown: Sequence[AxialSlice]) -> tuple[slice, slice]:
    """Rows and columns that hold the head and the contours on all of `shown`, with a little air."""
    seen = np.any([one.flair > SEEN for one in shown], axis=0)
    marked = np.any([one.mask if one.truth is None else one.mask | one.truth for one in shown], axis=0)
    return box_of(seen, marked)


def box_of(seen: NDArray[np.bool_], marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold what is `seen` and `marked` (rows, columns), with a little air.

    A few bright pixels in the air do not undo the crop; what is marked always stays in the picture.
    """
    if not seen.any():
        seen = np.ones_like(seen)
    enough = max(2, round(0.005 * max(seen.shape)))

    def span(axis: int) -> slice:
        kept = (seen.sum(axis=1 - axis) >= enough) | marked.any(axis=1 - axis)
        places = np.flatnonzero(kept if kept.any() else seen.any(axis=1 - axis))
        size: int = seen.shape[axis]
        air = max(2, round(0.03 * size))
        return slice(max(0, int(places[0]) - air), min(size, int(places[-1]) + 1 + air))

    return span(0), span(1)


def _windowed(flair: NDArray[np.float32]) -> NDArray[np.float32]:
    """FLAIR scaled to 0..1 between percentiles of its foreground, as a reader would set the window."""
    values = np.array(flair, np.float32)
    if not np.isfinite(values).all():
        np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    some = values.ravel(order="K")[:: 1 + values.size // ENOUGH]
    foreground = some[some > values.min()]
    if not foreground.size:
        return np.zeros_like(values)
    low, high = (float(bound) for bound in np.percentile(foreground, (1, 99.7), overwrite_input=True))
    values -= low
    values /= max(high - low, 1e-6)
    scaled: NDArray[np.float32] = np.clip(values, 0.0, 1.0, out=values)
    return scaled
