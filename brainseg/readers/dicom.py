"""A DICOM series to a volume: every slice placed by its own tags, and everything that would be guesswork refused.

The array is indexed (column, row, slice), slices ascending along the normal row x column, and the affine converts
DICOM's LPS+ to RAS+ here and nowhere else. No message quotes the patient's data, nor what pydicom says about it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import UID, RLELossless

from brainseg.case import spacing_of
from brainseg.errors import InputError, NotFlairError
from brainseg.readers.codestream import frame_size
from brainseg.readers.stack import Floats, Stack, stack_of
from brainseg.readers.volume import Volume
from brainseg.study import Series, headers
from brainseg.study.choice import flair_evidence
from brainseg.study.headers import Header, number, numbers, text

MOST_VOXELS = 2**29
AGAIN = "export the series again"

_TAGS = [
    *headers.TAGS,
    "BitsAllocated",
    "Columns",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImagesInAcquisition",
    "PhotometricInterpretation",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SliceThickness",
    "SpacingBetweenSlices",
]
_MULTIFRAME = (
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT, Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR, Enhanced MR Color, Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.3",
    "1.2.840.10008.5.1.4.1.1.4.4",
)
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True)
class _Slice:
    """One instance without its pixels.

    Attributes:
        pixels: how they are stored: rows, columns, bits, whether signed, photometric interpretation, samples.
        padding: lowest and highest stored value of pixels that were not scanned.
        of_acquisition: how many images the acquisition has; 0 where it does not say.
    """

    file: Path
    instance: str
    header: Header
    syntax: str
    frame_of_reference: str
    pixels: tuple[int, int, int, bool, str, int]
    position: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    apart_mm: float | None
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    of_acquisition: int


def read_dicom(series: Series, *, allow_gap: bool = False, force: bool = False) -> Volume:
    """The volume of a DICOM series, on its own grid, with the rescale slope and intercept applied.

    Args:
        series: its files, in any order.
        allow_gap: interpolate slices that are missing inside the series, linearly; they are listed in `Volume.filled`
            and in the notes, and are never more than a quarter of those that are there.
        force: read a series whose header does not say FLAIR, or that is not MR: a T1 that goes with a FLAIR, or what
            the user insists on.

    Raises:
        NotFlairError: if the series does not say that it is a FLAIR, without `force`.
        InputError: if the series is incomplete, damaged, or does not make one regular grid.
    """
    where = Path(os.path.commonpath([file.parent for file in series.files])) if series.files else Path(series.uid)
    if not series.files:
        raise InputError(where, "holds no DICOM files", AGAIN)
    with headers.quiet():
        slices = [_slice(file) for file in series.files]
        label = _one_series(where, slices)
        _refuse_kinds(where, label, slices)
        if not force:
            _refuse_other_than_flair(where, label, slices)
        _refuse_mixed(label, slices)
        _refuse_copies(where, slices)
        stack = _stack(where, label, slices, allow_gap=allow_gap)
        rows, columns, *_ = slices[0].pixels
        if rows * columns * stack.depth > MOST_VOXELS:
            cause = f"{label} has {columns} x {rows} x {stack.depth} voxels, more than {MOST_VOXELS}"
            raise InputError(where, cause, "crop or downsample it")
        ordered = [slices[i] for i in stack.order]
        for item in ordered:
            _refuse_undecodable(item)
        array, notes = _voxels(where, label, ordered, stack)
    return Volume(
        array=array,
        affine=stack.affine,
        spacing_mm=spacing_of(stack.affine),
        files=tuple(item.file for item in ordered),
        notes=(*stack.notes, *notes),
        filled=stack.filled,
        frame=slices[0].frame_of_reference,
    )


def _slice(file: Path) -> _Slice:
    """Read one instance's tags."""
    try:
        ds = headers.dataset(file, _TAGS)
        syntax = str(ds.file_meta.TransferSyntaxUID)
    except (ValueError, AttributeError) as error:
        kind = error if isinstance(error, ValueError) else "no transfer syntax"
        cause = f"is not a DICOM file that can be read ({kind})"
        raise InputError(file, cause, f"remove it if it is no image, or {AGAIN}") from None
    apart = number(ds, "SpacingBetweenSlices") or number(ds, "SliceThickness")
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    unread = (slope is None and text(ds, "RescaleSlope")) or (intercept is None and text(ds, "RescaleIntercept"))
    if slope == 0 or unread:
        raise InputError(file, "has a rescale slope or intercept that is 0 or no number", AGAIN)
    return _Slice(
        file=file,
        instance=text(ds, "SOPInstanceUID"),
        header=headers.header_of(ds),
        syntax=syntax,
        frame_of_reference=text(ds, "FrameOfReferenceUID"),
        pixels=(
            int(number(ds, "Rows") or 0),
            int(number(ds, "Columns") or 0),
            int(number(ds, "BitsAllocated") or 0),
            number(ds, "PixelRepresentation") == 1,
            text(ds, "PhotometricInterpretation"),
            int(number(ds, "SamplesPerPixel") or 1),
        ),
        position=_of_length(3, numbers(ds, "ImagePositionPatient")),
        spacing=_of_length(2, numbers(ds, "PixelSpacing")),
        apart_mm=abs(apart) if apart else None,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        padding=_padding(ds),
        of_acquisition=int(number(ds, "ImagesInAcquisition") or 0),
    )


def _of_length(length: int, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return values if values is not None and len(values) == length else None


def _padding(ds: Any) -> tuple[int, int] | None:
    """PixelPaddingValue and, where there is one, PixelPaddingRangeLimit; None where both are 0, the value of air."""
    value, limit = (_pixel_value(ds, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None or not (value or limit):
        return None
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _pixel_value(ds: Any, keyword: str) -> int | None:
    """An element of the pixels' own type; bytes in implicit VR, signed as the pixels (PS3.3 C.7.5.1.1.2)."""
    try:
        value = ds.get(keyword)
    except Exception:  # a malformed value may raise anything
        return None
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little", signed=number(ds, "PixelRepresentation") == 1)
    return value if isinstance(value, int) else None


def _one_series(where: Path, slices: Sequence[_Slice]) -> str:
    """What to call the series in a message; an error where there are several, or several patients."""
    if len({item.header.patient_id for item in slices}) > 1:
        raise InputError(where, "holds DICOM files of two patients", "give each patient a folder of their own")
    uids = sorted({item.header.series_uid for item in slices})
    if len(uids) > 1:
        raise InputError(where, f"holds {len(uids)} series: {', '.join(uids[:12])}", "choose one with --series UID")
    return f"series ...{'.'.join(uids[0].split('.')[-2:])[-24:]}"


def _refuse_kinds(where: Path, label: str, slices: Sequence[_Slice]) -> None:
    """Refuse instances that hold more than one slice, or colours."""
    convert = "convert it with dcm2niix and give the NIfTI"
    for item in slices:
        header, (_, _, _, _, photometric, samples) = item.header, item.pixels
        if header.sop_class in _MULTIFRAME or header.frames > 1:
            raise InputError(where, f"{label} is enhanced multi-frame DICOM", convert)
        if "MOSAIC" in (value.upper() for value in header.image_type):
            raise InputError(where, f"{label} is a mosaic, several slices in one image", convert)
        if not header.image:
            raise InputError(item.file, "holds no image", f"remove it, or {AGAIN}")
        if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise InputError(item.file, "is a colour image, or says not what it is", "give the grey images")


def _refuse_other_than_flair(where: Path, label: str, slices: Sequence[_Slice]) -> None:
    """Refuse a series that does not say that it is a FLAIR, and one of which some slices do not."""
    evidence = [flair_evidence(item.header) for item in slices]
    others = [(item.file, reason) for item, (says, reason) in zip(slices, evidence, strict=True) if not says]
    if len(others) == len(slices):
        remedy = "choose another with --series UID, or pass --force"
        raise NotFlairError(where, f"{label} is not a FLAIR: {others[0][1]}", remedy)
    if others:
        file, reason = others[0]
        cause = f"is not a FLAIR as the rest of {label} is: {reason}"
        raise NotFlairError(file, cause, "move what does not belong to the series elsewhere, or pass --force")


def _refuse_mixed(label: str, slices: Sequence[_Slice]) -> None:
    """Refuse slices without geometry, and those that differ from the rest."""
    for item in slices:
        for name, value in (
            ("ImagePositionPatient", item.position),
            ("ImageOrientationPatient", item.header.orientation),
            ("PixelSpacing", item.spacing),
        ):
            if value is None:
                raise InputError(item.file, f"has no {name} that can be read", f"{AGAIN} with its geometry")
        if min(item.spacing or (0,)) <= 0:
            raise InputError(item.file, "has a PixelSpacing that is not positive", f"{AGAIN} with its geometry")
    common = Counter(item.pixels for item in slices).most_common(1)[0][0]
    frame = Counter(item.frame_of_reference for item in slices).most_common(1)[0][0]
    sizes = [item for item in slices if item.pixels[:2] != common[:2]]
    kinds = [item for item in slices if item.pixels != common]
    orientations = np.array([item.header.orientation for item in slices])
    spacings = np.array([item.spacing for item in slices])
    turned = np.abs(orientations - np.median(orientations, axis=0)).max(axis=1) > 1e-4
    spaced = np.abs(spacings / np.median(spacings, axis=0) - 1).max(axis=1) > 1e-4
    for what, odd in (
        ("size", sizes),
        ("orientation", [item for item, differs in zip(slices, turned, strict=True) if differs]),
        ("spacing", [item for item, differs in zip(slices, spaced, strict=True) if differs]),
        ("frame of reference", [item for item in slices if item.frame_of_reference != frame]),
        ("kind of pixels", kinds),
    ):
        if odd:
            cause = f"has another {what} than the rest of {label} ({len(odd)} of {len(slices)} slices differ)"
            raise InputError(odd[0].file, cause, "move what does not belong to the series elsewhere")


def _refuse_copies(where: Path, slices: Sequence[_Slice]) -> None:
    """Refuse an instance that is there twice, as after two exports; two of one name at different places are two."""
    seen: dict[tuple[str, tuple[float, ...] | None], _Slice] = {}
    for item in slices:
        first = seen.setdefault((item.instance, item.position), item)
        if item.instance and first is not item:
            cause = f"is the same instance as {first.file.relative_to(where)}"
            raise InputError(item.file, cause, "remove one of the two; of a series exported twice, one folder")


def _stack(where: Path, label: str, slices: Sequence[_Slice], *, allow_gap: bool) -> Stack:
    """The grid of the slices, from their own tags."""
    orientation: Floats = np.median(np.array([item.header.orientation for item in slices]), axis=0)
    between_rows, between_columns = np.median(np.array([item.spacing for item in slices]), axis=0)
    return stack_of(
        where,
        label,
        [item.file for item in slices],
        np.array([item.position for item in slices], dtype=np.float64),
        orientation,
        (float(between_rows), float(between_columns)),
        slices[0].apart_mm,
        allow_gap=allow_gap,
    )


def _refuse_undecodable(item: _Slice) -> None:
    """Refuse pixels that are cut short or that no installed codec reads, before anything is allocated."""
    syntax = UID(item.syntax)
    rows, columns, bits, *_ = item.pixels
    if bits not in (8, 16, 32) or rows < 1 or columns < 1:
        raise InputError(item.file, f"has {columns} x {rows} pixels of {bits} bits", AGAIN)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        cause = f"is compressed in a way that is not supported ({syntax.name})"
        raise InputError(item.file, cause, "export it uncompressed, or convert it with gdcmconv --raw") from None
    if not decoder.is_available:
        packages = " or ".join(name.split(" - requires ")[-1] for name in decoder.missing_dependencies)
        cause = f"is compressed ({syntax.name}) and its codec is not installed"
        raise InputError(item.file, cause, f"install {packages or 'pylibjpeg'}")
    cut = "is cut short: its pixel data is incomplete"
    if not syntax.is_encapsulated and not syntax.is_deflated:
        if item.file.stat().st_size < rows * columns * bits // 8:
            raise InputError(item.file, cut, "copy it again")
    elif syntax.is_encapsulated and _SEQUENCE_DELIMITER not in item.file.read_bytes():
        raise InputError(item.file, cut, "copy it again")
    if syntax.is_encapsulated and syntax != RLELossless:
        _refuse_other_frame(item)


def _refuse_other_frame(item: _Slice) -> None:
    """Refuse a codestream of another size than the tags say, which its decoder would allocate."""
    rows, columns, *_ = item.pixels
    try:
        pixels = pydicom.dcmread(item.file, specific_tags=["PixelData"]).PixelData
        size = frame_size(next(generate_frames(pixels, number_of_frames=1)))
    except MemoryError:
        raise
    except Exception:  # a damaged file can raise anything
        size = None
    if size != (columns, rows, 1):
        what = "no size" if size is None else "{} x {} x {}".format(*size)
        cause = (
            f"has pixel data that is cut short or damaged (its codestream says {what}, the header {columns} x {rows})"
        )
        raise InputError(item.file, cause, f"copy it again, or {AGAIN}")


def _voxels(where: Path, label: str, ordered: Sequence[_Slice], stack: Stack) -> tuple[NDArray[np.float32], list[str]]:
    """The values of all slices, with notes on what was done to them."""
    rows, columns, _, _, photometric, _ = ordered[0].pixels
    planes = np.empty((stack.depth, rows, columns), dtype=np.float32)
    padded = 0
    for item, place in zip(ordered, stack.places, strict=True):
        stored = _decoded(item)
        planes[place] = stored.astype(np.float64) * item.slope + item.intercept
        if item.padding is not None:
            outside = (stored >= item.padding[0]) & (stored <= item.padding[1])
            padded += int(outside.sum())
            planes[place][outside] = np.nan
    present = planes[list(stack.places)] if stack.filled else planes
    lowest, highest = float(np.fmin.reduce(present, axis=None)), float(np.fmax.reduce(present, axis=None))
    if not np.isfinite([lowest, highest]).all():
        raise InputError(where, f"{label} has values that are not finite", AGAIN)
    if lowest == highest:
        raise InputError(where, f"{label} holds nothing: all its voxels are equal", AGAIN)
    notes = []
    if ordered[0].of_acquisition > stack.depth:
        count = f"its header counts {ordered[0].of_acquisition} images in the acquisition, {len(ordered)} are here"
        notes.append(f"{count}; slices may be missing at an end")
    if padded:
        planes[list(stack.places)] = np.nan_to_num(present, nan=lowest)
        notes.append(f"{padded} padding pixels set to the lowest value")
    if photometric == "MONOCHROME1":
        planes[list(stack.places)] = (lowest + highest) - planes[list(stack.places)]
        notes.append("MONOCHROME1 inverted")
    if stack.filled:
        _interpolate(planes, stack)
        which = ", ".join(str(place + 1) for place in stack.filled)
        notes.append(f"slices missing from the series were interpolated: {which} (counted from 1 along Z)")
    return planes.transpose(2, 1, 0), notes


def _decoded(item: _Slice) -> NDArray[Any]:
    """The stored values of one slice, `(rows, columns)`."""
    rows, columns, *_ = item.pixels
    try:
        whole = UID(item.syntax).is_deflated  # which pydicom cannot read in part; its size is bounded in headers.py
        # pylibjpeg's RLE decoder panics on damaged data, past every except and onto stderr; pydicom's own does not.
        plugin = "pydicom" if item.syntax == RLELossless else ""
        stored: NDArray[Any] = pixel_array(pydicom.dcmread(item.file) if whole else item.file, decoding_plugin=plugin)
    except MemoryError:
        raise
    except Exception as error:  # codecs raise anything, and their words may quote the data set
        cause = f"has pixel data that is cut short or damaged ({type(error).__name__})"
        raise InputError(item.file, cause, f"copy it again, or {AGAIN}") from None
    if stored.shape != (rows, columns):
        raise InputError(item.file, f"has pixel data of shape {stored.shape}, not {(rows, columns)}", AGAIN)
    return stored


def _interpolate(planes: NDArray[np.float32], stack: Stack) -> None:
    """Fill the places that no slice holds, linearly between those on either side."""
    places = np.array(stack.places)
    for z in stack.filled:
        above = int(places[places > z].min())
        below = int(places[places < z].max())
        weight = np.float32((z - below) / (above - below))
        planes[z] = (1 - weight) * planes[below] + weight * planes[above]
