"""A picture of what the network looked at on one slice: FLAIR, contour and heat map side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import AxialSlice, axial_slices, axial_view, head_box
from brainseg.case import Case
from brainseg.writers.atomic import replacing
from brainseg.writers.overlay import (
    BACKGROUND,
    DPI,
    FAINT_COLOUR,
    NOTICE,
    TEXT_COLOUR,
    draw_slice,
    drawable,
    figure_png,
    sides,
)

if TYPE_CHECKING:
    from brainseg.saliency import Saliency

HEAT = "inferno"
FAINTEST = 0.1  # of the scale; what is below is not painted
LEAST_SCALE = 0.5  # a logit; nothing smaller is made to look like much


def write_saliency(path: Path, case: Case, mask: NDArray[Any], saliency: Saliency, place: int, network: str) -> None:
    """Writes a PNG of the axial slice `place` (from 0 at the foot) of `case` with `mask` (X, Y, Z) and its saliency.

    `network` is the name under which it is shown.
    """
    from matplotlib.figure import Figure

    one = list(axial_slices(case, mask))[place]
    drop = axial_view(saliency.drop, case.affine)[place]
    box = head_box([one])
    rows, columns = one.flair[box].shape
    side = 3.4
    tall = side * rows * one.aspect / columns
    head, foot, bar = 0.65, 0.95, 0.75
    width, height = 3 * side + bar, head + tall + foot
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    panels = [figure.add_axes((k * side / width, foot / height, side / width, tall / height)) for k in range(3)]
    bare = AxialSlice(one.number, one.count, one.flair, np.zeros_like(one.mask), None, one.aspect, one.width_mm)
    for axes, shown in zip(panels, (bare, one, one), strict=True):
        draw_slice(axes, shown, box, line=1.2)
        sides(axes, size=9)
    largest = max(float(drop.max()), LEAST_SCALE)
    heat = np.ma.masked_less(drop[box], FAINTEST * largest)
    style: dict[str, Any] = {"cmap": HEAT, "vmin": 0, "vmax": largest, "alpha": 0.55, "aspect": one.aspect}
    painted = panels[2].imshow(heat, interpolation="nearest", **style)
    scale = figure.colorbar(
        painted, cax=figure.add_axes((3 * side / width + 0.01, foot / height, 0.012, tall / height))
    )
    scale.ax.tick_params(colors=TEXT_COLOUR, labelsize=7)
    title: dict[str, Any] = {"color": TEXT_COLOUR, "va": "center", "parse_math": False}
    words = f"{drawable(case.name, 48)}  slice {one.number} of {one.count}  {drawable(network, 40)}"
    figure.text(0.12 / width, 1 - 0.2 / height, words, size=11, weight="bold", **title)
    for k, label in enumerate(("FLAIR", "contour of the mask", "what the answer hangs on (drop of the mean logit)")):
        figure.text((k * side + 0.12) / width, 1 - 0.48 / height, label, size=9, **title)
    for line, text in enumerate(textwrap.wrap(_legend(saliency, heat.count() > 0), 150)):
        figure.text(0.12 / width, (foot - 0.2 - 0.18 * line) / height, text, size=8, **title)
    figure.text(0.12 / width, 0.14 / height, NOTICE, color=FAINT_COLOUR, size=7.5, va="center")
    content = figure_png(figure, DPI)
    with replacing(path) as partial:
        partial.write_bytes(content)


def _legend(saliency: Saliency, any_heat: bool) -> str:
    side = f"{saliency.square_pixels} pixels"
    if saliency.square_mm is not None:
        side += f" ({saliency.square_mm:.0f} mm)"
    over = "what it marks on this slice" if saliency.marked else "the whole slice (it marks nothing here)"
    nowhere = "" if any_heat else "; here it hardly falls wherever the square lies"
    return (
        f"Occlusion sensitivity: how far the network's mean logit over {over} falls while a square of {side} is hidden "
        f"behind the mean grey of the head{nowhere}. Its blocks are as coarse as the square. It shows what the network "
        "looked at, and is no proof that the mask is right or that there is a tumour."
    )
