import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from brainseg.axial import axial_view, in_eight_bits
from brainseg.errors import InputError
from brainseg.writers.nifti import write_mask
from brainseg.writers.scroller import make_scroller
from brainseg.writers.slices import write_sheet

LPS = np.diag([-0.9, -0.9, 4.0, 1.0])
PLENTY = 1_000_000


def written(folder, mask, affine=LPS, texture=0.0):
    """slices.webp and mask.nii.gz of a head that fills the slices but for a border of 10 pixels."""
    head = np.zeros(mask.shape, np.float32)
    head[10:-10, 10:-10] = 0.5 + texture * np.random.default_rng(0).random(mask.shape)[10:-10, 10:-10]
    write_sheet(folder / "slices.webp", list(in_eight_bits(axial_view(head, affine))))
    write_mask(folder / "mask.nii.gz", mask, affine)
    return folder / "slices.webp", folder / "mask.nii.gz"


def square(shape=(60, 70, 5), at=(20, 30, 2), size=4):
    mask = np.zeros(shape, np.uint8)
    x, y, z = at
    mask[x : x + size, y : y + size, z] = 1
    return mask


def picture_of(scroller):
    kind, content = scroller.picture.split(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))


def test_contour_of_a_square_runs_along_its_pixels_within_the_head(tmp_path):
    scroller = make_scroller(*written(tmp_path, square()), PLENTY)
    left, top, width, height = scroller.box
    assert (left, top, width, height) == (8, 8, 44, 54)  # the head and 3% of air
    assert scroller.units == (2 * width, 2 * height)
    assert scroller.ratio == pytest.approx(width / height)
    paths = scroller.paths.split("|")
    assert [bool(path) for path in paths] == [False, False, True, False, False]
    assert points(paths[2]).min(axis=0).tolist() == [2 * (20 - left), 2 * (30 - top)]
    assert points(paths[2]).max(axis=0).tolist() == [2 * (24 - left), 2 * (34 - top)]
    assert (scroller.numbers, scroller.start, scroller.count) == ((1, 2, 3, 4, 5), 2, 5)


def points(path):
    """Corners of a path "Mx yldx dy...z" of one ring."""
    numbers = np.array([int(one) for one in re.findall(r"-?\d+", path)]).reshape(-1, 2)
    return numbers.cumsum(axis=0)


def test_slices_numbered_from_head_to_foot_keep_their_numbers(tmp_path):
    scroller = make_scroller(*written(tmp_path, square(), LPS @ np.diag([1, 1, -1, 1])), PLENTY)
    assert scroller.numbers == (5, 4, 3, 2, 1)
    assert scroller.numbers[scroller.start] == 3


def test_a_pixel_that_is_not_square_keeps_its_shape(tmp_path):
    scroller = make_scroller(*written(tmp_path, square(), np.diag([-1.0, -2.0, 4.0, 1.0])), PLENTY)
    assert scroller.ratio == pytest.approx(44 / (2 * 54))


def test_what_does_not_fit_is_made_coarser_and_then_thinned_and_keeps_the_largest_slice(tmp_path):
    files = written(tmp_path, square((200, 200, 24), (100, 100, 13)), texture=0.5)
    whole = make_scroller(*files, 4_000_000)
    half, eighth = len(whole.picture) // 2, len(whole.picture) // 8  # whatever the WebP encoder makes of it
    coarser, thinned = make_scroller(*files, half), make_scroller(*files, eighth)
    assert len(whole.numbers) == len(coarser.numbers) == 24
    assert whole.sheet.width == 200
    assert 120 <= coarser.sheet.width < 190
    assert len(coarser.picture) <= half
    assert 1 < len(thinned.numbers) < 16
    assert len(thinned.picture) <= eighth
    for scroller in (whole, coarser, thinned):
        assert scroller.numbers[scroller.start] == 14
        assert scroller.paths.split("|")[scroller.start].startswith("M")
        assert picture_of(scroller).shape[::-1] == scroller.sheet.size
        assert scroller.units == whole.units


def test_an_empty_mask_starts_in_the_middle_and_a_single_voxel_is_drawn(tmp_path):
    empty = make_scroller(*written(tmp_path, square() * 0), PLENTY)
    assert (empty.start, empty.paths) == (2, "||||")
    single = make_scroller(*written(tmp_path, square(size=1)), PLENTY)
    assert len(points(single.paths.strip("|"))) == 4


def test_a_mask_of_another_scan_is_an_input_error(tmp_path):
    slices, mask = written(tmp_path, square())
    write_mask(mask, square((60, 70, 12)), LPS)
    with pytest.raises(InputError, match="not the picture of this scan"):
        make_scroller(slices, mask, PLENTY)
