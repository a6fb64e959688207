import io

import numpy as np
import pytest
from heads import LPS, case_of, head
from matplotlib import image as pictures

from brainseg.axial import axial_slices
from brainseg.case import TIFF_AFFINE
from brainseg.writers import overlay
from brainseg.writers.overlay import choose_slices, contour_figure, contour_grid, slice_png, write_overlay


def test_every_slice_with_mask_is_shown_where_they_fit():
    areas = [0] * 40
    areas[3] = areas[20] = areas[21] = 5
    chosen = choose_slices(areas, [True] * 40)
    assert {3, 20, 21} <= set(chosen)
    assert len(chosen) == overlay.FEWEST_SLICES
    assert chosen == sorted(set(chosen))


def test_of_too_many_slices_with_mask_the_largest_is_shown():
    areas = [10] * 100
    areas[57] = 99
    chosen = choose_slices(areas, [True] * 100)
    assert len(chosen) <= overlay.MOST_SLICES
    assert {0, 57, 99} <= set(chosen)


@pytest.mark.parametrize("count", [1, 2, 5, 200])
def test_empty_mask_shows_slices_from_the_whole_head(count):
    with_head = [0.2 * count <= k <= 0.8 * count for k in range(count)]
    chosen = choose_slices([0] * count, with_head)
    assert 1 <= len(chosen) <= overlay.FEWEST_SLICES
    assert not any(with_head) or all(with_head[k] for k in chosen)


def colours(path_or_bytes):
    picture = pictures.imread(path_or_bytes)[..., :3]

    def near(colour):
        wanted = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        return np.argwhere(np.abs(picture - wanted).max(axis=-1) < 0.1)

    return picture, near(overlay.MASK_COLOUR), near(overlay.TRUTH_COLOUR)


def test_overlay_shows_the_contours_of_mask_and_truth(tmp_path):
    image, mask = head()
    write_overlay(tmp_path / "overlay.png", case_of(image, LPS), mask, truth=np.roll(mask, 3, axis=0))
    picture, orange, cyan = colours(tmp_path / "overlay.png")
    assert 800 < picture.shape[1] < 2000
    assert len(orange) > 100
    assert len(cyan) > 100
    assert (tmp_path / "overlay.png").stat().st_size < 1_000_000


def test_equal_cases_give_identical_pictures(tmp_path):
    image, mask = head()
    for name in ("one.png", "two.png"):
        write_overlay(tmp_path / name, case_of(image, LPS), mask)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", ["a$b_$c^{", "脑肿瘤 größe", "x" * 300, "two\nlines"])
def test_any_case_name_can_be_drawn(tmp_path, name):
    image, mask = head((16, 16, 3))
    write_overlay(tmp_path / "overlay.png", case_of(image, LPS, name=name), mask * 0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 3, 1), (3, 64, 2), (2, 2, 30)])
@pytest.mark.parametrize("fill", [0.0, 1.0, np.nan])
def test_odd_volumes_can_be_drawn(tmp_path, shape, fill):
    image = np.full(shape, fill, np.float32)
    for mask in (np.zeros(shape), np.ones(shape)):
        write_overlay(tmp_path / "overlay.png", case_of(image, TIFF_AFFINE, known=False), mask, truth=mask)


def test_contour_of_one_slice_lies_where_the_mask_is():
    mask = np.zeros((60, 60), bool)
    mask[5:20, 40:55] = True  # in front, at the patient's left: the picture's upper right
    content = slice_png(overlay.AxialSlice(1, 1, np.zeros((60, 60), np.float32), mask, None, 1.0, None))
    picture, orange, cyan = colours(io.BytesIO(content))
    drawn = orange[orange[:, 0] > 60]  # below the legend
    assert len(cyan) == 0
    assert drawn[:, 1].min() > 0.6 * picture.shape[1]
    assert drawn[:, 0].max() < 0.5 * picture.shape[0]


def test_contour_figure_has_the_pixels_aspect_and_needs_no_mask():
    empty = np.zeros((40, 20))
    tall, wide = (contour_figure(empty, empty, empty, "$title", aspect) for aspect in (1.0, 0.5))
    assert tall.get_figheight() - wide.get_figheight() == pytest.approx(4.0)


def test_a_grid_shows_every_slice_with_both_contours():
    image, mask = head()
    slices = list(axial_slices(case_of(image, LPS), mask, np.roll(mask, 3, axis=0)))[6:9]
    figure = contour_grid(slices, ["one", "two", "three"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "three"]
    content = io.BytesIO()
    figure.savefig(content, format="png", facecolor=figure.get_facecolor())
    content.seek(0)
    _, orange, cyan = colours(content)
    assert len(orange) > 30
    assert len(cyan) > 30


def test_slices_of_one_size_in_a_grid_are_cut_alike():
    small, large = np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32)
    small[20:30, 20:30] = large[10:50, 10:50] = 0.5
    slices = [overlay.AxialSlice(1, 1, flair, np.zeros((60, 60), bool), None, 1.0, None) for flair in (small, large)]
    sizes = [axes.images[0].get_array().shape for axes in contour_grid(slices, ["", ""], columns=2).axes]
    assert sizes == [(44, 44), (44, 44)]
