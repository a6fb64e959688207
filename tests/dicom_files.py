"""Small DICOM series to order, written to a folder: a sound FLAIR unless a test spoils it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from brainseg.phantom import Phantom, make_phantom

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
PATIENT_NAME, PATIENT_ID = "Planted^Name", "PLANTED-ID-7731"


def voxels(depth: int = 8, rows: int = 6, columns: int = 5) -> np.ndarray:
    """`(slice, row, column)` uint16, every value different, so that no flip or swap can hide."""
    return np.arange(depth * rows * columns, dtype=np.uint16).reshape(depth, rows, columns) + 10


@cache
def oblique_phantom(axes: str) -> Phantom:
    """A small scan of the synthetic head on a grid that is turned about all three axes of the world."""
    return make_phantom(shape=(20, 24, 16), spacing_mm=(11.0, 10.0, 12.0), axes=axes, rotation_deg=(12, -8, 15))


def series(
    array: np.ndarray | None = None,
    *,
    spacing: tuple[float, float, float] = (0.5, 0.75, 3.0),
    orientation: tuple[float, ...] = AXIAL,
    start: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    step: tuple[float, float, float] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    **tags: Any,
) -> list[FileDataset]:
    """One instance a slice of `array` (slice, row, column).

    Args:
        spacing: between columns, between rows, between slices (X, Y, Z).
        start: ImagePositionPatient of the first slice, LPS mm.
        step: from one slice to the next; along the normal where None.
        tags: set, or left out where None, in every instance.
    """
    array = voxels() if array is None else array
    normal = np.cross(orientation[:3], orientation[3:])
    along = normal * spacing[2] if step is None else np.asarray(step)
    shared: dict[str, Any] = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "PatientName": PATIENT_NAME,
        "PatientID": PATIENT_ID,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "SeriesNumber": 5,
        "SeriesDescription": "AX FLAIR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "EchoTime": 120,
        "RepetitionTime": 9000,
        "InversionTime": 2500,
        "ImageOrientationPatient": [f"{value:.12g}"[:16] for value in orientation],
        "PixelSpacing": [spacing[1], spacing[0]],
        "SliceThickness": spacing[2],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(array.dtype.kind == "i"),
        **tags,
    }
    instances = []
    for i, plane in enumerate(array):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = syntax
        meta.MediaStorageSOPClassUID = shared["SOPClassUID"]
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
        for keyword, value in shared.items():
            if value is not None:
                setattr(ds, keyword, value)
        ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        ds.InstanceNumber = i + 1
        ds.ImagePositionPatient = [f"{value:.12g}"[:16] for value in np.asarray(start) + i * along]
        ds.Rows, ds.Columns = plane.shape
        ds.PixelData = np.ascontiguousarray(plane).tobytes()
        instances.append(ds)
    return instances


def write(folder: Path, instances: list[FileDataset], suffix: str = ".dcm") -> list[Path]:
    """Write instances under names that do not tell their order; the paths are in the order of `instances`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IM{(7 * i + 3) % 1009:04d}{suffix}" for i in range(len(instances))]
    for path, ds in zip(paths, instances, strict=True):
        little = ds.file_meta.TransferSyntaxUID.is_little_endian
        implicit = ds.file_meta.TransferSyntaxUID.is_implicit_VR
        pydicom.dcmwrite(path, ds, little_endian=little, implicit_vr=implicit, enforce_file_format=True)
    return paths


def edited(path: Path, change: Callable[[FileDataset], None]) -> None:
    """Change one file in place."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)


def itk_image(folder: Path) -> Any:
    """The series in `folder` as ITK reads it: an independent judge of geometry.

    ITK is loaded here, since a warning about its SWIG types, when turned into an error, makes its import crash.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import itk

        names = itk.GDCMSeriesFileNames.New(Directory=str(folder)).GetInputFileNames()
        return itk.imread(list(names), itk.F)
