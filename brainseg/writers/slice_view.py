"""One axial slice with its contours as SVG, for a page: pixels as they are, outlines that stay sharp at any size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import AxialSlice, in_eight_bits
from brainseg.writers.overlay import COMPRESSION, MASK_COLOUR, TEXT_COLOUR, TRUTH_COLOUR, outlines

Box = tuple[slice, slice]


def slice_svg(one: AxialSlice, box: Box) -> str:
    """The rows and columns of `box` as an SVG element that fills its place; takes milliseconds, so it can be scrolled.

    Args:
        box: of `brainseg.axial.head_box`, the same for all slices of a scan.
    """
    flair = one.flair[box]
    rows, columns = flair.shape
    high = rows * one.aspect
    letter = f'y="{high / 2:.1f}" fill="{TEXT_COLOUR}" font-size="{0.05 * columns:.1f}" dominant-baseline="middle"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns} {high:.2f}" role="img" '
        f'aria-label="FLAIR, axial slice {one.number} of {one.count}">',
        f'<image width="{columns}" height="{high:.2f}" preserveAspectRatio="none" href="{_png(flair)}"/>',
    ]
    if one.truth is not None:
        parts.append(_outline(one.truth[box], one.aspect, TRUTH_COLOUR, ' stroke-dasharray="6 4"'))
    parts.append(_outline(one.mask[box], one.aspect, MASK_COLOUR, ""))
    parts.append(f'<text x="{0.02 * columns:.1f}" {letter}>R</text>')
    parts.append(f'<text x="{0.98 * columns:.1f}" text-anchor="end" {letter}>L</text></svg>')
    return "".join(parts)


def _png(flair: NDArray[np.float32]) -> str:
    """Grey values 0 to 1 as a data URI."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(in_eight_bits(flair)).save(content, "png", compress_level=COMPRESSION)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _outline(mask: NDArray[np.bool_], aspect: float, colour: str, dashes: str) -> str:
    """The outline of a mask as a path; pixel (row, column) covers the square from there to (row + 1, column + 1)."""
    path = " ".join(_rings(mask, aspect))
    style = f'fill="none" stroke="{colour}" stroke-width="2" vector-effect="non-scaling-stroke"{dashes}'
    return f'<path d="{path}" {style}/>' if path else ""


def _rings(mask: NDArray[np.bool_], aspect: float) -> Iterator[str]:
    for ring in outlines(mask):
        yield "M" + "L".join(f"{column:.1f} {row * aspect:.2f}" for row, column in ring) + "Z"
