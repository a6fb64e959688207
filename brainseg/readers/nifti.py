"""NIfTI-1 and NIfTI-2 single files: the header is judged before a voxel is read, and nothing in it is guessed.

Sizes, forms and units are checked by hand where nibabel would repair or ignore; nibabel parses the header and the
quaternion. Voxels that are NaN or infinite are refused.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import nibabel
import numpy as np
from numpy.typing import NDArray

from brainseg.case import spacing_of
from brainseg.errors import InputError, MachineError
from brainseg.readers.checks import binary_mask, checked_affine, checked_shape, checked_values
from brainseg.readers.grid import Grid, Shape, farthest_mm
from brainseg.readers.volume import Volume

APART_MM = 1e-2  # sform and qform
LABEL_APART = 1e-3  # from a whole number, after the scaling that a header asks for
MOST_RATIO = 1100  # deflate cannot do better than 1032:1
MOST_OFFSET = 2**24
CHUNK = 2**24
PADDING = 4096  # bytes that may follow the voxels of whatever size
LABELS = 1002  # NIFTI_INTENT_LABEL (nifti1.h)
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
AGAIN = "export it again"
COPY = "copy it again"
_UNITS_MM = {1: ("metre", 1000.0), 3: ("micron", 0.001)}
_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MAGIC = {348: (b"n+1\0", b"ni1\0"), 540: (b"n+2\0", b"ni2\0")}


@dataclass(frozen=True)
class _Header:
    """What a header says of the voxels: where they start in the file, how many, of what type, and their scale."""

    raw: Any
    offset: int
    shape: Shape
    dtype: np.dtype[Any]
    slope: float
    intercept: float

    @property
    def voxels(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def end(self) -> int:
        """Number of bytes that the (unpacked) file has at least."""
        return self.offset + self.voxels * self.dtype.itemsize


def read_nifti(path: Path) -> Volume:
    """The volume of a `.nii` or `.nii.gz` (told apart by content), scaled by its slope and intercept.

    A 4-D file of one frame is a volume. A slope of 0 or NaN means 1. Metres and microns become mm, with a note.

    Raises:
        InputError: if it is damaged, not one scalar 3-D volume, or its geometry is missing, ambiguous or impossible.
        MachineError: if it may not be read.
    """
    with _opened(path) as stream:
        header = _read_header(path, stream)
        if int(header.raw["intent_code"]) == LABELS:
            cause = f"says that its values are labels (intent code {LABELS})"
            raise InputError(path, cause, "give the scan; if this is it, set the code to 0")
        affine, notes = _affine(path, header)
        stored = _read_voxels(path, stream, header)
    array = _scaled(stored, header.slope, header.intercept)
    checked_values(path, array)
    return Volume(array=array, affine=affine, spacing_mm=spacing_of(affine), files=(path,), notes=notes)


def read_nifti_mask(path: Path, *, only_0_and_1: bool = False) -> NDArray[np.uint8]:
    """The mask of a NIfTI file, uint8 0/1 (X, Y, Z): 1 where a voxel is not 0. Its geometry is not looked at.

    Args:
        path: of the file.
        only_0_and_1: refuse any other label, in place of counting it as inside.

    Raises:
        InputError: if it is damaged, not one 3-D volume, or holds no labels.
        MachineError: if it may not be read.
    """
    with _opened(path) as stream:
        header = _read_header(path, stream)
        stored = _read_voxels(path, stream, header)
    if (header.slope, header.intercept) != (1.0, 0.0):
        stored = stored.astype(np.float64) * header.slope + header.intercept
    mask = binary_mask(path, stored)
    if only_0_and_1 and (np.abs(stored - mask) > LABEL_APART).any():
        largest = float(np.abs(stored).max())
        raise InputError(path, f"holds labels other than 0 and 1 (up to {largest:g})", "save it with 0 and 1 only")
    return mask


def nifti_grid(path: Path) -> Grid:
    """Where the voxels of a NIfTI file lie, from its header alone.

    Raises:
        InputError: as `read_nifti`, for what the header can tell.
        MachineError: if it may not be read.
    """
    with _opened(path) as stream:
        header = _read_header(path, stream)
        return Grid(header.shape, _affine(path, header)[0])


def refuse_other_grid(path: Path, grid: Grid, *, in_mm: bool, tolerance_mm: float, remedy: str) -> None:
    """Refuses a NIfTI file that is not on `grid`; where its voxels have no size, only their axes must agree.

    Args:
        path: of the file.
        grid: of the scan.
        in_mm: False where the scan's spacing is unknown.
        tolerance_mm: how far apart two voxels may lie.
        remedy: what to do, for the error.

    Raises:
        InputError: if it lies elsewhere, or its header cannot be read.
    """
    own = nifti_grid(path)
    if own.shape != grid.shape:
        sizes = (" x ".join(map(str, shape)) for shape in (own.shape, grid.shape))
        raise InputError(path, "has {} voxels, the scan {}".format(*sizes), remedy)
    if not in_mm:
        theirs, ours = (steps / np.linalg.norm(steps, axis=0) for steps in (own.affine[:3, :3], grid.affine[:3, :3]))
        if not np.allclose(theirs, ours, atol=1e-3):
            raise InputError(path, "has its axes in other directions than the scan", remedy)
        return
    apart = farthest_mm(grid.shape, own.affine, grid.affine)
    if apart > tolerance_mm:
        raise InputError(path, f"lies up to {apart:.3g} mm from the scan", remedy)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked content; what goes wrong while it is read, as an InputError."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                yield file
                return
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield cast(IO[bytes], stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(path, f"is cut short or damaged gzip ({error})", COPY) from None
    except PermissionError as error:
        raise MachineError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})", "check the path") from None


def _read_header(path: Path, stream: IO[bytes]) -> _Header:
    """Parse and judge everything that decides how many bytes are read."""
    block = stream.read(540)
    if not block:
        raise InputError(path, "is empty", COPY)
    sizes = {order: int.from_bytes(block[:4], order) for order in ORDERS}
    order = next((name for name, size in sizes.items() if size in _HEADERS), None)
    if order is None or len(block) < sizes[order]:
        raise InputError(path, "is not a NIfTI file", "check what it is; NIfTI is .nii or .nii.gz")
    size = sizes[order]
    raw = _HEADERS[size](block[:size], endianness="<" if order == "little" else ">", check=False)
    magic = bytes(block[344:348] if size == 348 else block[4:8])
    if magic == _MAGIC[size][1]:
        raise InputError(path, "is the header of a pair (.hdr, .img)", "convert it to a single .nii")
    if magic != _MAGIC[size][0]:
        raise InputError(path, "is Analyze, or not NIfTI: it cannot say left from right", "convert it to NIfTI")
    count = int(raw["dim"][0])
    if not 1 <= count <= 7:
        raise InputError(path, f"declares {count} dimensions", AGAIN)
    shape = checked_shape(path, [int(n) for n in raw["dim"][1 : count + 1]])
    offset = float(raw["vox_offset"])
    if not (np.isfinite(offset) and 0 <= offset <= MOST_OFFSET):
        raise InputError(path, f"declares its voxels at byte {offset:g}", AGAIN)
    header = _Header(raw, max(int(offset), size + 4), shape, _dtype(path, raw), *_scale(path, raw))
    _refuse_short(path, stream, header)
    return header


def _dtype(path: Path, raw: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = raw.get_data_dtype()
    except Exception:  # nibabel's own kinds
        raise InputError(path, f"has data of an unknown type ({int(raw['datatype'])})", AGAIN) from None
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "colour" if dtype.names else str(dtype)
        raise InputError(path, f"holds {kind} values", "give a scalar volume")
    return dtype


def _scale(path: Path, raw: Any) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise InputError(path, "has an intercept that is not finite", AGAIN)
    return slope, intercept


def _refuse_short(path: Path, stream: IO[bytes], header: _Header) -> None:
    """Refuse a header that promises more than the file can hold, before anything is allocated."""
    held = path.stat().st_size
    packed = isinstance(stream, gzip.GzipFile)
    if header.end > (held * MOST_RATIO if packed else held):
        cause = f"is cut short: it has {held} bytes{' of gzip' if packed else ''} where its header needs {header.end}"
        raise InputError(path, cause, COPY)


def _read_voxels(path: Path, stream: IO[bytes], header: _Header) -> NDArray[Any]:
    """The values as stored, (X, Y, Z); a packed file is read to its end, where its checksum is.

    What follows the voxels is padding, or as long as a slice: then the header declares fewer than there are.
    """
    stream.seek(header.offset)
    content = bytearray()
    missing = header.end - header.offset
    while missing and (chunk := stream.read(min(missing, CHUNK))):
        content += chunk
        missing -= len(chunk)
    if missing:
        raise InputError(path, f"is cut short: {missing} bytes are missing", COPY)
    more = max(PADDING, header.shape[0] * header.shape[1] * header.dtype.itemsize)
    if len(stream.read(more)) == more:
        declared = " x ".join(map(str, header.shape))
        raise InputError(path, f"holds more than its header declares ({declared} voxels)", AGAIN)
    return np.frombuffer(content, dtype=header.dtype).reshape(header.shape, order="F")


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # to infinity, which is refused later
        if (slope, intercept) == (1.0, 0.0):
            return stored.astype(np.float32, order="C")
        array = np.empty(stored.shape, dtype=np.float32, order="F")
        for z in range(stored.shape[2]):  # a plane at a time, to save memory
            array[..., z] = stored[..., z].astype(np.float64) * slope + intercept
    return np.ascontiguousarray(array)


def _affine(path: Path, header: _Header) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Voxel index to RAS+ mm from the sform, the qform, or both where they agree; and what was converted."""
    raw = header.raw
    zooms = np.array(raw["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        listed = " x ".join(f"{zoom:g}" for zoom in zooms)
        raise InputError(path, f"has a voxel size of {listed} (pixdim)", "export it again with its spacing")
    notes: tuple[str, ...] = ()
    scale = 1.0
    unit = int(raw["xyzt_units"]) & 7
    if unit in _UNITS_MM:
        name, scale = _UNITS_MM[unit]
        notes = (f"lengths given in {name}s were converted to mm",)
    to_mm = np.diag([scale, scale, scale, 1.0])
    forms = []
    if int(raw["sform_code"]) > 0:
        forms.append(checked_affine(path, to_mm @ np.asarray(raw.get_sform(), dtype=np.float64)))
    if int(raw["qform_code"]) > 0:
        forms.append(checked_affine(path, to_mm @ _qform(path, raw)))
    if not forms:
        cause = "says nothing of its orientation (sform_code and qform_code are 0)"
        raise InputError(path, cause, "convert it from the scanner's DICOM, or set a code if you know that it holds")
    apart = farthest_mm(header.shape, forms[0], forms[-1])
    if apart > APART_MM:
        cause = f"says two things of its position: sform and qform are {apart:.3g} mm apart"
        raise InputError(path, cause, "set one of them from the other (fslorient), whichever is right")
    if np.abs(np.array(spacing_of(forms[0])) / (zooms * scale) - 1).max() > 0.01:
        spacing = " x ".join(f"{size:.4g}" for size in spacing_of(forms[0]))
        listed = " x ".join(f"{zoom:.4g}" for zoom in zooms * scale)
        raise InputError(path, f"says two things of its spacing: sform {spacing} mm, pixdim {listed} mm", AGAIN)
    return forms[0], notes


def _qform(path: Path, raw: Any) -> NDArray[np.float64]:
    raw = raw.copy()
    if raw["pixdim"][0] == 0:  # means 1 (nifti1.h, method 2)
        raw["pixdim"][0] = 1
    try:
        return np.asarray(raw.get_qform(), dtype=np.float64)
    except Exception:  # nibabel's own kinds
        raise InputError(path, "has a qform that is no rotation", "export it again with its geometry") from None
