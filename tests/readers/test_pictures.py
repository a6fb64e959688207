"""PNG, JPEG and MATLAB slices: where each pixel goes, what size a head is taken to have, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figshare_files import head, write_matlab, write_picture
from PIL import Image

from brainseg.errors import InputError
from brainseg.readers import read_case, read_ground_truth, read_patient
from brainseg.study import find_patients


@pytest.mark.parametrize("layout", ["picture", "matlab"])
def test_x_is_the_column_y_the_row_and_grey_is_the_flair_alone(tmp_path: Path, layout: str) -> None:
    image, mask = head(512)
    if layout == "picture":
        write_picture(tmp_path, 1, image, mask)
    else:
        write_matlab(tmp_path, 1, image, mask, "P1")
    (patient,) = find_patients(tmp_path)
    case, truth = read_patient(patient), read_ground_truth(patient)
    assert (case.layout, case.shape, case.spacing_mm, case.finer) == (layout, (512, 512, 1), None, 2.0)
    assert case.missing == ("pre-contrast", "post-contrast")
    np.testing.assert_array_equal(case.image[1, ..., 0], image.T)
    np.testing.assert_array_equal(truth, mask.T[..., None])
    (note,) = case.notes
    assert note.startswith("no spacing: its 512 pixels are taken to span a head, as 256 do")


def test_slice_of_256_is_taken_as_it_is_and_a_spacing_overrules_all(tmp_path: Path) -> None:
    write_picture(tmp_path, 1, head(256)[0])
    write_picture(tmp_path, 2, head(512)[0])
    case = read_case(tmp_path / "images" / "1.png")
    assert (case.finer, case.notes) == (1.0, ())
    spaced = read_case(tmp_path / "images" / "2.png", spacing_mm=(0.5, 0.5, 6.0))
    assert (spaced.spacing_mm, spaced.finer, spaced.notes) == ((0.5, 0.5, 6.0), 1.0, ())


def test_mask_of_a_jpeg_is_cut_at_half_and_its_edge_does_not_spread(tmp_path: Path) -> None:
    image, mask = head(64)
    write_picture(tmp_path, 1, image, mask, suffix=".jpg")
    (patient,) = find_patients(tmp_path)
    np.testing.assert_array_equal(read_ground_truth(patient), mask.T[..., None])


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path, 1, head(32)[0], head(16)[1])
    with pytest.raises(InputError, match="masks are 16 x 16 x 1 and images 32 x 32 x 1"):
        read_ground_truth(find_patients(tmp_path)[0])


def pixels(kind: str) -> Any:
    grey = head(32)[0]
    if kind == "palette":
        return Image.fromarray(grey).convert("P")
    if kind == "alpha":
        return Image.fromarray(np.stack([grey, grey, grey, grey], -1))
    return Image.fromarray(np.zeros((32, 32), np.uint8))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("palette", "has pixels of a kind that is neither grey nor three channels (P); save it as plain grayscale"),
        ("alpha", "has an alpha channel that is not the same everywhere; save it without"),
        ("blank", "holds nothing: all its voxels are 0"),
        ("cut", "is not a PNG or JPEG image that can be read (OSError); copy it again"),
        ("text", "is not a PNG or JPEG image that can be read (UnidentifiedImageError); copy it again"),
        ("bomb", "has 60000 x 1 pixels, more than 8192 a side; downsample it"),
    ],
)
def test_picture_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, kind: str, says: str) -> None:
    file = tmp_path / "1.png"
    if kind == "bomb":
        Image.new("L", (60_000, 1)).save(file)
    else:
        pixels(kind).save(file)
    if kind == "cut":
        Image.fromarray(head(128)[0]).save(file)
        file.write_bytes(file.read_bytes()[:-400])
    if kind == "text":
        file.write_text("no picture")
    with pytest.raises(InputError) as caught:
        read_case(file)
    assert str(caught.value).startswith(f"{file}: {says}")


def test_sixteen_bit_and_constant_alpha_are_read(tmp_path: Path) -> None:
    grey = head(32)[0].astype(np.uint16) * 100
    Image.fromarray(grey).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_case(tmp_path / "1.png").image[1, ..., 0], grey.T)
    rgba = np.stack([head(32)[0]] * 3 + [np.full((32, 32), 255, np.uint8)], -1)
    Image.fromarray(rgba).save(tmp_path / "2.png")
    assert read_case(tmp_path / "2.png").missing == ("pre-contrast", "post-contrast")
