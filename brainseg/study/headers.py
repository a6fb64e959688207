"""DICOM headers, read once, without pixels, and never shown: they name the patient."""

from __future__ import annotations

import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian

TAGS = [
    "SOPClassUID",
    "ImageType",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "ContrastBolusAgent",
    "ScanningSequence",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "ProtocolName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ImageOrientationPatient",
    "NumberOfFrames",
    "Rows",
]
LARGEST_INFLATED = 2**28
_FIRST_TAGS = {bytes([group, 0, element, 0]) for group in (2, 8) for element in range(32)}  # low ones, little-endian
_TELLING = re.compile(
    r"(?:ax|axial|sag|sagittal|cor|coronal|tra|transversal?|obl|oblique|3d|2d|[23]d?t[12]w?|t[12]w?|pd|flair|dark|fluid|"
    r"tirm|stir|ir|se|tse|fse|ge|gre|epi|spgr|bravo|mprage|mp2?rage|space|cube|vista|blade|propeller|fs|fatsat|sat|dixon|"
    r"pre|post|gd|gad|gado|gadolinium|ce|km|contrast|without|with|no|non|wo|w|plain|native|c|dwi|dti|adc|fa|b[0-9]{1,4}|"
    r"trace|swi|swan|tof|mra|mrv|perf|perfusion|dsc|dce|asl|loc|localizer|localiser|scout|mpr|mip|reformat|sub|map|"
    r"iso|isotropic|brain|head|skull|stripped|registered|te|tr|ti|mm|ms|of|on|the|and|"
    r"seg|segmentation|segments?|tumou?r|lesions?|glioma|glioblastoma|gbm|lgg|hgg|edema|oedema|enhancing|necrosis|core|ai|"
    r"whole|mask|roi|label|manual|manually|corrected|reviewed|approved|automatic|automated|auto|final|by|hand|"
    r"abnormality|research|use|only|[0-9]{1,2})"
)


@dataclass(frozen=True)
class Header:
    """What one instance says about its series.

    Attributes:
        patient_id: to tell two patients apart; kept out of every message, name and repr.
        te_ms, tr_ms, ti_ms: echo, repetition and inversion time.
        orientation: ImageOrientationPatient, direction cosines of row and column (LPS).
        frames: more than 1 for a multi-frame instance.
        image: whether it has rows of pixels at all.
    """

    study_uid: str
    series_uid: str
    patient_id: str = field(repr=False)
    modality: str = ""
    sop_class: str = ""
    image_type: tuple[str, ...] = ()
    description: str = ""
    protocol: str = ""
    scanning: tuple[str, ...] = ()
    contrast: bool = False
    te_ms: float | None = None
    tr_ms: float | None = None
    ti_ms: float | None = None
    number: int | None = None
    orientation: tuple[float, ...] | None = None
    frames: int = 1
    image: bool = False


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning and logging: what it says may quote the patient's data."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def says_dicom(path: Path) -> bool:
    """Whether a file has the DICOM prefix (PS3.10 7.1)."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def lacks_prefix(path: Path) -> bool:
    """Whether a file is an instance of a series but for the DICOM prefix, as some archives of old scanners write it.

    Such a file begins with an element of group 2 or 8; call within `quiet()`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2048)
        if start[:4] not in _FIRST_TAGS:
            return False
        if str(DeflatedExplicitVRLittleEndian).encode() in start:  # which would be inflated whole
            return True
        ds = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return bool(text(ds, "SeriesInstanceUID"))
    except Exception:  # what is no DICOM can raise anything
        return False


def dataset(path: Path, tags: list[str]) -> Any:
    """The elements `tags` of a file that has the DICOM prefix, without pixels; call within `quiet()`.

    Raises:
        ValueError: whatever the fault; the text says no more than its kind, since pydicom's own may quote the patient.
    """
    try:
        _refuse_bomb(path)
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
    except Exception as error:  # a damaged file can raise anything: struct.error, RecursionError, KeyError...
        raise ValueError(type(error).__name__) from None


def header_of(ds: Any) -> Header:
    """What a data set read with `TAGS` says about its series."""
    orientation = numbers(ds, "ImageOrientationPatient")
    return Header(
        study_uid=text(ds, "StudyInstanceUID"),
        series_uid=text(ds, "SeriesInstanceUID"),
        patient_id=text(ds, "PatientID"),
        modality=text(ds, "Modality"),
        sop_class=text(ds, "SOPClassUID"),
        image_type=texts(ds, "ImageType"),
        description=shown(text(ds, "SeriesDescription")),
        protocol=shown(text(ds, "ProtocolName")),
        scanning=texts(ds, "ScanningSequence"),
        contrast=text(ds, "ContrastBolusAgent").lower() not in ("", "no", "none", "n", "0", "off"),
        te_ms=number(ds, "EchoTime"),
        tr_ms=number(ds, "RepetitionTime"),
        ti_ms=number(ds, "InversionTime"),
        number=None if (value := number(ds, "SeriesNumber")) is None else int(value),
        orientation=orientation if orientation is not None and len(orientation) == 6 else None,
        frames=int(number(ds, "NumberOfFrames") or 1),
        image=(number(ds, "Rows") or 0) > 0,
    )


def texts(ds: Any, keyword: str) -> tuple[str, ...]:
    """The values of an element as text; empty where it is missing or malformed."""
    try:
        value = ds.get(keyword)
        values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        return tuple(str(item).strip().strip("\0") for item in values if item is not None)
    except Exception:  # the value is converted only now, and may be anything
        return ()


def text(ds: Any, keyword: str) -> str:
    """The value of an element as text; empty where it is missing or malformed."""
    return "\\".join(texts(ds, keyword))


def numbers(ds: Any, keyword: str) -> tuple[float, ...] | None:
    """The finite values of an element; None where it is missing, malformed or not finite."""
    try:
        values = tuple(float(item) for item in texts(ds, keyword))
    except ValueError:
        return None
    return values if values and all(abs(value) < 1e12 for value in values) else None


def number(ds: Any, keyword: str) -> float | None:
    """The first finite value of an element; None where it is missing, malformed or not finite."""
    values = numbers(ds, keyword)
    return values[0] if values else None


def shown(description: str) -> str:
    """A SeriesDescription to be searched for words: printable, one line, not long; messages have `told` of it alone."""
    return " ".join("".join(c if c.isprintable() else " " for c in description).split())[:64]


def told(description: str) -> str:
    """The words of a SeriesDescription that say what was scanned or drawn; it is free text and may name anybody."""
    words = re.split(r"[^A-Za-z0-9]+", description)
    return " ".join(word for word in words if _TELLING.fullmatch(word.lower()))


def _refuse_bomb(path: Path) -> None:
    """Refuse a deflated file that would not fit: pydicom inflates it whole, even for its header."""
    with path.open("rb") as file:
        start = file.read(2048)
        if str(DeflatedExplicitVRLittleEndian).encode() not in start:
            return
        if start[132:136] != b"\x02\x00\x00\x00":
            raise ValueError("no group length")  # PS3.10 7.1 requires it; without it nobody knows where to inflate
        file.seek(144 + int.from_bytes(start[140:144], "little"))
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        total = 0
        while not engine.eof:
            packed = engine.unconsumed_tail or file.read(2**16)
            inflated = len(engine.decompress(packed, 2**20))
            total += inflated
            if total > LARGEST_INFLATED:
                raise ValueError("too large")
            if not packed and not inflated:
                break
