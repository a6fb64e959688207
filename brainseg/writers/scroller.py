"""A scan to scroll through in the report: its slices as one picture, the contours of its mask as paths over them."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import GREYS, SEEN, axial_view, box_of, view_geometry
from brainseg.readers.nifti import nifti_grid, read_nifti_mask
from brainseg.writers.slices import Sheet, Tiles, read_slices, sheet_picture, webp

NARROWEST = 120  # pixels across the head: a smaller picture shows nothing, so slices are left out instead
COARSE_QUALITY = 65
TOLERANCES = (0.25, 0.5, 1.0, 2.0)  # pixels of the scan by which a contour may be simplified
UNITS = 2  # of a path to a pixel of the scan: contours run through the middles of pixels and of their edges
MOST_TRIES = 8

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Scroller:
    """What the page needs to show one slice at a time, cut to the head.

    Attributes:
        picture: data URI of the slices side by side.
        sheet: how they lie in it.
        box: left, top, width, height of the head in each slice of the picture, in its pixels.
        units: width and height of the same in the units of `paths`.
        ratio: its width divided by its height, in mm.
        numbers: of the slices, counted from 1 as viewers do.
        count: how many slices the scan has.
        start: index into `numbers` of the slice to show first, that with most of the mask.
        paths: SVG paths of the contours, one a slice, "|" between them.
    """

    picture: str
    sheet: Sheet
    box: tuple[int, int, int, int]
    units: tuple[float, float]
    ratio: float
    numbers: tuple[int, ...]
    count: int
    start: int
    paths: str


def make_scroller(slices: Path, mask: Path, room: int) -> Scroller:
    """The scroller of a case in about `room` bytes: coarser, or with slices left out, where it must be.

    Args:
        slices: slices.webp of the case.
        mask: its mask.nii.gz.
        room: bytes for picture and paths.

    Raises:
        InputError: if one of the two cannot be read, or they are not of one scan.
    """
    affine = nifti_grid(mask).affine
    marked = axial_view(read_nifti_mask(mask), affine) != 0
    count, rows, columns = marked.shape
    tiles, sheet = read_slices(slices, count, rows, columns)
    areas = marked.sum(axis=(1, 2))
    main = int(areas.argmax()) if areas.any() else count // 2
    box = _box(tiles, marked)
    corner = box[0].start * rows / sheet.height, box[1].start * columns / sheet.width
    contours = _contours(marked, corner, room // 3)
    size = box[1].stop - box[1].start, box[0].stop - box[0].start
    units = UNITS * size[0] * columns / sheet.width, UNITS * size[1] * rows / sheet.height
    width_mm, height_mm, upwards = view_geometry(affine)

    content, shown, place = slices.read_bytes(), range(count), (box[1].start, box[0].start, *size)
    left = max(room // 2, room - sum(map(len, contours)))
    if len(content) > left * 3 // 4:
        content, sheet, shown = _fitted(tiles[:, box[0], box[1]], main, len(content), left * 3 // 4)
        place = (0, 0, sheet.width, sheet.height)
    return Scroller(
        picture=f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}",
        sheet=sheet,
        box=place,
        units=units,
        ratio=units[0] * width_mm / (units[1] * height_mm),
        numbers=tuple(k + 1 if upwards else count - k for k in shown),
        count=count,
        start=shown.index(main),
        paths="|".join(contours[k] for k in shown),
    )


def _box(tiles: Tiles, marked: NDArray[np.bool_]) -> Box:
    """Rows and columns of the tiles that hold the head and the mask."""
    height, width = tiles.shape[1:]
    rows, columns = (
        np.linspace(0, scan - 1, tile).round().astype(int)
        for scan, tile in zip(marked.shape[1:], (height, width), strict=True)
    )
    anywhere: NDArray[np.bool_] = np.any(marked, axis=0, keepdims=True)[0]
    return box_of(tiles.max(axis=0) > SEEN * GREYS, anywhere[np.ix_(rows, columns)])


def _fitted(tiles: Tiles, main: int, size: int, room: int) -> tuple[bytes, Sheet, range]:
    """The slices in at most `room` bytes where that can be; every n-th of them, `main` included, where it must be.

    Args:
        tiles: of all slices, cut to the head.
        main: index of the slice that must be there.
        size: bytes of the picture that did not fit, for a first guess.
        room: bytes.
    """
    count, height, width = tiles.shape
    step, scale = 1, 1.0
    for _ in range(MOST_TRIES):
        scale *= math.sqrt(min(1.0, 0.95 * room / size))
        least = min(1.0, NARROWEST / width)
        if scale < least:
            step, scale = max(step + 1, math.floor(step * (least / scale) ** 2)), least
        step = min(step, count)
        shown = range(main % step, count, step)
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        sheet = Sheet(len(shown), wide, high, math.ceil(math.sqrt(len(shown))))
        content = webp(sheet_picture(tiles[shown.start :: step], sheet), COARSE_QUALITY)
        size = len(content)
        if size <= room or (step == count and scale == least):
            break
    return content, sheet, shown


def _contours(marked: NDArray[np.bool_], corner: tuple[float, float], room: int) -> list[str]:
    """The SVG path of each slice, from `corner` (row, column), together in `room` bytes where simpler ones can be."""
    for tolerance in TOLERANCES:
        paths = [_path(one, corner, tolerance) if one.any() else "" for one in marked]
        if sum(map(len, paths)) <= room:
            break
    return paths


def _path(mask: NDArray[np.bool_], corner: tuple[float, float], tolerance: float) -> str:
    """The outline of `mask` (rows, columns) as an SVG path of whole units, counted from the outer edge of `corner`."""
    from skimage.measure import approximate_polygon, find_contours

    inside = np.argwhere(mask)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    cut = np.pad(mask[low[0] : high[0], low[1] : high[1]], 1).astype(np.float32)
    rings = []
    for ring in find_contours(cut, 0.5):
        simple = approximate_polygon(ring, tolerance)
        points = simple if len(simple) > 3 else ring
        rings.append(_ring((points + low - 0.5 - np.array(corner)) * UNITS))
    return "".join(rings)


def _ring(points: NDArray[np.float64]) -> str:
    """A closed ring of (row, column) as "Mx yldx dy...z"."""
    whole = np.round(points).astype(int)[:-1, ::-1]
    steps: Iterable[int] = np.diff(whole, axis=0).ravel().tolist()
    moves = " ".join(map(str, steps)).replace(" -", "-")
    return f"M{whole[0, 0]} {whole[0, 1]}l{moves}z"
