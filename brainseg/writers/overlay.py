"""Pictures of a mask's contour on a scan's axial slices; pixels keep their aspect.

Figures are made without pyplot, so nothing is shared between threads.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import AxialSlice, axial_slices, head_box, in_eight_bits
from brainseg.case import Case, Spacing
from brainseg.measures import dice, volume_ml, volume_voxels
from brainseg.units import millilitres
from brainseg.writers.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

MASK_COLOUR = "#ffb000"  # with the cyan, apart in every common form of colour blindness
TRUTH_COLOUR = "#22d3ee"
TEXT_COLOUR = "#e8e8e8"
FAINT_COLOUR = "#9a9a9a"
BACKGROUND = "#000000"
NOTICE = "Research use only, not a diagnosis"

MOST_SLICES = 20
FEWEST_SLICES = 12
DPI = 120
COMPRESSION = 3  # of PNG: more takes longer and saves little

_LABEL: dict[str, Any] = {"color": TEXT_COLOUR, "va": "bottom"}


@dataclass(frozen=True)
class Place:
    """Where on its axes a slice is drawn, in the axes' own units, which grow to the right and up."""

    left: float
    bottom: float
    width: float
    height: float

    def at(self, right: float, up: float) -> tuple[float, float]:
        """The point that lies these shares of its width and height from the lower left corner."""
        return self.left + right * self.width, self.bottom + up * self.height


def contour_figure(
    flair2d: NDArray[Any],
    mask2d: NDArray[Any],
    truth2d: NDArray[Any] | None = None,
    title: str = "",
    aspect: float = 1.0,
) -> Figure:
    """One slice with its contours as a figure, for TensorBoard; arrays `(rows, columns)` as `AxialSlice` has them."""
    from matplotlib.figure import Figure

    rows, columns = np.shape(flair2d)
    height = 4.0 * rows * aspect / columns
    figure = Figure(figsize=(4.0, height + 0.55), dpi=100, facecolor=BACKGROUND)
    axes = figure.add_axes((0.0, 0.0, 1.0, height / (height + 0.55)))
    low, high = (float(bound) for bound in (np.min(flair2d), np.max(flair2d)))
    place = _show(axes, np.asarray(flair2d), aspect, (low, max(high, low + 1e-6)))
    _contours(axes, mask2d, truth2d, 1.2, place)
    sides(axes, size=9)
    first, second = (1 - inches / (height + 0.55) for inches in (0.16, 0.4))
    figure.text(0.03, first, drawable(title, 48), color=TEXT_COLOUR, size=9, va="center", parse_math=False)
    _legend(figure, truth2d is not None, size=7, place=(0.97, second))
    return figure


def contour_grid(slices: Sequence[AxialSlice], titles: Sequence[str], *, columns: int) -> Figure:
    """Several slices under their titles, row by row; those of one size are cut alike, to the head in all of them."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(slices) / columns)
    figure = Figure(figsize=(1.8 * columns, 2.3 * rows), facecolor=BACKGROUND, layout="constrained")
    box = head_box(slices) if len({one.flair.shape for one in slices}) == 1 else None
    for place, (one, title) in enumerate(zip(slices, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw_slice(axes, one, box or head_box([one]), line=1.0)
        axes.set_title(drawable(title, 48), color=TEXT_COLOUR, size=8, parse_math=False)
    return figure


def slice_png(axial: AxialSlice, title: str = "") -> bytes:
    """One slice with its contours as PNG bytes."""
    figure = contour_figure(axial.flair, axial.mask, axial.truth, title, axial.aspect)
    return figure_png(figure, figure.dpi)


def write_overlay(
    path: Path,
    case: Case,
    mask: NDArray[Any],
    *,
    truth: NDArray[Any] | None = None,
    slices: Sequence[AxialSlice] | None = None,
) -> None:
    """Writes `overlay_png` of a case with its `mask` (and `truth`), both (X, Y, Z).

    `slices` are its `axial_slices`, where the caller has them already.
    """
    shown = list(axial_slices(case, mask, truth)) if slices is None else slices
    content = overlay_png(shown, case.name, volume_words(mask, case.spacing_mm, truth))
    with replacing(path) as partial:
        partial.write_bytes(content)


def overlay_png(slices: Sequence[AxialSlice], name: str, words: str) -> bytes:
    """A PNG of up to 20 axial slices of a scan with their contours, under its name and `volume_words`.

    The slice with most of the mask is shown large; the others are those with mask and their neighbours, from foot to
    head, or slices from the whole head if the mask is empty.
    """
    areas = [int(np.count_nonzero(one.mask)) or _truth_area(one) for one in slices]
    chosen = choose_slices(areas, [bool((one.flair > 0.1).mean() > 0.02) for one in slices])
    main = max(chosen, key=lambda k: areas[k]) if any(areas) else chosen[len(chosen) // 2]
    return _montage([slices[k] for k in chosen], slices[main], words, name)


def choose_slices(
    areas: Sequence[int], with_head: Sequence[bool], most: int = MOST_SLICES, fewest: int = FEWEST_SLICES
) -> list[int]:
    """Indices of the slices to show, ascending: at most `most`, every one with mask if they fit, the largest always.

    Args:
        areas: size of the mask on each slice.
        with_head: whether a slice shows anything; slices without mask are shown only if so.
    """
    marked = [k for k, area in enumerate(areas) if area]
    if len(marked) > most:
        kept = {marked[round(place)] for place in np.linspace(0, len(marked) - 1, most - 1)}
        return sorted(kept | {max(marked, key=lambda k: areas[k])})
    rest = [k for k, head in enumerate(with_head) if head and not areas[k]] or [
        k for k in range(len(areas)) if not areas[k]
    ]
    wanted = min(max(fewest, len(marked) + 2), most)
    if marked:
        rest.sort(key=lambda k: min(abs(k - near) for near in marked))
        return sorted(marked + rest[: wanted - len(marked)])
    return sorted({rest[round(place)] for place in np.linspace(0, len(rest) - 1, min(wanted, len(rest)))})


def _truth_area(one: AxialSlice) -> int:
    return 0 if one.truth is None else int(np.count_nonzero(one.truth))


def volume_words(mask: NDArray[Any], spacing_mm: Spacing | None, truth: NDArray[Any] | None = None) -> str:
    """The measured volume, and the true one and their overlap where it is known."""

    def volume(array: NDArray[Any]) -> str:
        if spacing_mm is None:
            return f"{volume_voxels(array):,} voxels"
        return f"{millilitres(volume_ml(array, spacing_mm))} mL"

    words = f"{volume(mask)} marked" if np.any(mask) else "nothing marked"
    if truth is not None:
        overlap = dice(mask, truth)
        words += f", {volume(truth)} true" + ("" if math.isnan(overlap) else f", Dice {overlap:.2f}")
    return words + ("" if spacing_mm is not None else " (voxel size unknown)")


def _montage(shown: Sequence[AxialSlice], main: AxialSlice, words: str, name: str) -> bytes:
    """All of `shown` small in a grid, `main` large to their left, words above and below.

    Images of axes are slow, so that matplotlib draws lines and words alone, over slices that are there already.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    rows_of_pixels, columns_of_pixels = head_box(shown)
    pixels_high = (rows_of_pixels.stop - rows_of_pixels.start) * main.aspect
    pixels_wide = columns_of_pixels.stop - columns_of_pixels.start
    rows = max(1, min(4, round(math.sqrt(len(shown) / 1.5))))
    columns = math.ceil(len(shown) / rows)
    tile = 1.45 * min(1.0, 1.4 * pixels_wide / pixels_high)  # width of a small picture, in inches
    high = tile * pixels_high / pixels_wide
    large = max(rows, 2) if rows > 1 else 1
    head, foot, gap = 0.62, 0.38, 0.03
    width, height = (large + columns) * (tile + gap) + gap, rows * (high + gap) + gap + head + foot
    width = max(width, 7.0)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="none")
    drawing = FigureCanvasAgg(figure)
    picture = Image.new("RGB", drawing.get_width_height(), BACKGROUND)
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height), autoscale_on=False)  # one: Axes are slow
    page.set_axis_off()

    def place_at(left: float, top: float, scale: float) -> Place:
        wide, tall = scale * (tile + gap) - gap, scale * (high + gap) - gap
        return Place(left, height - head - top - tall, wide, tall)

    box = rows_of_pixels, columns_of_pixels
    big = place_at(gap, gap, large)
    _paint(picture, main.flair[box], big)
    _contours(page, *_marked(main, box), 1.3, big)
    sides(page, size=13, place=big)
    _scale_bar(page, main, pixels_wide, big)
    page.text(*big.at(0.98, 0.02), f"slice {main.number} of {main.count}", ha="right", **_LABEL, size=8)
    for number, one in enumerate(shown):
        left = gap + (large + number % columns) * (tile + gap)
        small = place_at(left, gap + number // columns * (high + gap), 1)
        _paint(picture, one.flair[box], small)
        _contours(page, *_marked(one, box), 0.8, small)
        sides(page, size=6, place=small)
        colour = MASK_COLOUR if one.mask.any() else FAINT_COLOUR
        page.text(*small.at(0.97, 0.03), str(one.number), ha="right", **_LABEL | {"color": colour}, size=7)
    margin = 0.12 / width
    bold: dict[str, Any] = {"size": 11, "weight": "bold", "parse_math": False}
    figure.text(margin, 1 - 0.22 / height, drawable(name, 48), color=TEXT_COLOUR, va="center", **bold)
    figure.text(margin, 1 - 0.46 / height, words, color=TEXT_COLOUR, size=9, va="center")
    _legend(figure, main.truth is not None, size=8, place=(1 - margin, 1 - 0.34 / height))
    figure.text(margin, 0.19 / height, NOTICE, color=FAINT_COLOUR, size=7.5, va="center")
    view = "FLAIR, axial, radiological view (R = patient's right), foot to head"
    figure.text(1 - margin, 0.19 / height, view, color=FAINT_COLOUR, size=7.5, va="center", ha="right")
    drawing.draw()  # type: ignore[no-untyped-call]
    drawn = Image.fromarray(np.asarray(drawing.buffer_rgba()))  # type: ignore[no-untyped-call]
    picture.paste(drawn, mask=drawn)
    content = io.BytesIO()
    picture.save(content, "png", compress_level=COMPRESSION)
    return content.getvalue()


def draw_slice(axes: Axes, one: AxialSlice, box: tuple[slice, slice], line: float) -> None:
    """The part of a slice that `box` cuts out, as all that the axes show, with contours in lines of `line` points."""
    place = _show(axes, one.flair[box], one.aspect, (0.0, 1.0))
    _contours(axes, *_marked(one, box), line, place)


def _show(axes: Axes, flair: NDArray[Any], aspect: float, window: tuple[float, float]) -> Place:
    rows, columns = flair.shape
    place = Place(0, 0, columns, rows * aspect)
    axes.set(xlim=(0, place.width), ylim=(0, place.height), aspect="equal", autoscale_on=False)
    axes.set_axis_off()
    extent = (0, place.width, 0, place.height)
    axes.imshow(flair, cmap="gray", vmin=window[0], vmax=window[1], interpolation="bilinear", extent=extent)
    return place


def _paint(picture: Picture, flair: NDArray[Any], place: Place) -> None:
    """A slice (0 to 1) at `place`, in inches, of a `picture`."""
    from PIL import Image

    left, right = round(place.left * DPI), round((place.left + place.width) * DPI)
    top, bottom = (picture.height - round(up * DPI) for up in (place.bottom + place.height, place.bottom))
    grey = Image.fromarray(in_eight_bits(flair))
    picture.paste(grey.resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top))


def _marked(one: AxialSlice, box: tuple[slice, slice]) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    return one.mask[box], None if one.truth is None else one.truth[box]


def _contours(axes: Axes, mask: NDArray[Any], truth: NDArray[Any] | None, line: float, place: Place) -> None:
    if truth is not None:
        _contour(axes, np.asarray(truth) != 0, TRUTH_COLOUR, line, "dashed", place)
    _contour(axes, np.asarray(mask) != 0, MASK_COLOUR, line, "solid", place)


def _contour(axes: Axes, mask: NDArray[np.bool_], colour: str, line: float, style: str, place: Place) -> None:
    from matplotlib.collections import LineCollection

    rings = [
        np.stack(place.at(columns / mask.shape[1], 1 - rows / mask.shape[0]), -1)
        for rows, columns in (ring.T for ring in outlines(mask))
    ]
    axes.add_collection(LineCollection(rings, colors=[colour], linewidths=line, linestyles=style), autolim=False)


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines around a mask, each `(points, 2)`; pixel (row, column) covers the square from there to one more."""
    from skimage.measure import find_contours

    if not mask.any():
        return []
    # padded, so that a mask at the border still has a closed outline
    return [ring - 0.5 for ring in find_contours(np.pad(mask.astype(np.float32), 1), 0.5)]


def sides(axes: Axes, size: float, place: Place | None = None) -> None:
    """R at the patient's right, L at the left, of a slice drawn at `place` or filling the axes."""
    for across, letter in ((0.03, "R"), (0.97, "L")):
        x, y, transform = (*place.at(across, 0.5), axes.transData) if place else (across, 0.5, axes.transAxes)
        axes.text(x, y, letter, transform=transform, color=TEXT_COLOUR, size=size, va="center", ha="center")


def _scale_bar(axes: Axes, one: AxialSlice, pixels_wide: int, place: Place) -> None:
    """A bar of 5 cm (1 cm on a small field), where the size of a pixel is known."""
    if one.width_mm is None:
        return
    length_mm = 50 if 0.6 * pixels_wide * one.width_mm > 50 else 10
    (left, up), (right, _) = place.at(0.03, 0.025), place.at(0.03 + length_mm / one.width_mm / pixels_wide, 0.025)
    axes.plot((left, right), (up, up), color=TEXT_COLOUR, linewidth=1.5)
    axes.text(*place.at(0.03, 0.035), f"{length_mm // 10} cm", **_LABEL, size=8)


def _legend(figure: Figure, with_truth: bool, size: float, place: tuple[float, float]) -> None:
    """Names the colours, with the middle of its right side at `place` in the figure."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=MASK_COLOUR, label="brainseg")]
    if with_truth:
        lines.append(Line2D([], [], color=TRUTH_COLOUR, linestyle="dashed", label="truth"))
    figure.legend(
        handles=lines,
        loc="center right",
        bbox_to_anchor=place,
        borderaxespad=0,
        ncols=len(lines),
        frameon=False,
        labelcolor=TEXT_COLOUR,
        fontsize=size,
        handlelength=1.8,
    )


def drawable(text: str, length: int) -> str:
    """`text` cut to `length`, with "?" for what the built-in font lacks (it has Latin, Greek and Cyrillic)."""
    text = "".join(letter if letter.isprintable() and letter <= "\u052f" else "?" for letter in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def figure_png(figure: Figure, dpi: float) -> bytes:
    """A figure as PNG bytes that say nothing of what made them."""
    content = io.BytesIO()
    figure.savefig(
        content,
        format="png",
        dpi=dpi,
        facecolor=figure.get_facecolor(),
        metadata={"Software": None},
        pil_kwargs={"compress_level": COMPRESSION},
    )
    return content.getvalue()
