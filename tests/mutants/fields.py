"""Where the numbers stand that tell a reader how much to read: of these a change does most."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

NIFTI = [(0, "i"), *((40 + 2 * i, "h") for i in range(8)), (70, "h"), (72, "h"), (123, "B"), (252, "h"), (254, "h")]
NIFTI_REAL = [*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4)]
LONG_VR = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UN", b"UR", b"UT")
JPEG_FRAME = re.compile(rb"\xff[\xc0-\xcf\xda\xf7\xf8]")
PIXEL_DATA = b"\xe0\x7f\x10\x00"
J2K_SIZE = b"\xff\x51"


@dataclass(frozen=True)
class Number:
    """A number in a file: `form` is struct's, with its byte order; "text" is one of `length` characters."""

    at: int
    form: str
    length: int = 0


Fields = list[Number]


def nifti(content: bytes) -> Fields:
    """Of a NIfTI-1 header, little-endian."""
    return [Number(at, f"<{form}") for at, form in NIFTI] + [Number(at, "<f") for at in NIFTI_REAL]


def text(content: bytes) -> Fields:
    """Numbers written out in the text before the voxels of a MetaImage or NRRD."""
    end = re.search(rb"ElementDataFile[^\n]*\n|\n\n", content)
    until = end.end() if end else len(content)
    return [Number(m.start(), "text", len(m.group())) for m in re.finditer(rb"-?[0-9][0-9.]*", content[:until])]


def tiff(content: bytes) -> Fields:
    """Of a little-endian TIFF: the offset of the directory, and each entry's tag, type, count and value."""
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    found = [Number(4, "<I"), Number(start, "<H"), Number(start + 2 + 12 * count, "<I")]
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        found += [Number(entry, "<H"), Number(entry + 2, "<H"), Number(entry + 4, "<I"), Number(entry + 8, "<I")]
    return found


def dicom(content: bytes) -> Fields:
    """Of explicit VR little-endian: each element's tag and length, short values, and what a JPEG frame says."""
    found, at = [], 132
    while at + 12 <= len(content):
        long = content[at + 4 : at + 6] in LONG_VR
        size, value = ("<I", at + 12) if long else ("<H", at + 8)
        where = value - struct.calcsize(size)
        (length,) = struct.unpack_from(size, content, where)
        found += [Number(at, "<H"), Number(at + 2, "<H"), Number(where, size)]
        if content[at + 4 : at + 6] == b"US":
            found += [Number(value, "<H")] * 4  # rows, columns, bits: the most telling
        elif 0 < length < 64:
            found += [Number(value, "<B"), Number(value + length - 1, "<B")]
        if content[at : at + 4] == PIXEL_DATA:
            found += _encapsulated(content, value) * 4
            break
        at = value + length
    return found


def _encapsulated(content: bytes, start: int) -> Fields:
    """The items' lengths and the frame's header."""
    items = [m.start() + start for m in re.finditer(rb"\xfe\xff\x00\xe0", content[start:])]
    found = [Number(item + 4, "<I") for item in items]
    if items and content[items[-1] + 8 : items[-1] + 12] == b"\x01\x00\x00\x00":  # RLE: its segments
        found += [Number(items[-1] + 8 + 4 * i, "<I") for i in range(4)]
    return found + jpeg(content, start)


def jpeg(content: bytes, start: int = 0) -> Fields:
    """Of JPEG, JPEG-LS and JPEG 2000: the segments that say sizes, precision and components."""
    found = []
    for m in JPEG_FRAME.finditer(content, start):
        at = m.end()
        found += [Number(at, ">H"), Number(at + 2, "B"), Number(at + 3, ">H"), Number(at + 5, ">H")]
        found += [Number(at + i, "B") for i in range(7, 11)]
    at = content.find(J2K_SIZE, start)
    if at >= 0:
        found += [Number(at + 2, ">H"), Number(at + 4, ">H"), *(Number(at + 6 + 4 * i, ">I") for i in range(8))]
        found += [Number(at + 38, ">H"), *(Number(at + 40 + i, "B") for i in range(3))]
        found += [Number(at + 43 + i, "B") for i in range(20)]  # coding style
    return [one for one in found if one.at + 4 <= len(content)]


def png(content: bytes) -> Fields:
    """Of each chunk its length, and the whole of the header; checksums are mended afterwards, see `mended_png`."""
    found, at = [], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        found.append(Number(at, ">I"))
        if content[at + 4 : at + 8] == b"IHDR":
            found += [Number(at + 8, ">I"), Number(at + 12, ">I"), *(Number(at + 16 + i, "B") for i in range(5))] * 3
        at += 12 + length
    return found


def hdf5(content: bytes) -> Fields:
    """Addresses and lengths of HDF5 are 8 bytes at multiples of 8, after MATLAB's 512."""
    there = range(512, min(len(content) - 8, 6000), 8)
    return [Number(at, "<Q") for at in there if any(content[at : at + 8])]


def zipped(content: bytes) -> Fields:
    """Sizes, methods and offsets in the members' headers, the directory and its end."""
    found = []
    for mark, layout in (
        (b"PK\x03\x04", [(4, "<H"), (6, "<H"), (8, "<H"), (18, "<I"), (22, "<I"), (26, "<H"), (28, "<H")]),
        (
            b"PK\x01\x02",
            [(8, "<H"), (10, "<H"), (20, "<I"), (24, "<I"), (28, "<H"), (30, "<H"), (38, "<I"), (42, "<I")],
        ),
        (b"PK\x05\x06", [(8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H")]),
    ):
        for m in re.finditer(re.escape(mark), content):
            found += [Number(m.start() + at, form) for at, form in layout]
    return found
