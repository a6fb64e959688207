"""Slices to a grid: order by position, spacing, gaps and shear, from the geometry of DICOM slices (PS3.3 C.7.6.2.1.1).

Values in, values out; positions and directions are LPS+ mm as DICOM has them, the affine that comes out is RAS+.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainseg.case import LPS_TO_RAS
from brainseg.errors import InputError

COSINE = 1e-4  # direction cosines are unit and orthogonal to this
SAME_PLACE_MM = 0.01
RECORDED_MM = 0.01
REFUSED = 0.01  # of the spacing: off the grid; of the step: shear
MOST_FILLED = 0.25  # of the slices that are there

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """Where slices stand on a regular grid.

    Attributes:
        order: index of each slice, from the lowest along the normal (row x column) to the highest.
        places: Z index of each slice in that order; not consecutive across a gap.
        affine: (column, row, slice) index to RAS+ mm.
        notes: what is not quite as it should be.
    """

    order: tuple[int, ...]
    places: tuple[int, ...]
    affine: Floats
    notes: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of slices of the grid, those of gaps included."""
        return self.places[-1] + 1

    @property
    def filled(self) -> tuple[int, ...]:
        """Z indices at which there is no slice."""
        return tuple(sorted(set(range(self.depth)) - set(self.places)))


def stack_of(
    where: Path,
    series: str,
    files: Sequence[Path],
    positions: Floats,
    orientation: Floats,
    pixel_spacing: tuple[float, float],
    slice_spacing_mm: float | None,
    *,
    allow_gap: bool,
) -> Stack:
    """The grid of slices that share orientation and size.

    Args:
        where, series, files: what an error names.
        positions: ImagePositionPatient of each, `(n, 3)`.
        orientation: ImageOrientationPatient, `(6,)`.
        pixel_spacing: PixelSpacing: between rows, between columns.
        slice_spacing_mm: what the tags say of the spacing of slices; all there is where there is one slice.
        allow_gap: leave room for slices that are missing instead of refusing.

    Raises:
        InputError: if the slices do not make a regular, rectangular grid.
    """
    row, column = orientation[:3], orientation[3:]
    lengths = np.array([row @ row, column @ column])
    if np.abs(lengths - 1).max() > 2 * COSINE or abs(float(row @ column)) > COSINE:
        raise InputError(where, f"{series} has an orientation that is not unit and orthogonal", "export it again")
    normal = np.cross(row, column)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    ordered = positions[order]
    _refuse_shared_places(where, series, [files[i] for i in order], heights[order])
    notes: list[str] = []
    if len(order) == 1:
        if slice_spacing_mm is None:
            raise InputError(where, f"{series} is a single slice without a thickness", "give the whole series")
        notes.append(f"a single slice; its spacing along Z is what its tags say ({slice_spacing_mm:g} mm)")
        places, start, step = np.zeros(1, dtype=int), ordered[0], normal * slice_spacing_mm
    else:
        places = _places(where, series, heights[order], allow_gap=allow_gap)
        start, step = _fitted(places, ordered)
        notes += _checked_fit(where, series, places, ordered, start, step, normal)
        spacing = float(step @ normal)
        if slice_spacing_mm is not None and abs(spacing - slice_spacing_mm) > REFUSED * spacing:
            notes.append(f"slices are {spacing:g} mm apart by position, {slice_spacing_mm:g} mm by their tags")
    affine = np.eye(4)
    affine[:3, 0] = row * pixel_spacing[1]
    affine[:3, 1] = column * pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = start
    return Stack(tuple(map(int, order)), tuple(map(int, places)), LPS_TO_RAS @ affine, tuple(notes))


def _refuse_shared_places(where: Path, series: str, files: Sequence[Path], heights: Floats) -> None:
    """Refuse several slices at one place: volumes over time, or a duplicate. All in order of height."""
    starts = np.flatnonzero(np.concatenate([[True], np.diff(heights) > SAME_PLACE_MM]))
    counts = np.diff(np.append(starts, len(heights)))
    if counts.max() == 1:
        return
    if counts.min() == counts.max() and len(counts) > 1:
        raise InputError(
            where,
            f"{series} is 4-D: it holds {counts[0]} slices at each of {len(counts)} positions",
            "export one volume of it (one echo, b-value or time point)",
        )
    at = int(starts[int(np.argmax(counts > 1))])
    pair = f"{files[at].name} and {files[at + 1].name}"
    raise InputError(where, f"{series} has a duplicate slice ({pair} lie at the same position)", "remove one of them")


def _places(where: Path, series: str, heights: Floats, *, allow_gap: bool) -> NDArray[np.int_]:
    """Z index of each slice, from heights that ascend.

    The spacing is the lower median of the steps, which a few gaps do not move.
    """
    steps = np.diff(heights)
    spacing = float(np.sort(steps)[(len(steps) - 1) // 2])
    whole = np.maximum(np.rint(steps / spacing), 1)
    uneven = np.abs(steps - whole * spacing) > REFUSED * spacing
    if uneven.any():
        at = int(np.argmax(uneven))
        cause = f"{series} is unevenly spaced: {steps[at]:.2f} mm after slice {at + 1} (spacing {spacing:.2f} mm)"
        raise InputError(where, cause, "export it again complete")
    missing = int(whole.sum()) - len(steps)
    if missing:
        at = int(np.argmax(whole > 1))
        cause = f"{series} has a {steps[at]:.1f} mm gap after slice {at + 1} (spacing {spacing:.1f} mm)"
        if missing > max(1, MOST_FILLED * len(heights)):
            raise InputError(where, f"{cause}, {missing} slices missing in all", "export it again complete")
        if not allow_gap:
            raise InputError(where, cause, "export it again complete, or pass --allow-gap")
    return np.concatenate([[0], np.cumsum(whole)]).astype(int)


def _fitted(places: NDArray[np.int_], positions: Floats) -> tuple[Floats, Floats]:
    """Position of place 0 and step from one place to the next, by least squares."""
    centred = places - places.mean()
    step = centred @ (positions - positions.mean(axis=0)) / (centred @ centred)
    return positions.mean(axis=0) - places.mean() * step, step


def _checked_fit(
    where: Path,
    series: str,
    places: NDArray[np.int_],
    positions: Floats,
    start: Floats,
    step: Floats,
    normal: Floats,
) -> list[str]:
    """Notes on how far the slices are from the grid; an error where that is too far."""
    spacing = float(step @ normal)
    across = float(np.linalg.norm(step - spacing * normal)) / spacing
    if across > REFUSED:
        degrees = np.degrees(np.arctan(across))
        cause = f"{series} is sheared by {degrees:.1f} degrees (gantry tilt)"
        raise InputError(where, cause, "resample it to a straight grid (dcm2niix does) and give the NIfTI")
    off = np.linalg.norm(positions - (start + places[:, None] * step), axis=1)
    at, worst = int(off.argmax()), float(off.max())
    if worst > REFUSED * spacing:
        cause = f"{series} has slices off the grid by up to {worst:.3f} mm (slice {at + 1}, spacing {spacing:.2f} mm)"
        raise InputError(where, cause, "export it again")
    notes = []
    if worst > RECORDED_MM:
        notes.append(f"slices are off the grid by up to {worst:.3f} mm")
    drift = across * spacing * int(places[-1])
    if drift > RECORDED_MM:
        notes.append(f"slices are sheared by {drift:.3f} mm from first to last")
    return notes
