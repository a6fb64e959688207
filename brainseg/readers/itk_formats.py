"""The volumes of the ITK world, MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), for one scalar 3-D image each.

They are read here and not by ITK, which a damaged header can crash (heap corruption in its MetaImage parser) and which
fills in what a header does not say: a spacing of 1, axes along the patient's, no conversion for a NRRD without `space`.
That is refused here, and so is a header that points at data outside its own folder. No message quotes a header, which
may name a patient or a place. MetaImage is LPS+, NRRD says what it is; both become RAS+ here. ITK is the judge in the
tests.

https://itk.org/Wiki/MetaIO/Documentation, https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import LPS_TO_RAS, spacing_of
from brainseg.errors import InputError, MachineError
from brainseg.readers.checks import binary_mask, checked_affine, checked_shape, checked_values
from brainseg.readers.grid import Grid
from brainseg.readers.volume import Volume

MOST_HEADER = 2**20
LONGEST_NAME = 250
MOST_RATIO = 1100  # deflate cannot do better than 1032:1
CHUNK = 2**22
NRRD = (".nrrd", ".nhdr")
AGAIN = "export it again"
COPY = "copy it again"
CONVERT = "convert it to NIfTI, or save it as one file"
GEOMETRY = "export it again with its geometry"
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # MET_LONG is 4 or 8 bytes, depending on who wrote it
_NRRD_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_SPACES = {  # what turns each into RAS+
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "lps": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
}


@dataclass(frozen=True)
class _Header:
    """What a header says.

    Attributes:
        grid: where the voxels lie in the patient.
        dtype: of the values as stored.
        data: the file that holds them.
        start: the byte of `data` where they start; None for as many as there are, from its end.
        packed: how they are compressed: "", "zlib" or "gzip".
    """

    grid: Grid
    dtype: np.dtype[Any]
    data: Path
    start: int | None
    packed: str


def read_itk(path: Path) -> Volume:
    """The volume of a `.mha`, `.mhd`, `.nrrd` or `.nhdr` file.

    Raises:
        InputError: if it is damaged, not one scalar 3-D volume, or its geometry is missing or impossible.
        MachineError: if it may not be read.
    """
    header = _header(path)
    stored = _voxels(path, header)
    with np.errstate(over="ignore"):  # to infinity, which is refused
        array = checked_values(path, stored.astype(np.float32))
    affine = header.grid.affine
    return Volume(array=array, affine=affine, spacing_mm=spacing_of(affine), files=(path,))


def read_itk_mask(path: Path) -> NDArray[np.uint8]:
    """The mask of such a file, uint8 0/1 (X, Y, Z): 1 where a voxel is not 0.

    Raises:
        InputError: as `read_itk`, or if it holds no labels.
        MachineError: if it may not be read.
    """
    return binary_mask(path, _voxels(path, _header(path)))


def itk_grid(path: Path) -> Grid:
    """Where the voxels of such a file lie, from its header alone.

    Raises:
        InputError: as `read_itk`, for what the header can tell.
        MachineError: if it may not be read.
    """
    return _header(path).grid


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as the error that it is."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(path, f"is cut short or damaged ({type(error).__name__})", COPY) from None
    except PermissionError as error:
        raise MachineError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})", "check the path") from None


def _header(path: Path) -> _Header:
    with _reading(path), path.open("rb") as stream:
        start = stream.read(MOST_HEADER)
    if not start:
        raise InputError(path, "is empty", COPY)
    return _nrrd(path, start) if path.suffix.lower() in NRRD else _metaimage(path, start)


def _numbers(path: Path, what: str, text: str, count: int | None = None) -> list[float]:
    """The numbers of a field, `count` of them."""
    try:
        values = [float(word) for word in re.split(r"[\s,]+", text.strip())]
    except ValueError:
        values = []
    if not values or (count is not None and len(values) != count) or not np.isfinite(values).all():
        raise InputError(path, f"has {what} that cannot be read", AGAIN)
    return values


def _whole(path: Path, what: str, text: str, count: int | None = None) -> list[int]:
    values = _numbers(path, what, text, count)
    if any(value != int(value) for value in values):
        raise InputError(path, f"has {what} that are not whole numbers", AGAIN)
    return [int(value) for value in values]


def _metaimage(path: Path, start: bytes) -> _Header:
    """The header of a MetaImage, which ends with the line that says where the voxels are."""
    fields: dict[str, str] = {}
    at = 0
    while "elementdatafile" not in fields:
        end = start.find(b"\n", at)
        key, separator, value = start[at : end if end >= 0 else None].decode("latin-1").partition("=")
        if not separator or (end < 0 and key.strip().lower() != "elementdatafile"):
            raise InputError(path, "is not a MetaImage, or its header is cut short", COPY)
        fields[key.strip().lower()] = value.strip()
        at = end + 1 if end >= 0 else len(start)

    def first(what: str, *keys: str) -> str:
        value = next((fields[key] for key in keys if key in fields), None)
        if value is None:
            raise InputError(path, f"says nothing of its {what}", GEOMETRY)
        return value

    (dimensions,) = _whole(path, "a number of axes", first("number of axes", "ndims"), 1)
    if not 1 <= dimensions <= 9:
        raise InputError(path, f"declares {dimensions} axes", AGAIN)
    shape = checked_shape(path, _whole(path, "sizes", first("size", "dimsize"), dimensions))
    spacing = _numbers(path, "a spacing", first("spacing", "elementspacing", "elementsize"), dimensions)
    position = _numbers(path, "a position", first("position", "offset", "position", "origin"), dimensions)
    written = first("orientation", "transformmatrix", "rotation", "orientation")
    axes = np.array(_numbers(path, "an orientation", written, dimensions**2)).reshape(dimensions, dimensions)
    lps = np.eye(4)
    lps[:3, :3] = axes[:3, :3].T * spacing[:3]  # a row of the file is an axis
    lps[:3, 3] = position[:3]
    grid = Grid(shape, checked_affine(path, LPS_TO_RAS @ lps))

    def true(key: str) -> bool:
        return fields.get(key, "false").lower() in ("true", "1")

    if not true("binarydata"):
        raise InputError(path, "holds its voxels as text", "save it as binary")
    (channels,) = _whole(path, "a number of channels", fields.get("elementnumberofchannels", "1"), 1)
    if channels != 1:
        raise InputError(path, f"holds {channels} values a voxel (colour or vector)", "give a scalar volume")
    code = _META_TYPES.get(first("type", "elementtype").upper())
    if code is None:
        raise InputError(path, "has values of a type that is not read", "save it as MET_FLOAT")
    big = true("elementbyteordermsb") or true("binarydatabyteordermsb")
    named = fields["elementdatafile"]
    data, begin = (path, at) if named.lower() == "local" else (_beside(path, named), 0)
    if data != path and "headersize" in fields:
        (begin,) = _whole(path, "a header size", fields["headersize"], 1)
    dtype = np.dtype(code).newbyteorder(">" if big else "<")
    return _Header(grid, dtype, data, None if begin < 0 else begin, "zlib" if true("compresseddata") else "")


def _nrrd(path: Path, start: bytes) -> _Header:
    """The header of a NRRD, which ends with an empty line."""
    if not start.startswith(b"NRRD000"):
        raise InputError(path, "is not a NRRD file", "check what it is")
    ending = re.search(rb"\r?\n\r?\n", start)
    at = ending.end() if ending else len(start)
    fields: dict[str, str] = {}
    for line in start[:at].decode("latin-1").splitlines()[1:]:
        key, separator, value = line.partition(":")
        if separator and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    grid = _nrrd_grid(path, fields)
    packed = {"raw": "", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", "").lower())
    if packed is None:
        raise InputError(path, "has an encoding that is not read", "save it as raw or gzip")
    if any(fields.get(key, "0") != "0" for key in ("byteskip", "lineskip")):
        raise InputError(path, "skips bytes or lines of its data", CONVERT)
    kind = " ".join(fields.get("type", "").lower().split())
    code = next((code for code, names in _NRRD_TYPES.items() if kind in names.split(", ")), None)
    if code is None:
        raise InputError(path, "has values of a type that is not read", "save it as float")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and np.dtype(code).itemsize > 1:
        raise InputError(path, "says nothing of its byte order (endian)", AGAIN)
    named = fields.get("datafile")
    if named is None and ending is None:
        raise InputError(path, "is cut short: its header has no end", COPY)
    data, begin = (path, at) if named is None else (_beside(path, named), 0)
    return _Header(grid, np.dtype(code).newbyteorder("<" if order == "<" else ">"), data, begin, packed)


def _nrrd_grid(path: Path, fields: dict[str, str]) -> Grid:
    """Where a NRRD lies in the patient, in mm; an error where it does not say."""
    for key, what in (("sizes", "size"), ("spacedirections", "spacing"), ("spaceorigin", "position")):
        if key not in fields:
            raise InputError(path, f"says nothing of its {what}", GEOMETRY)
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        raise InputError(path, "says nothing of its orientation", GEOMETRY)
    units = set(fields.get("spaceunits", '"mm"').lower().replace('"', " ").split())
    if units - {"mm", "none", "???"}:
        raise InputError(path, "is not measured in mm", "export it in mm")
    sizes = _whole(path, "sizes", fields["sizes"])
    directions = re.findall(r"none|\([^()]*\)", fields["spacedirections"])
    if len(directions) != len(sizes):
        raise InputError(path, f"has {len(sizes)} sizes and {len(directions)} directions", AGAIN)
    components = [size for size, direction in zip(sizes, directions, strict=True) if direction == "none"]
    if any(size != 1 for size in components):
        count = " x ".join(map(str, components))
        raise InputError(path, f"holds {count} values a voxel (colour, vector or frames)", "give a scalar volume")
    spatial = [(size, axis) for size, axis in zip(sizes, directions, strict=True) if axis != "none"]
    shape = checked_shape(path, [size for size, _ in spatial])
    if len(spatial) != 3:
        raise InputError(path, f"has {len(spatial)} axes in space", AGAIN)
    affine = np.eye(4)
    for column, (_, axis) in enumerate(spatial):
        affine[:3, column] = _numbers(path, "directions", axis.strip("()"), 3)
    affine[:3, 3] = _numbers(path, "an origin", fields["spaceorigin"].strip("()"), 3)
    return Grid(shape, checked_affine(path, np.diag([*_SPACES[space], 1.0]) @ affine))


def _beside(path: Path, named: str) -> Path:
    """The data file that a header names, which lies in the header's folder or below."""
    if named.split()[:1] == ["LIST"] or "%" in named:
        raise InputError(path, "keeps its voxels in several files", CONVERT)
    place = PurePath(named.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or not named:
        raise InputError(path, "points at voxels outside its folder", CONVERT)
    data = path.parent / place
    if "\0" in named or len(named) > LONGEST_NAME or not data.is_file():
        raise InputError(path, "names a file of voxels beside it, which is not there", "copy both files")
    return data


def _voxels(path: Path, header: _Header) -> NDArray[Any]:
    """The values as stored, (X, Y, Z); compressed ones with their checksum."""
    needed = int(np.prod(header.grid.shape, dtype=np.int64)) * header.dtype.itemsize
    with _reading(path), header.data.open("rb") as stream:
        size = header.data.stat().st_size
        start = size - needed if header.start is None else header.start
        held = max(0, size - start) if start >= 0 else size
        if start < 0 or held * (MOST_RATIO if header.packed else 1) < needed:
            raise InputError(path, f"is cut short: it has {held} bytes of voxels and needs {needed}", COPY)
        stream.seek(start)
        unpack = {"gzip": _gunzip, "zlib": _inflate}.get(header.packed)
        content = unpack(stream, needed) if unpack else stream.read(needed)
    if len(content) < needed:
        raise InputError(path, f"is cut short: it has {len(content)} bytes of voxels and needs {needed}", COPY)
    return np.frombuffer(content, header.dtype, count=needed // header.dtype.itemsize).reshape(
        header.grid.shape, order="F"
    )


def _gunzip(stream: IO[bytes], needed: int) -> bytes:
    with gzip.GzipFile(fileobj=stream) as unpacked:
        content = unpacked.read(needed)
        unpacked.read(CHUNK)  # to the checksum
        return content


def _inflate(stream: IO[bytes], needed: int) -> bytes:
    inflate = zlib.decompressobj()
    content = bytearray()
    rest = b""
    while len(content) <= needed and not inflate.eof and (rest := inflate.unconsumed_tail or stream.read(CHUNK)):
        content += inflate.decompress(rest, CHUNK)
    if not inflate.eof:
        raise EOFError
    return bytes(content)
