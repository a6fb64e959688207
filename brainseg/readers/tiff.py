"""TIFF slices to one stack: X = column, Y = row, Z = slice, as case.py has it.

Nothing is flipped but by the Orientation tag. Every header is judged before a pixel is decoded. Resolution tags are
ignored: a slice has no spacing that can be relied on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffPage

from brainseg.case import CHANNELS, FLAIR
from brainseg.errors import InputError, MachineError
from brainseg.readers.checks import MOST_VOXELS, binary_mask, checked_finite, checked_values
from brainseg.readers.codestream import frame_size
from brainseg.readers.grid import Shape
from brainseg.study import Series

LONGEST_SIDE = 8192
SAVE_GREY = "save it as plain grayscale or RGB"
SAVE_AGAIN = "copy it again, or save it again"
_ALPHA = {2: 1, 4: 3}  # samples: of which the first carry the image
_MOST_RATIO = {COMPRESSION.NONE: 1, COMPRESSION.LZW: 1600, COMPRESSION.DEFLATE: 1100, COMPRESSION.ADOBE_DEFLATE: 1100}
_CODESTREAMS = (6, 7, 33003, 33004, 33005, 33007, 34712, 34892)  # JPEG and JPEG 2000, as COMPRESSION numbers them
_SEVERAL = "give one file for each slice"

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else its warnings go to stderr


@dataclass(frozen=True)
class TiffStack:
    """Slices as one array.

    Attributes:
        channels: float32 `(1, X, Y, Z)`, the FLAIR alone, or `(3, X, Y, Z)` in the order of `CHANNELS`; finite.
        files: one a slice, in order of Z.
        notes: what the reader did or saw that the user should know.
    """

    channels: NDArray[np.float32]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Slice:
    """What the header of one file says.

    Attributes:
        kind: samples (1 or 3 without alpha), sample format and bits, whether white is 0: alike in all slices.
        orientation: TIFF's Orientation tag, 1 to 8.
        page: the only one, as tifffile has it, of a file that is closed.
    """

    file: Path
    columns: int
    rows: int
    samples: int
    kind: tuple[int, str, bool]
    orientation: int
    page: TiffPage

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows once the Orientation tag is applied."""
        return (self.rows, self.columns) if self.orientation >= 5 else (self.columns, self.rows)


def read_tiff(series: Series) -> TiffStack:
    """The stack of a series' slices, in the order of its files.

    Three samples are the channels, one is the FLAIR. An alpha channel that is the same everywhere is dropped,
    MinIsWhite inverted and the Orientation tag applied, each with a note.

    Raises:
        InputError: if a file is damaged, too large, has several pages, colours that are no channels, or is unlike the
            rest; or if the FLAIR holds nothing.
        MachineError: if a file may not be read.
    """
    slices = _slices(series.files)
    first = slices[0]
    width, height = first.size
    samples, kind, inverted = first.kind
    whole = np.dtype(kind).kind in "biu"
    # Whole numbers stay of the files' own kind here, since small pixels are the quicker to put in their places.
    stack = np.empty((samples, width, height, len(slices)), dtype=kind if whole else np.float32)
    for z, item in enumerate(slices):
        with np.errstate(over="ignore"):  # to infinity, which is refused
            pixels = _pixels(item).astype(stack.dtype, copy=False)
        stack[..., z] = (pixels if whole else checked_finite(item.file, pixels)).transpose(2, 1, 0)
    channels: NDArray[np.float32] = stack.astype(np.float32, copy=False)
    where = first.file.parent if len(slices) > 1 else first.file
    checked_values(where, channels[FLAIR if samples == 3 else 0])
    notes = []
    if inverted:
        for channel in channels:
            channel[...] = (channel.max() + channel.min()) - channel
        notes.append("MinIsWhite inverted")
    turned = sum(item.orientation != 1 for item in slices)
    if turned:
        notes.append(f"Orientation tag applied to {turned} of {len(slices)} slices")
    if first.samples in _ALPHA:
        notes.append("constant alpha channel dropped")
    return TiffStack(channels, tuple(series.files), tuple(notes))


def read_tiff_masks(files: Sequence[Path]) -> NDArray[np.uint8]:
    """The masks of all slices, in the order of `files`, as uint8 0/1 (X, Y, Z): 1 where a pixel is not 0.

    Raises:
        InputError: as `read_tiff`, or if they hold no labels. Bilevel masks are read; empty ones too.
        MachineError: if a file may not be read.
    """
    slices = _slices(files, mask=True)
    width, height = slices[0].size
    mask = np.empty((width, height, len(slices)), dtype=np.uint8)
    for z, item in enumerate(slices):
        pixels = _pixels(item)
        if (pixels != pixels[..., :1]).any():
            raise InputError(item.file, "is a coloured mask", "save it as plain grayscale, 0 outside")
        plane = pixels[..., 0].T
        _, kind, inverted = item.kind
        if inverted:
            plane = (np.iinfo(plane.dtype).max if kind != "bool" else True) - plane.astype(np.int64)
        mask[..., z] = binary_mask(item.file, plane)
    return mask


def tiff_shape(files: Sequence[Path]) -> Shape:
    """The (X, Y, Z) that `read_tiff` gives for these files, from their headers alone.

    Raises:
        InputError: as `read_tiff`, for what the headers can tell.
        MachineError: if a file may not be read.
    """
    slices = _slices(files)
    return (*slices[0].size, len(slices))


def _slices(files: Sequence[Path], *, mask: bool = False) -> list[_Slice]:
    """The headers of all files, which are alike and together not too large."""
    if not files:
        raise InputError("TIFF series", "holds no files", "give a folder of TIFF slices")
    slices = []
    for file in files:
        with _readable(file):
            if file.stat().st_size == 0:
                raise InputError(file, "is empty", "copy it again")
            with tifffile.TiffFile(file) as tiff:
                slices.append(_judged(file, tiff, mask))
    first = slices[0]
    for item in slices[1:]:
        for what, own, others in (
            ("size", item.size, first.size),
            ("number of channels", item.samples, first.samples),
            ("kind of pixels", item.kind, first.kind),
        ):
            if own != others:
                cause = f"has another {what} than {first.file.name} ({_shown(own)}, not {_shown(others)})"
                raise InputError(item.file, cause, "move what does not belong to the scan elsewhere")
    voxels = first.columns * first.rows * first.kind[0] * len(slices)
    if voxels > MOST_VOXELS:
        cause = f"makes a stack of {voxels} voxels with the other {len(slices) - 1} slices, more than {MOST_VOXELS}"
        raise InputError(first.file, cause, "crop or downsample the slices")
    return slices


def _shown(value: int | tuple[Any, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    if len(value) == 2:
        return f"{value[0]} x {value[1]}"
    samples, kind, inverted = value
    return f"{samples} channels of {kind}{', white is 0' if inverted else ''}"


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Whatever tifffile raises while the file is read as an InputError."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise MachineError(file, f"cannot be read ({error.strerror})", "check its permissions") from None
    except MemoryError:
        raise
    except Exception as error:  # struct, zlib, imagecodecs: a damaged file may raise anything
        if "imagecodecs" in str(error):
            cause = "is compressed in a way that needs the package imagecodecs"
            raise InputError(file, cause, "pip install imagecodecs") from None
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise InputError(file, f"is not a TIFF image that can be read ({reason})", SAVE_AGAIN) from None


def _judged(file: Path, tiff: tifffile.TiffFile, mask: bool) -> _Slice:
    """What the header says, or an error where it does not describe one plain slice."""
    page = _only_page(file, tiff)
    columns, rows = page.imagewidth, page.imagelength
    if columns < 1 or rows < 1:
        raise InputError(file, f"declares {columns} x {rows} pixels", SAVE_AGAIN)
    if max(columns, rows) > LONGEST_SIDE:
        raise InputError(file, f"has {columns} x {rows} pixels, more than {LONGEST_SIDE} a side", "downsample it")
    samples, white_is_0 = page.samplesperpixel, page.photometric == PHOTOMETRIC.MINISWHITE
    _refuse_colours(file, page, mask)
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag is not None and isinstance(tag.value, int) else 1
    if not 1 <= orientation <= 8:
        raise InputError(file, f"has an Orientation tag of {orientation}", "save it again")
    _refuse_incomplete(file, page)
    if page.dtype is None:  # _refuse_colours leaves only what tifffile can decode
        raise InputError(file, "has pixels of an unknown kind", SAVE_GREY)
    kind = (_ALPHA.get(samples, samples), str(page.dtype), white_is_0)
    return _Slice(file, columns, rows, samples, kind, orientation, page)


def _only_page(file: Path, tiff: tifffile.TiffFile) -> TiffPage:
    """The page of a file that has no other, in no way that a TIFF may hold several images."""
    page = tiff.pages[0]
    if not isinstance(page, TiffPage):
        raise InputError(file, "has a first page that cannot be read", SAVE_AGAIN)
    if tiff.is_imagej:  # may hold a whole stack behind a single page
        images = (tiff.imagej_metadata or {}).get("images", 1)
        if images != 1:
            raise InputError(file, f"holds {images} images (an ImageJ stack)", _SEVERAL)
    try:
        tiff.pages[1]
    except IndexError:
        pass
    else:
        if len(tiff.pages) == 1:
            raise InputError(file, "has a page that comes after itself", SAVE_AGAIN)
        raise InputError(file, f"holds {len(tiff.pages)} pages", _SEVERAL)
    if page.imagedepth != 1:
        raise InputError(file, f"holds {page.imagedepth} planes", _SEVERAL)
    return page


def _refuse_colours(file: Path, page: TiffPage, mask: bool) -> None:
    """Refuse pixels whose values are neither grey nor three channels."""
    if page.photometric == PHOTOMETRIC.PALETTE:
        raise InputError(file, "is a palette image: its values are indices of colours", SAVE_GREY)
    if page.photometric not in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
        name = getattr(page.photometric, "name", page.photometric)
        raise InputError(file, f"has colours stored as {name}", SAVE_GREY)
    if page.bitspersample == 1 and not mask:
        raise InputError(file, "is bilevel: black and white only", "give the image itself; is this a mask?")
    allowed = (1, 8, 16, 32, 64) if mask else (8, 16, 32, 64)
    if page.bitspersample not in allowed or page.dtype is None or page.dtype.kind not in "buif":
        raise InputError(file, f"has pixels of {page.bitspersample} bits of an unusual kind", SAVE_GREY)
    if page.photometric == PHOTOMETRIC.MINISWHITE and page.dtype.kind not in "bu":
        raise InputError(file, "has white as 0 with signed or real values", SAVE_GREY)
    if page.samplesperpixel not in (1, 2, 3, 4):
        raise InputError(file, f"has {page.samplesperpixel} channels", SAVE_GREY)


def _refuse_incomplete(file: Path, page: TiffPage) -> None:
    """Refuse an image whose strips or tiles do not lie in the file, or do not hold as much as it declares."""
    held = file.stat().st_size
    offsets, counts = page.dataoffsets, page.databytecounts
    needed = int(np.prod(page.chunked, dtype=np.int64))
    if len(offsets) != needed or len(counts) != needed or min(offsets) <= 0 or min(counts) <= 0:
        cause = f"declares {page.imagewidth} x {page.imagelength} pixels in {needed} parts, and holds {len(offsets)}"
        raise InputError(file, cause, SAVE_AGAIN)
    if max(offset + count for offset, count in zip(offsets, counts, strict=True)) > held:
        raise InputError(file, "is cut short: a part of its pixels lies beyond its end", "copy it again")
    if page.compression in _CODESTREAMS:
        _refuse_other_frames(file, page)
    bits = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    if sum(counts) * _MOST_RATIO.get(page.compression, bits) < bits // 8:  # of others no bound is known
        cause = f"declares {page.imagewidth} x {page.imagelength} pixels and holds only {sum(counts)} bytes of them"
        raise InputError(file, cause, SAVE_AGAIN)


def _refuse_other_frames(file: Path, page: TiffPage) -> None:
    """Refuse strips or tiles whose codestream is larger than they are, which its decoder would allocate."""
    high, wide = page.tile if page.is_tiled else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        page.parent.filehandle.seek(offset)
        size = frame_size(page.parent.filehandle.read(count))
        if size is None or size[0] > wide or size[1] > high or size[2] > page.samplesperpixel:
            said = "no size" if size is None else "{} x {} x {}".format(*size)
            cause = f"holds a part of {wide} x {high} pixels whose codestream says {said}"
            raise InputError(file, cause, SAVE_AGAIN)


def _pixels(item: _Slice) -> NDArray[Any]:
    """The pixels of one file, (Y, X, 1 or 3) in display order, without alpha."""
    page = item.page
    with _readable(item.file), page.parent.filehandle as handle:
        handle.open()
        decoded = np.empty(page.shaped, dtype=page.dtype)
        for part, (plane, _, row, column, _), (_, high, wide, _) in page.segments():
            high, wide = min(high, item.rows - row), min(wide, item.columns - column)  # tiles reach over the border
            if part is None or part.shape[1] < high or part.shape[2] < wide:
                raise InputError(item.file, "is cut short: a part of its pixels is missing", SAVE_AGAIN)
            decoded[plane, 0, row : row + high, column : column + wide] = part[0, :high, :wide]
    pixels = decoded[:, 0].transpose(1, 2, 0, 3).reshape(item.rows, item.columns, -1)
    if pixels.shape[2] != item.samples:
        raise InputError(item.file, f"declares {item.samples} channels and holds {pixels.shape[2]}", SAVE_AGAIN)
    kept = item.kind[0]
    if kept < item.samples:
        alpha = pixels[..., kept]
        if alpha.min() != alpha.max():
            raise InputError(item.file, "has an alpha channel that is not the same everywhere", "save it without alpha")
    return _upright(pixels[..., :kept], item.orientation)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(Y, X, S) with row 0 at the top and column 0 at the left, from what TIFF 6.0's Orientation tag says."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    bottom_up = orientation in (3, 4, 7, 8)
    right_to_left = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if bottom_up else 1, :: -1 if right_to_left else 1]


def missing_channels(channels: NDArray[np.float32]) -> tuple[str, ...]:
    """The names of the channels of `channels` (3, X, Y, Z) that say nothing of their own: blank, or equal to FLAIR."""
    return tuple(
        name
        for name, channel in zip(CHANNELS, channels, strict=True)
        if name != CHANNELS[FLAIR] and (not channel.any() or np.array_equal(channel, channels[FLAIR]))
    )
