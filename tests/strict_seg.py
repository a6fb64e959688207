"""A judge of what is written: a DICOM Segmentation (PS3.3 A.51) as a mask on the grid of a case, nothing resampled.

Every frame must lie on a slice of the case, by its own tags: orientation, pixel spacing and position, in the case's
frame of reference. Which instances the SEG refers to is not asked, since foreign SEGs often refer to a sister series.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import LPS_TO_RAS, Case
from brainseg.errors import InputError
from brainseg.study import headers
from brainseg.study.headers import number, numbers, text

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # Segmentation, Label Map
TOLERANCE = 0.01  # of the smallest side of a voxel; the slices of a series themselves may be so far off its grid
AGAIN = "export it again"


def read_dicom_seg(file: Path, case: Case, segments: Collection[int] | None = None) -> NDArray[np.uint8]:
    """The voxels of a SEG's segments together, uint8 0/1 (X, Y, Z) on the grid of `case`.

    Args:
        file: of one instance.
        case: read from DICOM; its first file must still be there.
        segments: the numbers of those wanted; all where None.

    Raises:
        InputError: if the file is no SEG that can be read, is fractional, lies in another frame of reference or off the
            grid of the case, or has not the segments asked for.
    """
    if case.layout != "dicom":
        raise InputError(file, "is a DICOM SEG and the scan is not DICOM", "give the DICOM series it belongs to")
    with headers.quiet():
        ds = _dataset(file)
        kind = text(ds, "SegmentationType")
        if text(ds, "SOPClassUID") not in SEGMENTATIONS or kind not in ("BINARY", "LABELMAP"):
            what = "a fractional segmentation" if kind == "FRACTIONAL" else "no DICOM segmentation"
            raise InputError(file, f"is {what}", "give a binary DICOM SEG")
        _refuse_other_frame(file, ds, case)
        known = _segment_numbers(file, ds)
        if segments is not None and (unknown := sorted(set(segments) - known)):
            has = ", ".join(map(str, sorted(known)))
            raise InputError(file, f"has no segment {unknown[0]}, but {has}", "choose among those")
        wanted = known - {0} if segments is None else set(segments)
        frames = _frames(file, ds, case, most=case.shape[2] * len(known))
        return _united(file, ds, case, frames, wanted, label_map=kind == "LABELMAP")


def _dataset(file: Path) -> Any:
    """The whole header; the size of what is deflated is bounded, as for any other DICOM."""
    import pydicom

    try:
        headers.dataset(file, ["SOPClassUID"])
        return pydicom.dcmread(file)
    except Exception as error:  # a damaged file can raise anything, and quote the data set
        cause = f"is not a DICOM file that can be read ({type(error).__name__})"
        raise InputError(file, cause, AGAIN) from None


def _refuse_other_frame(file: Path, ds: Any, case: Case) -> None:
    try:
        source = headers.dataset(case.files[0], ["FrameOfReferenceUID"])
    except ValueError:
        raise InputError(case.files[0], "cannot be read any more", "give the series again") from None
    own, other = text(ds, "FrameOfReferenceUID"), text(source, "FrameOfReferenceUID")
    if not own or own != other:
        raise InputError(file, "has another frame of reference than the scan", "give the SEG of this very series")


def _segment_numbers(file: Path, ds: Any) -> set[int]:
    try:
        return {int(item.SegmentNumber) for item in ds.SegmentSequence}
    except Exception:
        raise InputError(file, "describes no segments", AGAIN) from None


def _frames(file: Path, ds: Any, case: Case, most: int) -> NDArray[Any]:
    """The stored frames, (frame, row, column), after a look at their size."""
    from pydicom.pixels import pixel_array

    rows, columns = int(number(ds, "Rows") or 0), int(number(ds, "Columns") or 0)
    count = int(number(ds, "NumberOfFrames") or 0)
    if (columns, rows) != case.shape[:2]:
        cause = f"has frames of {columns} x {rows} pixels, the scan of {case.shape[0]} x {case.shape[1]}"
        raise InputError(file, cause, "give the SEG of this very series")
    if not 1 <= count <= most or number(ds, "SamplesPerPixel") != 1:
        raise InputError(file, f"declares {count} frames where {most} are possible", "give the SEG of this very series")
    try:
        frames: NDArray[Any] = pixel_array(ds)
    except Exception as error:  # codecs raise anything
        raise InputError(file, f"has pixel data that is damaged ({type(error).__name__})", AGAIN) from None
    return frames.reshape(count, rows, columns)


def _united(
    file: Path, ds: Any, case: Case, frames: NDArray[Any], wanted: Collection[int], *, label_map: bool
) -> NDArray[np.uint8]:
    """The mask of `wanted` segments: the frames that are theirs, or of a label map the pixels."""
    mask = np.zeros(case.shape, np.uint8)
    try:
        shared, items = ds.SharedFunctionalGroupsSequence[0], list(ds.PerFrameFunctionalGroupsSequence)
    except Exception:
        raise InputError(file, "does not say where its frames lie", AGAIN) from None
    if len(items) != len(frames):
        raise InputError(file, f"describes {len(items)} of its {len(frames)} frames", AGAIN)
    for item, frame in zip(items, frames, strict=True):
        z = _place(file, case, item, shared)
        if label_map:
            mask[..., z] |= np.isin(frame, list(wanted)).T
        elif number(_group("SegmentIdentificationSequence", item, shared), "ReferencedSegmentNumber") in wanted:
            mask[..., z] |= (frame != 0).T
    return mask


def _place(file: Path, case: Case, item: Any, shared: Any) -> int:
    """The slice of the case that a frame lies on."""
    position = numbers(_group("PlanePositionSequence", item, shared), "ImagePositionPatient")
    orientation = numbers(_group("PlaneOrientationSequence", item, shared), "ImageOrientationPatient")
    spacing = numbers(_group("PixelMeasuresSequence", item, shared), "PixelSpacing")
    if [len(values or ()) for values in (position, orientation, spacing)] != [3, 6, 2]:
        raise InputError(file, "has a frame that does not say where it lies", AGAIN)
    columns, rows, depth = case.shape
    row, column = np.reshape(np.array(orientation), (2, 3))
    between_rows, between_columns = np.array(spacing)
    lps = np.column_stack([row * between_columns, column * between_rows, np.array(position)])
    corners = np.array([[i, j, 1] for i in (0, columns - 1) for j in (0, rows - 1)], dtype=np.float64).T
    ras = LPS_TO_RAS[:3, :3] @ lps @ corners
    first = np.linalg.inv(case.affine) @ [*ras[:, 0], 1]
    z = round(float(first[2]))
    ours = case.affine @ np.vstack([corners[:2], np.full(4, z), np.ones(4)])
    off_mm = float(np.linalg.norm(ours[:3] - ras, axis=0).max())
    tolerance_mm = TOLERANCE * float(np.linalg.norm(case.affine[:3, :3], axis=0).min())
    if not 0 <= z < depth or off_mm > tolerance_mm:
        cause = (
            "has a frame beyond the scan" if off_mm <= tolerance_mm else f"is off the scan's grid by {off_mm:.3g} mm"
        )
        raise InputError(file, cause, "give the SEG of this very series, or resample it onto the scan")
    return z


def _group(keyword: str, item: Any, shared: Any) -> Any:
    """A functional group of a frame: its own, or what it shares with all; empty where it has none."""
    for holder in (item, shared):
        try:
            if holder.get(keyword):
                return holder.get(keyword)[0]
        except Exception:  # a malformed sequence may raise anything
            continue
    return {}
