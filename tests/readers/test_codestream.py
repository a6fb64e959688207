"""The size that compressed pixels declare is compared with the header's before a decoder allocates it."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from mutants import fields
from mutants.seeds import SEEDS

from brainseg.errors import InputError
from brainseg.readers import read_case
from brainseg.readers.codestream import frame_size

GREY = np.arange(24 * 20, dtype=np.uint8).reshape(24, 20)
COLOUR = np.stack([GREY] * 3, axis=-1)
J2K = partial(imagecodecs.jpeg2k_encode, reversible=True, level=0)


@pytest.mark.parametrize(
    ("stream", "size"),
    [
        (imagecodecs.jpeg8_encode(GREY), (20, 24, 1)),
        (imagecodecs.jpeg8_encode(COLOUR), (20, 24, 3)),
        (imagecodecs.ljpeg_encode(GREY), (20, 24, 1)),
        (imagecodecs.jpegls_encode(GREY), (20, 24, 1)),
        (J2K(GREY, codecformat="j2k"), (20, 24, 1)),
        (J2K(COLOUR, codecformat="jp2"), (20, 24, 3)),
        (imagecodecs.jpeg8_encode(GREY)[:2] + b"\xff\xff\xff" + imagecodecs.jpeg8_encode(GREY)[3:], (20, 24, 1)),
        (imagecodecs.jpeg8_encode(GREY)[:40], None),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 4, None),
        (b"no codestream", None),
        (b"", None),
    ],
)
def test_size_of_a_codestream_is_what_its_frame_says(stream: bytes, size: tuple[int, int, int] | None) -> None:
    assert frame_size(stream) == size


@pytest.mark.parametrize("name", ["DICOM, JPEG", "DICOM, JPEG-LS", "DICOM, JPEG 2000"])
def test_dicom_whose_codestream_declares_more_than_its_header_is_refused_unread(name: str, tmp_path: Path) -> None:
    seed = SEEDS[name][0](tmp_path)
    content = bytearray(seed.content)
    if name.endswith("2000"):
        at = content.index(fields.J2K_SIZE, seed.core)
        struct.pack_into(">II", content, at + 6, 60000, 60000)
    else:
        frame = next(m for m in fields.JPEG_FRAME.finditer(content, seed.core) if m.group()[1] not in (0xC4, 0xDA))
        struct.pack_into(">HH", content, frame.end() + 3, 60000, 60000)
    seed.file.write_bytes(content)
    with pytest.raises(InputError, match=r"its codestream says 60000 x 60000 x 1, the header 20 x 24"):
        read_case(tmp_path)


def test_tiff_whose_strip_declares_more_than_its_header_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "p_1.tif"
    tifffile.imwrite(file, np.tile(GREY, (4, 4)), compression="jpeg", photometric="minisblack")
    assert read_case(file).shape == (80, 96, 1)
    content = bytearray(file.read_bytes())
    frame = next(m for m in fields.JPEG_FRAME.finditer(content) if m.group()[1] not in (0xC4, 0xDA))
    struct.pack_into(">HH", content, frame.end() + 3, 60000, 60000)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"a part of 80 x 96 pixels whose codestream says 60000 x 60000 x 1"):
        read_case(file)
