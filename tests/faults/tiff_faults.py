"""TIFF slices that are wrong or unusual."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from faults.fault import Builder, Fault
from faults.head import BRIGHT, FLAIR, SLICES
from faults.results import mask_is, record_of
from numpy.typing import NDArray

GROUP = "TIFF"
Pixels = NDArray[Any]

RGB = np.stack([FLAIR // 2, FLAIR, FLAIR // 4 * 3], axis=-1)
AFFINE = np.diag([-1.0, -1, 1, 1])


def slices(folder: Path, pixels: Pixels = RGB, name: str = "p_{}.tif", **options: Any) -> list[Path]:
    """The same slice four times, numbered from 1."""
    files = [folder / name.format(number) for number in range(1, SLICES + 1)]
    for file in files:
        save(file, pixels, **options)
    return files


def save(file: Path, pixels: Pixels, **options: Any) -> None:
    options.setdefault("photometric", "rgb" if pixels.shape[-1] == 3 else "minisblack")
    tifffile.imwrite(file, pixels, **{"metadata": None, **options})


def all_are(pixels: Pixels, **options: Any) -> Builder:
    """Every slice is this."""

    def build(folder: Path) -> None:
        slices(folder, pixels, **options)

    return build


def second_is(pixels: Pixels, others: Pixels = RGB, **options: Any) -> Builder:
    """The second of four slices is this."""

    def build(folder: Path) -> None:
        save(slices(folder, others)[1], pixels, **options)

    return build


def second_holds(content: bytes | Callable[[bytes], bytes], **options: Any) -> Builder:
    """The file of the second of four slices has these bytes, or what becomes of its own."""

    def build(folder: Path) -> None:
        file = slices(folder, **options)[1]
        file.write_bytes(content if isinstance(content, bytes) else content(file.read_bytes()))

    return build


def becomes(number: int, made: Callable[[Path], None]) -> Builder:
    """In place of one of four slices there is something else."""

    def build(folder: Path) -> None:
        file = slices(folder)[number - 1]
        file.unlink()
        made(file)

    return build


def second_says(**tags: int) -> Builder:
    """The second of four slices, packed in strips, has other values in its tags."""

    def build(folder: Path) -> None:
        with tifffile.TiffFile(slices(folder, compression="zlib", rowsperstrip=8)[1], mode="r+") as opened:
            for name, value in tags.items():
                opened.pages[0].tags[name].overwrite(value)

    return build


def with_masks(*numbers: int) -> Builder:
    """Four slices, and masks of these numbers."""

    def build(folder: Path) -> None:
        slices(folder)
        for number in numbers:
            save(folder / f"p_{number}_mask.tif", FLAIR)

    return build


def without(number: int) -> Builder:
    """Four slices but for this one."""

    def build(folder: Path) -> None:
        slices(folder)[number - 1].unlink()

    return build


def with_one_more(name: str) -> Builder:
    """Four slices, and a fifth of this name."""

    def build(folder: Path) -> None:
        slices(folder)
        save(folder / name, RGB)

    return build


def declaring(side: int, compression: int = 1) -> bytes:
    """A TIFF of some 200 bytes that declares side x side colour pixels."""
    entries = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, side), (279, 4, 1, 64)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + struct.pack("<H", len(entries)) + packed + bytes(4)


def page_without_end(folder: Path) -> None:
    """The next page of the second slice is that page itself."""
    file = slices(folder)[1]
    with tifffile.TiffFile(file) as opened:
        first, entries = opened.pages[0].offset, len(opened.pages[0].tags)
    content = bytearray(file.read_bytes())
    at = first + 2 + 12 * entries
    content[at : at + 4] = struct.pack("<I", first)
    file.write_bytes(content)


def numbered_to_10(folder: Path) -> None:
    """`1.tif` to `10.tif`, bright in the first three and not in the others."""
    for number in range(1, 11):
        save(folder / f"{number}.tif", RGB if number <= 3 else RGB.clip(max=np.uint8((50, 100, 75))))


def unicode_and_spaces(folder: Path) -> Path:
    patient = folder / "Zoë 脑 scan 1"
    patient.mkdir()
    slices(patient, name="Zoë 脑_{}.tif")
    return patient


def spoilt(value: float, channel: int) -> Pixels:
    """A slice of real values, one of them this, outside the head."""
    pixels = RGB.astype(np.float32)
    pixels[0, 0, channel] = value
    return pixels


def bright(results: Path) -> None:
    mask_is(results, BRIGHT, AFFINE)


def bright_in_the_first_three(results: Path) -> None:
    mask_is(results, np.repeat(BRIGHT[..., :1], 10, axis=2) & (np.arange(10) < 3), AFFINE)


def bright_of_unknown_size(results: Path) -> None:
    bright(results)
    row = record_of(results).row
    assert (row.volume_ml, row.volume_voxels) == (None, 16 * 12 * 4)
    assert "spacing_unknown" in row.flags
    line = next(line for line in (results.parent / "cohort.csv").read_text().splitlines() if line.startswith("bad,"))
    assert line.startswith("bad,done,,768,1,")


def bright_under_its_own_names(results: Path) -> None:
    bright(results)
    assert {file.name for file in results.glob("*.tif")} == {f"Zoë 脑_{number}_mask.tif" for number in range(1, 5)}


def bright_of_the_flair_alone(results: Path) -> None:
    bright(results)
    assert "sequences_missing" in record_of(results).row.flags


NO_TIFF = "p_2.tif: is not a TIFF image that can be read"
PALETTE = np.arange(256, dtype=np.uint16).repeat(3).reshape(256, 3).T * 257
FAULTS = [
    Fault(GROUP, "empty file", second_holds(b""), refused="p_2.tif: is empty; copy it again"),
    Fault(GROUP, "text named .tif", second_holds(b"<html>please log in</html>\n"), refused=NO_TIFF),
    Fault(GROUP, "truncated", second_holds(lambda own: own[: len(own) // 2]), refused="p_2.tif: is cut short"),
    Fault(
        GROUP,
        "truncated, packed in strips",
        second_holds(lambda own: own[: len(own) // 2], compression="zlib", rowsperstrip=8),
        refused="p_2.tif: is cut short: a part of its pixels lies beyond its end; copy it again",
    ),
    Fault(
        GROUP, "dimensions that lie: higher", second_says(ImageLength=90), refused="p_2.tif: declares 48 x 90 pixels"
    ),
    Fault(
        GROUP, "dimensions that lie: lower", second_says(ImageLength=56), refused="p_2.tif: has another size than p_1"
    ),
    Fault(
        GROUP, "dimensions that lie: wider", second_says(ImageWidth=500), refused="p_2.tif: has another size than p_1"
    ),
    Fault(GROUP, "dimension 0", second_says(ImageWidth=0), refused="p_2.tif: declares 0 x 64 pixels; copy it again"),
    Fault(
        GROUP,
        "dimensions that lie: 8000x8000 in 64 bytes",
        second_holds(declaring(8000)),
        refused="p_2.tif: declares 8000 x 8000 pixels and holds only 64 bytes of them; copy it again",
        frugal=True,
    ),
    Fault(
        GROUP,
        "dimensions that lie: 8000x8000 in 64 packed bytes",
        lambda folder: (folder / "p_1.tif").write_bytes(declaring(8000, compression=8)) and None,
        refused="p_1.tif: declares 8000 x 8000 pixels and holds only 64 bytes of them; copy it again",
        frugal=True,
    ),
    Fault(
        GROUP,
        "20000x20000 bomb",
        second_holds(declaring(20000)),
        refused="p_2.tif: has 20000 x 20000 pixels, more than 8192 a side; downsample it",
        frugal=True,
    ),
    Fault(
        GROUP,
        "sizes differ between slices",
        second_is(RGB[:, 1:]),
        refused="p_2.tif: has another size than p_1.tif (47 x 64, not 48 x 64); move what does not belong",
    ),
    Fault(
        GROUP,
        "a slice number missing",
        without(2),
        refused="slice 2 is missing between p_1.tif and p_3.tif; export the patient again complete",
    ),
    Fault(
        GROUP,
        "a slice number twice",
        with_one_more("p_02.tif"),
        refused="slice 2 is there twice (p_02.tif and p_2.tif); remove one of them",
    ),
    Fault(
        GROUP,
        "channel count changes",
        second_is(FLAIR),
        refused="p_2.tif: has another number of channels than p_1.tif (1, not 3); move what does not belong",
    ),
    Fault(
        GROUP,
        "palette",
        second_is(FLAIR, photometric="palette", colormap=PALETTE),
        refused="p_2.tif: is a palette image: its values are indices of colours; save it as plain grayscale or RGB",
    ),
    Fault(GROUP, "bilevel", second_is(FLAIR > 0), refused="p_2.tif: is bilevel: black and white only; give the image"),
    Fault(
        GROUP,
        "MinIsWhite",
        all_are(255 - FLAIR, photometric="miniswhite"),
        check=bright,
        says="MinIsWhite inverted",
    ),
    Fault(
        GROUP,
        "MinIsWhite in one slice",
        second_is(255 - FLAIR, FLAIR, photometric="miniswhite"),
        refused="p_2.tif: has another kind of pixels than p_1.tif (1 channels of uint8, white is 0, not 1 channels of",
    ),
    Fault(
        GROUP,
        "multipage",
        second_is(np.stack([FLAIR] * 2), FLAIR),
        refused="p_2.tif: holds 2 pages; give one file for each slice",
    ),
    Fault(
        GROUP,
        "multipage, the whole scan in one file",
        lambda folder: save(folder / "p.tif", np.stack([RGB] * 4), photometric="rgb"),
        refused="p.tif: holds 4 pages; give one file for each slice",
    ),
    Fault(
        GROUP,
        "multipage, as ImageJ hides it",
        second_is(np.stack([FLAIR] * 4), FLAIR, imagej=True, metadata={"axes": "ZYX"}, photometric=None),
        refused="p_2.tif: holds 4 images (an ImageJ stack); give one file for each slice",
    ),
    Fault(
        GROUP, "a page that comes after itself", page_without_end, refused="p_2.tif: has a page that comes after itself"
    ),
    Fault(
        GROUP,
        "Orientation tag 3",
        all_are(RGB[::-1, ::-1], extratags=[(274, 3, 1, 3, True)]),
        check=bright,
        says="Orientation tag applied to 4 of 4 slices",
    ),
    Fault(
        GROUP,
        "Orientation tag 6 in one slice",
        second_is(RGB.transpose(1, 0, 2)[::-1], extratags=[(274, 3, 1, 6, True)]),
        check=bright,
        says="Orientation tag applied to 1 of 4 slices",
    ),
    Fault(
        GROUP,
        "Orientation tag 9",
        second_is(RGB, extratags=[(274, 3, 1, 9, True)]),
        refused="p_2.tif: has an Orientation tag of 9; save it again",
    ),
    Fault(GROUP, "2.tif before 10.tif", numbered_to_10, check=bright_in_the_first_three),
    Fault(
        GROUP,
        "mask without image",
        with_masks(1, 2, 3, 4, 5),
        refused="mask p_5_mask.tif has no image; restore the image, or remove the mask",
    ),
    Fault(
        GROUP,
        "image without mask",
        with_masks(1, 2, 4),
        refused="image p_3.tif has no mask while others have; restore its mask, or remove them all",
    ),
    Fault(GROUP, "no spacing", all_are(RGB), check=bright_of_unknown_size),
    Fault(GROUP, "Unicode and spaces in paths", unicode_and_spaces, check=bright_under_its_own_names),
    Fault(GROUP, "grayscale 1-channel", all_are(FLAIR), check=bright_of_the_flair_alone),
    Fault(GROUP, "16 bit", all_are(RGB.astype(np.uint16) * 300), check=bright),
    Fault(
        GROUP, "16 bit in one slice", second_is(RGB.astype(np.uint16)), refused="p_2.tif: has another kind of pixels"
    ),
    Fault(GROUP, "real values", all_are(RGB.astype(np.float32) / 255), check=bright),
    Fault(
        GROUP,
        "real values, one of them NaN",
        second_is(spoilt(np.nan, 1), spoilt(0, 1)),
        refused="p_2.tif: has NaN values (1 of 9216 voxels); replace",
    ),
    Fault(
        GROUP,
        "real values, one of them infinite beside the FLAIR",
        second_is(spoilt(np.inf, 0), spoilt(0, 1)),
        refused="p_2.tif: has infinite values (1 of 9216 voxels); replace them, by 0 if outside",
    ),
    Fault(
        GROUP,
        "big-endian, packed with a predictor",
        all_are(RGB, byteorder=">", compression="lzw", predictor=True),
        check=bright,
    ),
    Fault(
        GROUP,
        "JPEG inside, grayscale",
        all_are(FLAIR, compression="jpeg", compressionargs={"level": 100}),
        check=bright,
    ),
    Fault(
        GROUP,
        "JPEG inside, colour",
        second_is(RGB, compression="jpeg"),
        refused="p_2.tif: has colours stored as YCBCR; save it as plain grayscale or RGB",
    ),
    Fault(
        GROUP,
        "all zero",
        all_are(np.zeros_like(RGB)),
        refused="bad: holds nothing: all its voxels are 0; export it again",
    ),
    Fault(
        GROUP,
        "a slice that is a link to nothing",
        becomes(4, lambda file: file.symlink_to("archive.tif")),
        refused="p_4.tif: cannot be read (No such file or directory); ",
    ),
    Fault(
        GROUP,
        "a slice that is a link to itself",
        becomes(2, lambda file: file.symlink_to(file)),
        refused="p_2.tif: cannot be read (Too many levels of symbolic links)",
    ),
    Fault(GROUP, "a folder named .tif", becomes(2, Path.mkdir), refused="slice 2 is missing between p_1.tif and p_3"),
    Fault(
        GROUP,
        "a pipe named .tif",
        becomes(2, lambda file: os.mkfifo(file)),
        refused="slice 2 is missing between p_1.tif and p_3",
    ),
]
