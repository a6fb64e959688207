"""The midline of a head, found where it is known to be, in every orientation; and the side of a lesion."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command import Bright, brainseg, open_bundles_with
from figshare_files import head as slice_of_head
from figshare_files import write_picture

from brainseg.case import TIFF_AFFINE, Case
from brainseg.measures import find_lesions
from brainseg.midline import Midline, find_midline, midline_of, side_of
from brainseg.phantom import make_phantom, write_phantom_tiff

SHAPE = (96, 112, 16)
SHIFT, YAW = 5.0, np.deg2rad(8)  # of the head, in pixels and radians


def head() -> np.ndarray:
    """An egg, LPS, pointed at the front, off the middle of the grid and turned; with noise that no side shares."""
    x, y, z = np.indices(SHAPE, float) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    x = x - SHIFT
    across, along = x * np.cos(YAW) + y * np.sin(YAW), y * np.cos(YAW) - x * np.sin(YAW)
    inside = (across / (32 + 0.15 * along)) ** 2 + (along / 44) ** 2 + (z / 12) ** 2 < 1
    return np.where(inside, 100 + 40 * np.random.default_rng(0).random(SHAPE), 0).astype(np.float32)


def to_right(places: np.ndarray) -> np.ndarray:
    """How far voxels of `head` truly are from its midline, towards its right."""
    x, y, _ = (places - (np.array(SHAPE) - 1) / 2).T
    return -((x - SHIFT) * np.cos(YAW) + y * np.sin(YAW))


PLACES = np.array([[20, 30, 8], [70, 30, 8], [48, 90, 3], [30, 80, 12]])


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_shifted_and_turned_head_has_its_midline_in_every_orientation_of_the_grid(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    affine = TIFF_AFFINE @ np.diag([0.9, 0.9, 5, 1])
    image = nibabel.Nifti1Image(head(), affine)
    turned = image.as_reoriented(np.column_stack([np.argsort(order), np.array(flips)[np.argsort(order)]]))
    midline = find_midline(np.asarray(turned.dataobj), turned.affine)
    assert midline is not None
    moved = nibabel.affines.apply_affine(np.linalg.inv(turned.affine) @ affine, PLACES)
    np.testing.assert_allclose(midline.distance(moved), 0.9 * to_right(PLACES), atol=0.9)


def test_a_tumour_dark_or_bright_moves_it_by_less_than_half_a_pixel() -> None:
    plain = find_midline(head(), TIFF_AFFINE)
    for grey in (0, 139):
        image = head()
        image[30:45, 40:60, 5:11] = grey
        moved = find_midline(image, TIFF_AFFINE)
        assert plain is not None
        assert moved is not None
        assert np.abs(plain.distance(PLACES) - moved.distance(PLACES)).max() < 0.5


def test_a_tenth_on_either_side_is_both() -> None:
    midline = Midline((-1.0, 0.0, 0.0, 9.5))  # indices of x from 0 to 9 are on the patient's right
    row = np.array([[x, 0, 0] for x in range(30)])
    sides = [side_of(row[first : first + 10], midline) for first in (0, 1, 5, 9, 10)]
    assert sides == ["right", "both", "both", "both", "left"]
    assert side_of(row[:11], midline) == "right"  # of eleven one is across, less than a tenth
    assert side_of(row, None) == ""


def test_what_has_no_halves_or_no_plane_has_no_midline() -> None:
    assert find_midline(np.zeros((20, 20, 5), np.float32), TIFF_AFFINE) is None
    image = np.repeat(head()[None], 3, axis=0)
    case = Case("one", image, TIFF_AFFINE, None, "tiff")
    assert midline_of(case) is not None
    for other in (
        replace(case, layout="matlab", apart=True),
        replace(case, layout="picture"),
        replace(case, image=image[..., 7:8]),
    ):
        assert midline_of(other) is None


def test_lesions_of_a_phantom_are_on_the_side_where_they_were_put() -> None:
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), axes="RAS")
    midline = find_midline(phantom.image[1], phantom.affine)
    lesions = find_lesions(phantom.mask, None, phantom.affine, phantom.spacing_mm, midline)
    centres = [one.centroid_mm[0] for one in lesions if one.centroid_mm]
    assert min(map(abs, centres)) > 15
    assert [one.side for one in lesions] == ["right" if x > 0 else "left" for x in centres]


def sides(out: Path) -> list[str]:
    (table,) = out.glob("*/lesions.csv")
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0])[-1] == "side"
    return [row["side"] for row in rows]


def test_column_0_of_tiff_is_right_an_edited_mask_has_sides_too_and_lone_slices_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    write_phantom_tiff(make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0)), tmp_path, "p")
    out = tmp_path / "out"
    assert brainseg("segment", tmp_path / "p", "--out", out, "--format", "nifti", "-q") == 0
    assert set(sides(out)) <= {"left", "right", "both"}
    path = out / "p" / "mask.nii.gz"
    mask = nibabel.load(path)
    edited = np.zeros(mask.shape, np.uint8)
    edited[20:24, 30:34, 5] = edited[40:43, 30:33, 5] = edited[28:36, 20:21, 5] = 1
    nibabel.save(nibabel.Nifti1Image(edited, mask.affine), path)
    assert brainseg("report", out, "-q") == 0
    assert sides(out) == ["right", "left", "both"]
    page = (out / "report.html").read_text()
    assert '<th scope="col">Side</th>' in page
    assert '<td class="w">both</td>' in page
    write_picture(tmp_path / "png", 1, *slice_of_head(64))
    assert brainseg("segment", tmp_path / "png", "--out", tmp_path / "alone", "-q") == 0
    assert json.loads(next(tmp_path.glob("alone/*/case.json")).read_text())["midline"] is None
    assert "Side</th>" not in (tmp_path / "alone" / "report.html").read_text()
