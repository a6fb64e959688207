"""overlay.gif: all axial slices of a scan from foot to head, one a frame, with the contour of the mask.

The view is that of overlay.png. Frames are drawn in a fixed palette of greys and the contours' colours, so that equal
cases give equal bytes and a grey value means the same in every frame.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import AxialSlice, axial_slices, head_box, in_eight_bits
from brainseg.case import Case
from brainseg.writers.atomic import replacing
from brainseg.writers.overlay import (
    FAINT_COLOUR,
    MASK_COLOUR,
    NOTICE,
    TEXT_COLOUR,
    TRUTH_COLOUR,
    drawable,
    outlines,
    volume_words,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

FRAME_MS = 180
LONGEST_SIDE = 420  # of the slice, in the picture's pixels
BAND, FOOT, STRIP = 44, 24, 6  # heights of the words above, below, and of the strip that shows where the mask lies
GREYS = 64  # palette: the greys, then these; more greys double the file and are hardly seen
MASK, TRUTH, TEXT, FAINT = range(GREYS, GREYS + 4)


def write_animation(path: Path, case: Case, mask: NDArray[Any], *, truth: NDArray[Any] | None = None) -> None:
    """Writes a GIF of every axial slice of `case` with the contours of `mask` (and `truth`), both (X, Y, Z)."""
    slices = list(axial_slices(case, mask, truth))
    words = volume_words(mask, case.spacing_mm, truth)
    box = head_box(slices)
    marked = [bool(one.mask.any()) for one in slices]
    first, *rest = (_frame(case.name, words, one, box, marked, k) for k, one in enumerate(slices))
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0, optimize=False)
    with replacing(path) as partial:
        partial.write_bytes(content.getvalue())


def _frame(name: str, words: str, one: AxialSlice, box: tuple[slice, slice], marked: list[bool], place: int) -> Image:
    """One frame; `marked` says for every frame whether it has a contour, `place` which one this is."""
    from PIL import Image, ImageDraw

    rows, columns = one.flair[box].shape
    scale = LONGEST_SIDE / max(rows * one.aspect, columns)
    across, down = scale, scale * one.aspect  # a pixel's size in the picture
    size = max(1, round(columns * across)), max(1, round(rows * down))
    wide = max(size[0], LONGEST_SIDE)
    frame = Image.new("P", (wide, BAND + size[1] + STRIP + FOOT), 0)
    frame.putpalette(_palette())
    grey = Image.fromarray(in_eight_bits(one.flair[box])).resize(size, Image.Resampling.BICUBIC)
    left = (wide - size[0]) // 2
    frame.paste(Image.fromarray(np.round(np.asarray(grey) * ((GREYS - 1) / 255)).astype(np.uint8)), (left, BAND))
    draw = ImageDraw.Draw(frame)
    for contour, colour in ((one.truth, TRUTH), (one.mask, MASK)):
        if contour is not None:
            _contour(draw, contour[box], colour, (left, BAND), (across, down))
    small, large = _font(11), _font(14)
    top = BAND + size[1]
    middle = BAND + size[1] // 2
    draw.text((6, middle), "R", TEXT, small, anchor="lm")
    draw.text((wide - 6, middle), "L", TEXT, small, anchor="rm")
    draw.text((6, 13), drawable(name, 32), TEXT, large, anchor="lm")
    draw.text((wide - 6, 13), f"slice {one.number} of {one.count}", TEXT, large, anchor="rm")
    draw.text((6, 33), drawable(words, 76), FAINT, small, anchor="lm")
    legend, foot = wide - 6, top + STRIP + FOOT // 2
    for label, colour in (("truth", TRUTH), ("brainseg", MASK)) if one.truth is not None else (("brainseg", MASK),):
        draw.text((legend, foot), label, colour, small, anchor="rm")
        legend -= round(draw.textlength(label, small)) + 10
    for k, has_mask in enumerate(marked):
        colour = TEXT if k == place else MASK if has_mask else GREYS // 5
        edges = (k * wide // len(marked), (k + 1) * wide // len(marked) - 2)
        draw.rectangle((edges[0], top + 2, max(edges), top + STRIP), colour)
    draw.text((6, foot), NOTICE, FAINT, small, anchor="lm")
    return frame


def _contour(
    draw: ImageDraw, mask: NDArray[np.bool_], colour: int, corner: tuple[int, int], pixel: tuple[float, float]
) -> None:
    """The outline of `mask` (rows, columns) as it lies in a picture whose upper left `corner` is the array's."""
    for line in outlines(mask):
        rows, columns = line.T
        points = np.stack([corner[0] + columns * pixel[0], corner[1] + rows * pixel[1]], axis=1)
        draw.line([(float(x), float(y)) for x, y in points], colour, width=2, joint="curve")


def _palette() -> list[int]:
    greys = np.repeat(np.arange(GREYS) * 255 // (GREYS - 1), 3).tolist()
    colours = (MASK_COLOUR, TRUTH_COLOUR, TEXT_COLOUR, FAINT_COLOUR)
    return [*greys, *(int(colour[k : k + 2], 16) for colour in colours for k in (1, 3, 5))]


def _font(size: int) -> FreeTypeFont:
    """The font of the other pictures, which comes with matplotlib."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
