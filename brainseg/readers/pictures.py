"""Slices as PNG, JPEG or MATLAB files to one stack: X = column, Y = row, Z = slice, as case.py has it.

Nothing is flipped. Every header is judged before a pixel is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import FLAIR
from brainseg.errors import InputError, MachineError
from brainseg.readers.checks import MOST_VOXELS, binary_mask, checked_values
from brainseg.readers.grid import Shape
from brainseg.readers.tiff import LONGEST_SIDE, SAVE_AGAIN, SAVE_GREY, TiffStack
from brainseg.study import Series, matlab

ORIENTATION = 0x0112
HALF = 128  # a mask that went through JPEG has greys along its edge
_MODES = {"L": 1, "LA": 1, "I;16": 1, "I;16B": 1, "I": 1, "RGB": 3, "RGBA": 3}  # channels without alpha


@dataclass(frozen=True)
class _Header:
    """Size of a slice, and its samples: 1, the FLAIR alone, or 3 in the order of `CHANNELS`."""

    size: tuple[int, int]
    samples: int


def read_pictures(series: Series) -> TiffStack:
    """The stack of a series' PNG, JPEG or MATLAB slices, in the order of its files.

    Raises:
        InputError: if a file is damaged, too large, of colours that are no channels, or unlike the rest; or if the
            FLAIR holds nothing.
        MachineError: if a file may not be read.
    """
    first = _judged(series.files)
    channels = np.empty((first.samples, *first.size, len(series.files)), dtype=np.float32)
    for z, file in enumerate(series.files):
        channels[..., z] = _pixels(file)
    where = series.files[0].parent if len(series.files) > 1 else series.files[0]
    checked_values(where, channels[FLAIR if first.samples == 3 else 0])
    return TiffStack(channels, tuple(series.files))


def read_picture_masks(files: Sequence[Path]) -> NDArray[np.uint8]:
    """The masks of all slices, in the order of `files`, as uint8 0/1 (X, Y, Z): 1 where a pixel is not 0.

    Of a JPEG, whose edges are grey, 1 where it is at least 128. A MATLAB file gives its `tumorMask`.

    Raises:
        InputError: as `read_pictures`, or if they hold no labels.
        MachineError: if a file may not be read.
    """
    first = _judged(files, mask=True)
    mask = np.empty((*first.size, len(files)), dtype=np.uint8)
    for z, file in enumerate(files):
        channels = _pixels(file, mask=True)
        if (channels != channels[:1]).any():
            raise InputError(file, "is a coloured mask", "save it as plain grayscale, 0 outside")
        values = channels[0] >= HALF if _is(file, (".jpg", ".jpeg")) else channels[0]
        mask[..., z] = binary_mask(file, values)
    return mask


def picture_shape(files: Sequence[Path]) -> Shape:
    """The (X, Y, Z) that `read_pictures` gives for these files, from their headers alone.

    Raises:
        InputError: as `read_pictures`, for what the headers can tell.
        MachineError: if a file may not be read.
    """
    return (*_judged(files).size, len(files))


def _judged(files: Sequence[Path], *, mask: bool = False) -> _Header:
    """The header of all files, which are alike and together not too large."""
    headers = []
    for file in files:
        with _opened(file, mask=mask) as (header, _):
            headers.append(header)
        if header != headers[0]:
            own, others = (f"{one.samples} x {one.size[0]} x {one.size[1]}" for one in (header, headers[0]))
            cause = f"is unlike {files[0].name} (channels, width and height {own}, not {others})"
            raise InputError(file, cause, "move what does not belong to the scan elsewhere")
    first = headers[0]
    voxels = first.samples * first.size[0] * first.size[1] * len(files)
    if voxels > MOST_VOXELS:
        cause = f"makes a stack of {voxels} voxels with the other {len(files) - 1} slices, more than {MOST_VOXELS}"
        raise InputError(files[0], cause, "crop or downsample the slices")
    return first


def _pixels(file: Path, *, mask: bool = False) -> NDArray[Any]:
    """The pixels of one file, (1 or 3, X, Y)."""
    with _opened(file, mask=mask) as (_, pixels):
        return pixels()


def _is(file: Path, suffixes: Sequence[str]) -> bool:
    return file.name.lower().endswith(tuple(suffixes))


@contextmanager
def _opened(file: Path, *, mask: bool) -> Iterator[tuple[_Header, Callable[[], NDArray[Any]]]]:
    """The header of a slice, and what reads its pixels."""
    with (_opened_matlab if _is(file, (".mat",)) else _opened_picture)(file, mask) as both:
        yield both


@contextmanager
def _opened_matlab(file: Path, mask: bool) -> Iterator[tuple[_Header, Callable[[], NDArray[Any]]]]:
    with matlab.opened(file) as struct:
        # MATLAB writes columns first, so that HDF5's first axis is its last: (column, row), which is (X, Y).
        values = matlab.dataset(file, struct, matlab.MASK if mask else matlab.IMAGE)
        x, y = values.shape
        yield _Header((int(x), int(y)), 1), lambda: values[()][None]


@contextmanager
def _opened_picture(file: Path, mask: bool) -> Iterator[tuple[_Header, Callable[[], NDArray[Any]]]]:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            modes = {**_MODES, "1": 1} if mask else _MODES
            if image.mode not in modes:
                cause = f"has pixels of a kind that is neither grey nor three channels ({image.mode})"
                raise InputError(file, cause, SAVE_GREY)
            if max(image.size) > LONGEST_SIDE:
                cause = f"has {image.size[0]} x {image.size[1]} pixels, more than {LONGEST_SIDE} a side"
                raise InputError(file, cause, "downsample it")
            frames = getattr(image, "n_frames", 1)
            if frames != 1:
                raise InputError(file, f"holds {frames} pictures", "give one file for each slice")
            if image.getexif().get(ORIENTATION, 1) != 1:
                raise InputError(file, "has an Orientation tag that turns it", "save it upright")

            def pixels() -> NDArray[Any]:
                values = np.asarray(image)
                planes: NDArray[Any] = values.T[None] if values.ndim == 2 else values.transpose(2, 1, 0)
                kept = modes[image.mode]
                if len(planes) > kept and planes[kept].min() != planes[kept].max():
                    raise InputError(file, "has an alpha channel that is not the same everywhere", "save it without")
                return planes[:kept]

            yield _Header(image.size, modes[image.mode]), pixels
    except InputError:
        raise
    except PermissionError as error:
        raise MachineError(file, f"cannot be read ({error.strerror})", "check its permissions") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything
        reason = type(error).__name__
        raise InputError(file, f"is not a PNG or JPEG image that can be read ({reason})", SAVE_AGAIN) from None
