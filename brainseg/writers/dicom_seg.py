"""The mask as a DICOM Segmentation (PS3.3 A.51) over the slices of its source series.

What a segment is called. Hyperintensity on the FLAIR of a glioma is tumour, infiltration and oedema, which the FLAIR
alone does not tell apart; "Neoplasm" or "Edema" would each claim more than was measured. So a segment is a "Lesion of
Brain" (SCT 301766008), a "Morphologically Abnormal Structure" (SCT 49755003), in the "Brain" (SCT 12738006): the codes
that CID 7194, 7150 and 4 offer for it.

Frames. One segment has a frame for every slice, empty ones too: the frames are the volume, also for a program that only
stacks them, and an empty mask is a valid SEG that says "looked at, nothing found". With a segment a lesion, frames
without the lesion are left out. A slice that was interpolated across a gap has a frame, at its own place, and no source
to refer to; highdicom then leaves out the reference of each frame to its slice, and the series' remains.

Identity. The tags that PS3.3 wants of a patient and a study (type 1 and 2) are copied as they are, and nothing else:
what is not listed below is never read. Equal input, mask and weights give identical bytes: UIDs come
from a hash, the time of content is that of the study, and times of creation are left out.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import date, datetime, time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg import __version__
from brainseg.case import LPS_TO_RAS, Case, Segmentation
from brainseg.errors import InputError
from brainseg.writers.atomic import replacing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LABEL = "FLAIR abnormality"
SERIES_DESCRIPTION = f"{LABEL}, brainseg, research use only"
SERIES_OFFSET, MOST_SERIES = 1000, 10**9  # added to the number of the source series, as far as that is one
UNDATED = date(1900, 1, 1)

_IDENTITY = [  # Patient (C.7.1.1), General Study (C.7.2.1)
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
]
_ONE = ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
_IMAGE = [
    *_ONE,
    "SOPClassUID",
    "SOPInstanceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
]
_NUMBERS = ["SeriesNumber", "SliceThickness"]  # which may be missing or malformed


def write_dicom_seg(path: Path, case: Case, segmentation: Segmentation, *, per_lesion: bool = False) -> None:
    """Writes the mask of a DICOM case as a binary SEG that refers to every instance of the FLAIR series.

    Args:
        path: of the file.
        case: as read from DICOM; its files must still be there.
        segmentation: of that case.
        per_lesion: a segment for each lesion, numbered as in lesions.csv, in place of one for all.

    Raises:
        InputError: if the source lacks what a SEG must carry over, as a frame of reference.
        MachineError: if the file cannot be written.
        ValueError: if the case is not DICOM, or the mask is not on its grid.
    """
    from brainseg.measures import label_lesions
    from brainseg.study.headers import quiet

    if case.layout != "dicom":
        raise ValueError(f"expected a DICOM case, got the layout {case.layout!r}")
    if segmentation.mask.shape != case.shape:
        raise ValueError(f"mask must have the case's shape {case.shape}, got {segmentation.mask.shape}")
    labels = label_lesions(segmentation.mask) if per_lesion else (segmentation.mask != 0).astype(np.uint8)
    with quiet():
        sources, identity = _sources(case)
        seg = _segmentation(case, labels, segmentation, sources, identity)
        with replacing(path) as partial:
            written = BytesIO()  # not the file: of a full disk pydicom says nothing that tells it from other errors
            seg.save_as(written, enforce_file_format=True)
            partial.write_bytes(written.getbuffer())


def _segmentation(
    case: Case, labels: NDArray[Any], segmentation: Segmentation, sources: list[Dataset], identity: Dataset
) -> Any:
    """The SEG of `labels` (X, Y, Z), 0 outside and n in segment n."""
    import highdicom
    from highdicom.seg import Segmentation as Seg
    from highdicom.seg import SegmentationTypeValues
    from pydicom.uid import ExplicitVRLittleEndian

    segments = max(int(labels.max()), 1)
    frames = np.ascontiguousarray(labels.transpose(2, 1, 0)).astype(np.uint16 if segments > 255 else np.uint8)
    parameters = {
        "bundle": segmentation.bundle,
        "bundle_version": segmentation.bundle_version,
        "weights_sha256": segmentation.weights_sha256,
        "threshold": f"{segmentation.threshold:g}",
    }
    made_from = [__version__, highdicom.__version__, parameters, hashlib.sha256(frames.tobytes()).hexdigest()]
    origin = json.dumps([*made_from, [str(source.SOPInstanceUID) for source in sources]])
    content_date, content_time = _study_moment(identity)
    seg = Seg(
        source_images=sources,
        pixel_array=frames,
        plane_positions=None if len(sources) == len(frames) else _plane_positions(case),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=_descriptions(segments, parameters),
        omit_empty_frames=segments > 1,
        series_instance_uid=_uid(origin, "series"),
        sop_instance_uid=_uid(origin, "instance"),
        series_number=sources[0].SeriesNumber + SERIES_OFFSET,
        instance_number=1,
        series_description=SERIES_DESCRIPTION,
        content_label="FLAIR_ABNORMAL",
        content_description=LABEL,
        content_date=content_date,
        content_time=content_time,
        manufacturer="brainseg",
        manufacturer_model_name="brainseg",
        software_versions=__version__,
        device_serial_number=__version__,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=None,
    )
    _remove_chance(seg, _uid(origin, "dimensions"))
    for element in identity:
        seg[element.tag] = element
    return seg


def _remove_chance(seg: Any, dimension_uid: str) -> None:
    """Takes out what differs from run to run: times of creation, and the random UID of the dimensions."""
    del seg.InstanceCreationDate, seg.InstanceCreationTime
    for item in seg.ContributingEquipmentSequence:
        del item.ContributionDateTime
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension_uid


def _descriptions(segments: int, parameters: dict[str, str]) -> list[Any]:
    """What each segment is, and the algorithm that drew it."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence(
        name="brainseg", family=codes.DCM.ArtificialIntelligence, version=__version__, parameters=parameters
    )
    return [
        SegmentDescription(
            segment_number=n,
            segment_label=LABEL if segments == 1 else f"{LABEL} {n}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.LesionOfBrain,
            anatomic_regions=[codes.SCT.Brain],
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for n in range(1, segments + 1)
    ]


def _sources(case: Case) -> tuple[list[Dataset], Dataset]:
    """The headers of the source instances in order of Z, of one orientation and spacing, and what names the patient.

    Those of the first instance are everybody's, as the reader has checked them to within its tolerance.

    Raises:
        InputError: if one cannot be read any more, or lacks what a SEG must refer to.
    """
    from pydicom.valuerep import format_number_as_ds

    from brainseg.study.headers import dataset, number

    read = []
    for file in case.files:
        try:
            read.append(dataset(file, [*_IDENTITY, *_IMAGE, *_NUMBERS]))
        except ValueError as error:
            raise InputError(file, f"is not a DICOM file that can be read ({error})", "give the series again") from None
    _refuse_unfit(case, read)
    identity = _picked(read[0], _IDENTITY)
    sources = [_picked(ds, _IMAGE) for ds in read]
    columns, rows, _ = case.shape
    spacing_mm = float(np.linalg.norm(case.affine[:3, 2]))
    for source, ds in zip(sources, read, strict=True):
        source.Rows, source.Columns = rows, columns
        source.ImageOrientationPatient = sources[0].ImageOrientationPatient
        source.PixelSpacing = sources[0].PixelSpacing
        thickness_mm = number(ds, "SliceThickness") or 0
        source.SliceThickness = format_number_as_ds(thickness_mm if thickness_mm > 0 else spacing_mm)
        source.SpacingBetweenSlices = format_number_as_ds(spacing_mm)
        source.SeriesNumber = int(min(max(number(ds, "SeriesNumber") or 0, 0), MOST_SERIES))
        for keyword in _IDENTITY[1:]:  # highdicom wants them, and would log a name it dislikes
            setattr(source, keyword, None)
    return sources, identity


def _refuse_unfit(case: Case, read: list[Dataset]) -> None:
    from pydicom.uid import UID

    from brainseg.study.headers import text

    for keyword in _ONE:
        values = {text(ds, keyword) for ds in read}
        if values == {""} or len(values) > 1:
            what = "no" if values == {""} else "more than one"
            raise InputError(case.name, f"its series has {what} {keyword}, which a SEG needs", "export it again")
    for ds in read:
        if not text(ds, "SOPInstanceUID") or UID(text(ds, "SOPClassUID")).type != "SOP Class":
            cause = "its series has an instance without a UID, or of a class that DICOM does not know"
            raise InputError(case.name, cause, "export it again")


def _picked(ds: Dataset, keywords: list[str]) -> Dataset:
    """A data set of those elements of `ds` alone."""
    from pydicom.dataset import Dataset

    picked = Dataset()
    for keyword in keywords:
        if keyword in ds:
            picked[keyword] = ds[keyword]
    return picked


def _plane_positions(case: Case) -> list[Any]:
    """Where each slice of the case's grid lies."""
    from highdicom import PlanePositionSequence
    from highdicom.enum import CoordinateSystemNames

    lps = LPS_TO_RAS @ case.affine  # its own inverse
    return [
        PlanePositionSequence(CoordinateSystemNames.PATIENT, (lps @ [0, 0, z, 1])[:3].tolist())
        for z in range(case.shape[2])
    ]


def _study_moment(identity: Dataset) -> tuple[date, time]:
    """Date and time of the study, as far as it says them."""
    from brainseg.study.headers import text

    day, moment = UNDATED, time()
    with suppress(ValueError):
        day = datetime.strptime(text(identity, "StudyDate"), "%Y%m%d").date()
    with suppress(ValueError):
        moment = datetime.strptime(text(identity, "StudyTime")[:6], "%H%M%S").time()
    return day, moment


def _uid(origin: str, role: str) -> str:
    """A UID under 2.25 (PS3.5 B.2), a version 8 UUID of a SHA-256."""
    value = int.from_bytes(hashlib.sha256(f"{role}\0{origin}".encode()).digest()[:16], "big")
    value = value & ~(0xF << 76) | 8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return f"2.25.{value}"
