"""A phantom as files: TIFF slices in the public data set's layout, NIfTI volumes, or DICOM series.

All three hold the same whole numbers from 0 to 255, so that reading any of them gives the same voxels: axes X = column,
Y = row, Z = slice. (A DICOM reader that orders slices along row x column turns Z round where the phantom's axes are
left-handed, as in "RPS".)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from brainseg.case import CHANNELS, LPS_TO_RAS
from brainseg.phantom.scan import Phantom
from brainseg.writers.atomic import replacing, replacing_all

DATE = "20200101"


@dataclass(frozen=True)
class _Sequence:
    """How one channel was scanned: what DICOM says of it.

    Attributes:
        ti_ms: inversion time; None where the sequence has none.
    """

    folder: str
    description: str
    number: int
    te_ms: float
    tr_ms: float
    ti_ms: float | None = None
    contrast: bool = False


_SEQUENCES = (  # in the order of CHANNELS
    _Sequence("T1_PRE", "AX T1 PRE", 3, 14, 600),
    _Sequence("FLAIR", "AX T2 FLAIR", 2, 120, 9000, 2500),
    _Sequence("T1_POST", "AX T1 POST GAD", 4, 14, 600, contrast=True),
)


def write_phantom_tiff(phantom: Phantom, folder: Path, name: str = "phantom") -> Path:
    """Write `folder/name/name_<n>.tif` and `name_<n>_mask.tif`, n from 1 upwards to the head; gives that folder.

    As in the public data set: uint8 RGB in the order of `CHANNELS`, the mask 0 or 255, row 0 anterior, column 0 at the
    patient's right. TIFF holds no geometry, so the spacing is lost.

    Raises:
        ValueError: if the grid is not axis-aligned with axes "LPS", which is all that the layout can mean.
    """
    directions = phantom.affine[:3, :3] / np.array(phantom.spacing_mm)
    if not np.allclose(directions, LPS_TO_RAS[:3, :3], atol=1e-6):
        raise ValueError("TIFF slices mean an unrotated LPS grid; make the phantom with axes='LPS' and no rotation")
    patient = Path(folder) / name
    files = {}
    for z in range(phantom.mask.shape[2]):
        pixels = phantom.image[..., z].transpose(2, 1, 0).astype(np.uint8)
        files[patient / f"{name}_{z + 1}.tif"] = _tiff(pixels, "rgb")
        files[patient / f"{name}_{z + 1}_mask.tif"] = _tiff(phantom.mask[..., z].T * np.uint8(255), "minisblack")
    _write(files)
    return patient


def write_phantom_nifti(phantom: Phantom, folder: Path, name: str = "phantom") -> Path:
    """Write t1, flair, t1c and flair_mask .nii.gz in `folder/name`, int16 (mask uint8), with both affines (code 1).

    Gives that folder.
    """
    patient = Path(folder) / name
    volumes: dict[str, NDArray[np.generic]] = {
        stem: phantom.image[channel].astype(np.int16) for channel, stem in enumerate(("t1", "flair", "t1c"))
    }
    volumes["flair_mask"] = phantom.mask
    for stem, array in volumes.items():
        image = nibabel.Nifti1Image(array, phantom.affine)
        image.set_sform(phantom.affine, code=1)
        image.set_qform(phantom.affine, code=1)
        image.header.set_xyzt_units("mm", "sec")
        with replacing(patient / f"{stem}.nii.gz") as partial:
            nibabel.save(image, partial)
    return patient


def write_phantom_dicom(
    phantom: Phantom, folder: Path, name: str = "phantom", *, descending: bool = False, date: str = DATE
) -> Path:
    """Write three MR series, one study, in `folder/name/{FLAIR,T1_PRE,T1_POST}`; gives `folder/name`.

    The same phantom gets the same UIDs. Rows of a slice run along X, its columns along Y.

    Args:
        descending: number the slices, and name the files, from the last along Z to the first, as many scanners do.
        date: of the study, YYYYMMDD; another makes another study of the same patient.
    """
    patient = Path(folder) / name
    digest = hashlib.sha256(phantom.image.tobytes() + phantom.affine.tobytes()).hexdigest()
    digest += "" if date == DATE else date
    depth = phantom.mask.shape[2]
    files = {}
    for channel, sequence in enumerate(_SEQUENCES):
        for place in range(depth):
            z = depth - 1 - place if descending else place
            ds = _instance(phantom, digest, channel, z, place + 1, date)
            content = files[patient / sequence.folder / f"{place + 1:04d}.dcm"] = BytesIO()
            ds.save_as(content, enforce_file_format=True)
    _write(files)
    return patient


def _tiff(pixels: NDArray[np.uint8], photometric: str) -> BytesIO:
    content = BytesIO()
    tifffile.imwrite(content, pixels, photometric=photometric)
    return content


def _write(files: Mapping[Path, BytesIO]) -> None:
    with replacing_all(list(files)) as partials:
        for partial, content in zip(partials, files.values(), strict=True):
            partial.write_bytes(content.getbuffer())


def _instance(phantom: Phantom, digest: str, channel: int, z: int, number: int, date: str) -> FileDataset:
    """One slice as an MR Image (PS3.3 A.4.3)."""
    sequence = _SEQUENCES[channel]
    series = [digest, CHANNELS[channel]]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*series, str(z)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]

    ds.PatientName, ds.PatientID = "Phantom^Head", f"PHANTOM-{phantom.seed}"
    ds.PatientBirthDate, ds.PatientSex = "", ""
    ds.PatientPosition = "HFS"

    ds.StudyInstanceUID = generate_uid(entropy_srcs=[digest, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=series)
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[digest, "frame of reference"])
    ds.PositionReferenceIndicator = ""
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.StudyDescription, ds.SeriesDescription = "Synthetic head", sequence.description
    ds.SeriesNumber, ds.InstanceNumber = sequence.number, number
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = date
    ds.StudyTime = "120000"
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"12{5 * sequence.number:02d}00"

    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", "brainseg", "phantom"
    ds.BodyPartExamined = "HEAD"
    ds.ScanningSequence = ["SE", "IR"] if sequence.ti_ms else "SE"
    ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SK" if sequence.ti_ms else "NONE", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = sequence.tr_ms, sequence.te_ms, 16 if sequence.ti_ms else 1
    ds.MagneticFieldStrength, ds.FlipAngle, ds.NumberOfAverages = 1.5, 90, 1
    if sequence.ti_ms:
        ds.InversionTime = sequence.ti_ms
    if sequence.contrast:
        ds.ContrastBolusAgent = "Gadolinium"

    _set_geometry(ds, phantom, z)
    _set_pixels(ds, phantom.image[channel, ..., z])
    return ds


def _set_geometry(ds: pydicom.Dataset, phantom: Phantom, z: int) -> None:
    """Where the slice lies, in LPS+ mm (PS3.3 C.7.6.2.1.1), as precisely as 16 characters allow."""
    lps = LPS_TO_RAS @ phantom.affine  # diag(-1, -1, 1, 1) is its own inverse
    directions = lps[:3, :3] / np.array(phantom.spacing_mm)
    width_mm, height_mm, apart_mm = phantom.spacing_mm
    ds.ImagePositionPatient = _decimals(lps @ np.array([0, 0, z, 1]), 3)
    ds.ImageOrientationPatient = _decimals(directions[:, :2].T.ravel(), 6)
    ds.PixelSpacing = _decimals(np.array([height_mm, width_mm]), 2)  # between rows, then between columns
    ds.SliceThickness = ds.SpacingBetweenSlices = format_number_as_ds(float(apart_mm))
    along = int(np.argmax(np.abs(directions[:, 2])))
    ds.SliceLocation = format_number_as_ds(float(lps[along, 2] * z + lps[along, 3]))


def _decimals(values: NDArray[np.float64], count: int) -> list[str]:
    return [format_number_as_ds(float(value) + 0.0) for value in values[:count]]


def _set_pixels(ds: pydicom.Dataset, plane: NDArray[np.float32]) -> None:
    """Pixels of a slice given as `(X, Y)`."""
    pixels = np.ascontiguousarray(plane.T).astype("<u2")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "US"
    ds.WindowCenter, ds.WindowWidth = 90, 180
    ds.PixelData = pixels.tobytes()
