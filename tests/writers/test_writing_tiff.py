import errno
from pathlib import Path

import numpy as np
import pytest
import tifffile

from brainseg.case import TIFF_AFFINE, Case
from brainseg.errors import InputError, MachineError
from brainseg.writers.tiff import write_tiff_masks


def case_of(files, shape=(7, 5, 3)):
    return Case("p", np.zeros((3, *shape), np.float32), TIFF_AFFINE, None, "tiff", tuple(Path(file) for file in files))


def marked(shape=(7, 5, 3)):
    mask = np.zeros(shape, np.uint8)
    mask[6, 0, 2] = 1  # last column, first row, third slice
    return mask


def test_each_slice_has_a_mask_with_its_name_and_its_rows_and_columns(tmp_path):
    paths = write_tiff_masks(tmp_path, case_of(["a/p_1.tif", "a/p_2.tif", "a/p_10.tif"]), marked())
    assert [path.name for path in paths] == ["p_1_mask.tif", "p_2_mask.tif", "p_10_mask.tif"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    pages = [tifffile.imread(path) for path in paths]
    assert all(page.shape == (5, 7) and page.dtype == np.uint8 for page in pages)
    assert pages[2][0, 6] == 255
    assert [int(page.sum()) for page in pages] == [0, 0, 255]


def test_equal_masks_give_identical_files(tmp_path):
    for folder in ("one", "two"):
        write_tiff_masks(tmp_path / folder, case_of(["1.tif", "2.tif", "3.tif"]), marked())
    assert (tmp_path / "one/3_mask.tif").read_bytes() == (tmp_path / "two/3_mask.tif").read_bytes()


def test_one_multipage_file_gives_one_multipage_mask(tmp_path):
    (path,) = write_tiff_masks(tmp_path, case_of(["stack.tif"]), marked())
    assert path.name == "stack_mask.tif"
    with tifffile.TiffFile(path) as pages:
        assert len(pages.pages) == 3
        assert pages.pages[2].asarray()[0, 6] == 255


def test_a_single_slice_one_pixel_wide_keeps_its_shape(tmp_path):
    (path,) = write_tiff_masks(tmp_path, case_of(["a.tif"], (1, 5, 1)), np.ones((1, 5, 1)))
    assert tifffile.imread(path).shape == (5, 1)


def test_names_that_would_collide_are_refused(tmp_path):
    with pytest.raises(InputError, match="only in their suffix"):
        write_tiff_masks(tmp_path, case_of(["1.tif", "1.tiff", "2.tif"]), marked())
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_another_grid_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        write_tiff_masks(tmp_path, case_of(["1.tif", "2.tif", "3.tif"]), np.zeros((5, 7, 3)))
    with pytest.raises(ValueError, match="one file for each"):
        write_tiff_masks(tmp_path, case_of(["1.tif", "2.tif"]), marked())


def test_a_full_disk_is_a_fault_of_the_machine(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MachineError, match="the disk is full"):
        write_tiff_masks(tmp_path, case_of(["a_1.tif", "a_2.tif", "a_3.tif"]), marked())
    assert list(tmp_path.iterdir()) == []
