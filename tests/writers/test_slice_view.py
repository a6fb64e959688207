"""One slice as SVG: its pixels, its outline, where they lie."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from brainseg.axial import AxialSlice
from brainseg.writers.slice_view import slice_svg

WHOLE = (slice(None), slice(None))


def axial(mask: np.ndarray, truth: np.ndarray | None = None, aspect: float = 1.0) -> AxialSlice:
    flair = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    return AxialSlice(number=3, count=7, flair=flair, mask=mask, truth=truth, aspect=aspect, width_mm=None)


def square() -> np.ndarray:
    """Rows 2 to 4 and columns 1 to 5 of 8 x 10 pixels."""
    mask = np.zeros((8, 10), bool)
    mask[2:5, 1:6] = True
    return mask


def outline(svg: str) -> np.ndarray:
    (path,) = re.findall(r'<path d="M([^"]*)Z"', svg)
    return np.array([point.split() for point in path.split("L")], float)


def test_picture_holds_the_pixels_of_the_box_and_says_which_slice_it_is() -> None:
    svg = slice_svg(axial(square()), (slice(1, 8), slice(0, 9)))
    (content,) = re.findall('href="data:image/png;base64,([^"]*)"', svg)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    expected = np.round(np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10)[1:8, 0:9] * 255)
    np.testing.assert_array_equal(pixels, expected)
    assert 'viewBox="0 0 9 7.00"' in svg
    assert 'aria-label="FLAIR, axial slice 3 of 7"' in svg


def test_outline_runs_along_the_outer_edges_of_the_mask() -> None:
    points = outline(slice_svg(axial(square()), WHOLE))
    np.testing.assert_allclose(points.min(axis=0), (1, 2))
    np.testing.assert_allclose(points.max(axis=0), (6, 5))


def test_pixels_twice_as_high_as_wide_are_drawn_so() -> None:
    svg = slice_svg(axial(square(), aspect=2.0), WHOLE)
    assert 'viewBox="0 0 10 16.00"' in svg
    np.testing.assert_allclose(outline(svg).max(axis=0), (6, 10))


def test_mask_at_the_border_has_a_closed_outline_and_an_empty_one_has_none() -> None:
    assert len(outline(slice_svg(axial(np.ones((4, 4), bool)), WHOLE))) > 4
    assert "<path" not in slice_svg(axial(np.zeros((4, 4), bool)), WHOLE)


def test_true_mask_is_dashed() -> None:
    svg = slice_svg(axial(np.zeros((8, 10), bool), truth=square()), WHOLE)
    assert svg.count("<path") == svg.count("stroke-dasharray") == 1
