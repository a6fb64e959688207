import numpy as np
import pytest
from PIL import Image

from brainseg.axial import in_eight_bits
from brainseg.errors import InputError
from brainseg.writers.slices import Sheet, flair_of, read_slices, write_sheet


def scan(count=7, rows=40, columns=48):
    """Smooth slices, each with a square of its own brightness."""
    slices = np.zeros((count, rows, columns), np.float32)
    for k in range(count):
        slices[k, 8:24, 12:36] = (k + 1) / count
    return slices


def test_slices_come_back_in_their_order_and_near_their_grey(tmp_path):
    write_sheet(tmp_path / "slices.webp", list(in_eight_bits(scan())))
    tiles, sheet = read_slices(tmp_path / "slices.webp", 7, 40, 48)
    assert (sheet.columns, sheet.width, sheet.height) == (3, 48, 40)
    assert [round(float(tile[10:22, 16:32].mean()) / 255, 1) for tile in tiles] == [0.1, 0.3, 0.4, 0.6, 0.7, 0.9, 1.0]
    assert np.abs(flair_of(tiles, 40, 48) - scan()).mean() < 0.02


def test_equal_slices_give_equal_bytes(tmp_path):
    for name in ("a.webp", "b.webp"):
        write_sheet(tmp_path / name, list(in_eight_bits(scan())))
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(30, 1024, 1024), (400, 512, 512), (3000, 320, 320), (1, 2, 900)]
)
def test_a_sheet_stays_within_what_webp_can_hold(count, rows, columns):
    sheet = Sheet.of(count, rows, columns)
    assert max(sheet.size) <= 16383
    assert max(sheet.width, sheet.height) <= 320
    assert sheet.columns * (sheet.size[1] // sheet.height) >= count


def test_large_slices_are_made_smaller_and_come_back_in_their_own_size(tmp_path):
    write_sheet(tmp_path / "slices.webp", list(in_eight_bits(scan(2, 640, 480))))
    tiles, _ = read_slices(tmp_path / "slices.webp", 2, 640, 480)
    assert tiles.shape == (2, 320, 240)
    assert flair_of(tiles, 640, 480)[1, 12, 20] == pytest.approx(1.0, abs=0.03)


def test_a_picture_of_another_scan_or_none_at_all_is_an_input_error(tmp_path):
    path = tmp_path / "slices.webp"
    Image.new("L", (10, 10)).save(path)
    with pytest.raises(InputError, match="not the picture of this scan"):
        read_slices(path, 7, 40, 48)
    path.write_bytes(b"RIFF....WEBP")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_slices(path, 7, 40, 48)
