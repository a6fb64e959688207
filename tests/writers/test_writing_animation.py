"""overlay.gif: a frame a slice, the contour in the right ones, equal bytes for equal cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainseg.case import TIFF_AFFINE, Case
from brainseg.writers.animation import BAND, FOOT, STRIP, write_animation
from brainseg.writers.overlay import MASK_COLOUR, TRUTH_COLOUR

LPS = np.diag([-1.0, -1.0, 4.0, 1.0])


def head(shape: tuple[int, int, int] = (48, 40, 7)) -> tuple[Case, np.ndarray]:
    """A grey box, with a mask in front, at the patient's right, on the fourth and fifth slice."""
    image = np.zeros(shape, np.float32)
    image[2:-2, 2:-2] = 100
    mask = np.zeros(shape, np.uint8)
    mask[6:16, 8:14, 3:5] = 1
    return Case("phantom", np.stack([image] * 3), LPS, (1.0, 1.0, 4.0), "nifti"), mask


def frames(path: Path) -> list[np.ndarray]:
    """RGB of the slice itself in each frame, without the words and the strip."""
    with Image.open(path) as picture:
        shots = []
        for k in range(picture.n_frames):
            picture.seek(k)
            shots.append(np.asarray(picture.convert("RGB"))[BAND : -STRIP - FOOT])
        return shots


def places(shot: np.ndarray, colour: str) -> np.ndarray:
    return np.argwhere((shot == [int(colour[k : k + 2], 16) for k in (1, 3, 5)]).all(axis=-1))


def test_there_is_a_frame_a_slice_and_the_contour_is_in_those_with_mask(tmp_path: Path) -> None:
    case, mask = head()
    write_animation(tmp_path / "overlay.gif", case, mask)
    drawn = [len(places(shot, MASK_COLOUR)) for shot in frames(tmp_path / "overlay.gif")]
    assert [count > 0 for count in drawn] == [False, False, False, True, True, False, False]
    assert drawn[3] > 200


def test_the_contour_lies_around_the_mask(tmp_path: Path) -> None:
    case, mask = head()
    write_animation(tmp_path / "overlay.gif", case, mask)
    shot = frames(tmp_path / "overlay.gif")[3]
    rows, columns = places(shot, MASK_COLOUR).T
    scale = 420 / 48  # the whole slice is shown, as the head fills it
    assert (columns.min(), columns.max()) == pytest.approx((6 * scale, 16 * scale), abs=2)
    assert (rows.min(), rows.max()) == pytest.approx((8 * scale, 14 * scale), abs=2)


def test_truth_has_its_own_contour(tmp_path: Path) -> None:
    case, mask = head()
    write_animation(tmp_path / "overlay.gif", case, mask, truth=np.roll(mask, (3, 1), axis=(0, 2)))
    shots = frames(tmp_path / "overlay.gif")
    assert [len(places(shot, TRUTH_COLOUR)) > 0 for shot in shots] == [False] * 4 + [True] * 2 + [False]


def test_slices_run_from_foot_to_head_whatever_the_scans_order(tmp_path: Path) -> None:
    case, mask = head()
    down = Case("phantom", case.image[..., ::-1].copy(), np.diag([-1.0, -1.0, -4.0, 1.0]), (1.0, 1.0, 4.0), "nifti")
    write_animation(tmp_path / "overlay.gif", down, mask[..., ::-1])
    drawn = [len(places(shot, MASK_COLOUR)) > 0 for shot in frames(tmp_path / "overlay.gif")]
    assert drawn == [False, False, False, True, True, False, False]


def test_equal_cases_give_identical_bytes_that_play_for_ever(tmp_path: Path) -> None:
    case, mask = head()
    for name in ("one.gif", "two.gif"):
        write_animation(tmp_path / name, case, mask)
    assert (tmp_path / "one.gif").read_bytes() == (tmp_path / "two.gif").read_bytes()
    with Image.open(tmp_path / "one.gif") as picture:
        assert (picture.info["loop"], picture.info["duration"]) == (0, 180)


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 3, 1), (3, 64, 2)])
@pytest.mark.parametrize("name", ["脑 größe", "x" * 300, "two\nlines"])
def test_odd_volumes_and_names_can_be_drawn(tmp_path: Path, shape: tuple[int, int, int], name: str) -> None:
    case = Case(name, np.full((3, *shape), np.nan, np.float32), TIFF_AFFINE, None, "tiff")
    write_animation(tmp_path / "overlay.gif", case, np.ones(shape, np.uint8))
    assert len(frames(tmp_path / "overlay.gif")) == shape[2]
