"""TIFF slices to stacks: where each pixel goes, and every defect by the sentence it is refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from brainseg.errors import InputError
from brainseg.readers import tiff
from brainseg.readers.tiff import TiffStack, missing_channels, read_tiff, read_tiff_masks, tiff_shape
from brainseg.study import Series

GREY = np.arange(1, 4 * 6 * 5 + 1, dtype=np.uint8).reshape(4, 6, 5)  # (slice, row, column)
RGB = np.stack([GREY, GREY + 50, GREY + 100], axis=-1)


def write(folder: Path, slices: Any, name: str = "p", **options: Any) -> list[Path]:
    files = [folder / f"{name}_{i}.tif" for i in range(1, len(slices) + 1)]
    options.setdefault("photometric", "rgb" if slices[0].ndim == 3 else "minisblack")
    for file, pixels in zip(files, slices, strict=True):
        tifffile.imwrite(file, pixels, metadata=None, **options)
    return files


def read(files: list[Path]) -> TiffStack:
    return read_tiff(Series("tiff", tuple(files)))


def test_x_is_the_column_y_the_row_and_z_the_slice(tmp_path: Path) -> None:
    stack = read(write(tmp_path, RGB))
    assert stack.channels.shape == (3, 5, 6, 4)
    assert stack.channels.dtype == np.float32
    for channel, column, row, z in [(0, 0, 0, 0), (1, 4, 0, 1), (2, 0, 5, 2), (1, 3, 2, 3)]:
        assert stack.channels[channel, column, row, z] == RGB[z, row, column, channel]
    assert stack.notes == ()


def test_grayscale_is_the_flair_alone(tmp_path: Path) -> None:
    files = write(tmp_path, GREY)
    stack = read(files)
    np.testing.assert_array_equal(stack.channels, GREY.transpose(2, 1, 0)[None])
    assert stack.files == tuple(files)
    assert tiff_shape(files) == (5, 6, 4)


def test_order_is_that_of_the_series_and_not_of_the_names(tmp_path: Path) -> None:
    files = write(tmp_path, GREY)[::-1]
    np.testing.assert_array_equal(read(files).channels[0], GREY[::-1].transpose(2, 1, 0))


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"compression": "lzw"}, {"compression": "packbits"}])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 4}, {"tile": (16, 16)}, {"planarconfig": "separate"}])
def test_compression_strips_tiles_and_planes_give_the_same_pixels(
    tmp_path: Path, options: dict[str, Any], layout: dict[str, Any]
) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (2, 21, 37, 3), dtype=np.uint8)
    slices = rgb.transpose(0, 3, 1, 2) if "planarconfig" in layout else rgb
    stack = read(write(tmp_path, slices, photometric="rgb", **options, **layout))
    np.testing.assert_array_equal(stack.channels, rgb.transpose(3, 2, 1, 0))


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i2", "u4", "f4", "f8"])
def test_every_common_kind_of_pixel_is_read(tmp_path: Path, dtype: str) -> None:
    stack = read(write(tmp_path, (GREY.astype(dtype) * np.dtype(dtype).type(2)), byteorder=None))
    np.testing.assert_array_equal(stack.channels[0], GREY.transpose(2, 1, 0) * 2.0)


def test_white_as_0_is_inverted_with_a_note(tmp_path: Path) -> None:
    stack = read(write(tmp_path, 255 - GREY, photometric="miniswhite"))
    np.testing.assert_array_equal(
        stack.channels[0], 255 - (255 - GREY.transpose(2, 1, 0)) - 0 + stack.channels.min() - 1
    )
    assert stack.notes == ("MinIsWhite inverted",)
    assert stack.channels[0, 4, 5, 3] > stack.channels[0, 0, 0, 0]


@pytest.mark.parametrize(
    ("tag", "stored"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: a[:, ::-1].T),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: a[::-1].T),
    ],
)
def test_orientation_tag_is_applied_with_a_note(
    tmp_path: Path, tag: int, stored: Callable[[np.ndarray], np.ndarray]
) -> None:
    # `stored` follows TIFF 6.0: where row 0 and column 0 of the file lie in the picture.
    slices = [np.ascontiguousarray(stored(plane)) for plane in GREY]
    stack = read(write(tmp_path, slices, extratags=[(274, 3, 1, tag, True)]))
    np.testing.assert_array_equal(stack.channels[0], GREY.transpose(2, 1, 0))
    assert stack.notes == ("Orientation tag applied to 4 of 4 slices",)


def test_orientation_agrees_with_pillow(tmp_path: Path) -> None:
    image, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    for tag in range(1, 9):
        (file,) = write(tmp_path, GREY[:1], name=f"o{tag}", compression="zlib", extratags=[(274, 3, 1, tag, True)])
        with image.open(file) as opened:
            theirs = np.asarray(ops.exif_transpose(opened))
        np.testing.assert_array_equal(read([file]).channels[0, :, :, 0].T, theirs)


@pytest.mark.parametrize("image", [RGB, GREY[..., None]])
def test_constant_alpha_is_dropped_with_a_note(tmp_path: Path, image: np.ndarray) -> None:
    alpha = np.full((*GREY.shape, 1), 255, dtype=np.uint8)
    photometric = "rgb" if image.shape[-1] == 3 else "minisblack"
    slices = np.concatenate([image, alpha], axis=-1)
    files = write(tmp_path, slices, photometric=photometric, extrasamples=["unassalpha"], planarconfig="contig")
    stack = read(files)
    np.testing.assert_array_equal(stack.channels, image.transpose(3, 2, 1, 0))
    assert stack.notes == ("constant alpha channel dropped",)


def test_blank_and_copied_channels_are_missing() -> None:
    flair = GREY.astype(np.float32)
    assert missing_channels(np.stack([0 * flair, flair, flair + 1])) == ("pre-contrast",)
    assert missing_channels(np.stack([flair + 1, flair, flair])) == ("post-contrast",)
    assert missing_channels(np.stack([flair - 1, flair, flair + 1])) == ()


def changed(folder: Path, **tags: int) -> list[Path]:
    files = write(folder, GREY, compression="zlib", rowsperstrip=2)
    with tifffile.TiffFile(files[1], mode="r+") as opened:
        for name, value in tags.items():
            opened.pages[0].tags[name].overwrite(value)
    return files


def replaced(folder: Path, data: bytes) -> list[Path]:
    files = write(folder, RGB)
    files[1].write_bytes(data)
    return files


def second(folder: Path, pixels: np.ndarray, base: np.ndarray = RGB, **options: Any) -> list[Path]:
    files = write(folder, base)
    tifffile.imwrite(files[1], pixels, metadata=options.pop("metadata", None), **options)
    return files


BAD: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "header only": (lambda f: replaced(f, b"II*\0\x08\0\0\0"), "p_2.tif: is not a TIFF image that can be read"),
    "IFD that points at itself": (lambda f: replaced(f, b"II*\0\x08\0\0\0\0\0\x08\0\0\0"), "p_2.tif: "),
    "all widths lie": (lambda f: [changed(f, ImageWidth=500)[1]], "p_2.tif: is not a TIFF image that can be read"),
    "volumetric": (lambda f: second(f, GREY, volumetric=True, photometric="minisblack"), "holds 4 planes"),
    "complex": (lambda f: second(f, GREY[0].astype(np.complex64)), "of an unusual kind"),
    "five channels": (
        lambda f: second(f, np.stack([GREY[0]] * 5, -1), photometric="minisblack", planarconfig="contig"),
        "has 5 channels",
    ),
    "CMYK": (lambda f: second(f, np.stack([GREY[0]] * 4, -1), photometric="separated"), "colours stored as SEPARATED"),
    "alpha that varies": (
        lambda f: write(f, np.stack([GREY] * 4, -1), photometric="rgb", extrasamples=["unassalpha"]),
        "has an alpha channel that is not the same everywhere",
    ),
    "blank FLAIR": (lambda f: write(f, RGB * np.array([1, 0, 1], np.uint8)), "holds nothing"),
    "no files": (lambda f: [], "holds no files"),
}


@pytest.mark.parametrize("name", BAD)
def test_defective_slice_is_refused_with_its_cause(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, fragment = BAD[name]
    files = make(tmp_path)
    capfd.readouterr()
    with pytest.raises(InputError) as caught:
        read(files)
    assert fragment in str(caught.value)
    assert capfd.readouterr().err == ""


def test_stack_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "MOST_VOXELS", 359)
    with pytest.raises(InputError, match="makes a stack of 360 voxels with the other 3 slices, more than 359"):
        read(write(tmp_path, RGB))


def test_missing_codec_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> Any:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    files = write(tmp_path, GREY, compression="lzw")
    monkeypatch.setattr(tifffile.TiffPage, "segments", refuse)
    with pytest.raises(InputError, match=r"p_1\.tif: is compressed .*; pip install imagecodecs"):
        read(files)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (np.uint8([0, 255]), {}),
        (np.uint8([0, 1]), {}),
        (np.uint16([0, 65535]), {}),
        (np.array([False, True]), {}),
        (np.uint8([255, 0]), {"photometric": "miniswhite"}),
        (np.array([True, False]), {"photometric": "miniswhite"}),
    ],
)
def test_mask_is_1_where_a_pixel_is_not_black(tmp_path: Path, pixels: np.ndarray, options: dict[str, Any]) -> None:
    mask = read_tiff_masks(write(tmp_path, pixels[GREY % 2], **options))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, (GREY % 2).transpose(2, 1, 0))


def test_grey_mask_saved_as_rgb_is_read(tmp_path: Path) -> None:
    mask = read_tiff_masks(write(tmp_path, np.stack([(GREY % 2) * np.uint8(255)] * 3, -1)))
    np.testing.assert_array_equal(mask, (GREY % 2).transpose(2, 1, 0))


def test_empty_masks_are_masks(tmp_path: Path) -> None:
    assert not read_tiff_masks(write(tmp_path, 0 * GREY)).any()


@pytest.mark.parametrize(("slices", "fragment"), [(GREY, "more than 16 different values"), (RGB, "is a coloured mask")])
def test_image_is_no_mask(tmp_path: Path, slices: np.ndarray, fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        read_tiff_masks(write(tmp_path, slices))
