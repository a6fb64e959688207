import numpy as np
import pytest

from brainseg.axial import AxialSlice
from brainseg.errors import InputError
from brainseg.writers.pictures import read_pictures, write_pictures


def picture(*, width_mm=0.9, truth=True):
    flair = np.random.default_rng(0).random((6, 8), np.float32)
    mask = flair > 0.5
    return AxialSlice(3, 9, flair, mask, ~mask if truth else None, 1.25, width_mm)


def test_pictures_come_back_in_eight_bits(tmp_path):
    given = {"a": picture(), "b/../ü": picture(width_mm=None, truth=False)}
    write_pictures(tmp_path / "pictures.npz", given)
    read = read_pictures(tmp_path / "pictures.npz")
    assert list(read) == list(given)
    for case, one in read.items():
        np.testing.assert_allclose(one.flair, given[case].flair, atol=0.5 / 255 + 1e-6)
        np.testing.assert_array_equal(one.mask, given[case].mask)
        assert (one.number, one.count, one.aspect, one.width_mm) == (3, 9, 1.25, given[case].width_mm)
    np.testing.assert_array_equal(read["a"].truth, given["a"].truth)
    assert read["b/../ü"].truth is None


def test_no_pictures_are_a_file_too(tmp_path):
    write_pictures(tmp_path / "pictures.npz", {})
    assert read_pictures(tmp_path / "pictures.npz") == {}


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_damaged_file_is_refused(tmp_path, keep):
    path = tmp_path / "pictures.npz"
    write_pictures(path, {"a": picture()})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read as pictures"):
        read_pictures(path)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "pictures.npz", cases=np.array([{"a": 1}], object))
    with pytest.raises(InputError, match="cannot be read as pictures"):
        read_pictures(tmp_path / "pictures.npz")
