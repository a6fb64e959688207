"""Who was scanned and when, as a DICOM header says: to compare two scans with, never to be shown or written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime

from brainseg.study import headers
from brainseg.study.patient import Series

DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")


@dataclass(frozen=True)
class Session:
    """Identity attributes, kept out of every repr.

    Attributes:
        patient_id: empty where it is not given.
        date: of the acquisition, else of the series, else of the study; None where none is given.
    """

    patient_id: str = field(default="", repr=False)
    date: date | None = field(default=None, repr=False)


def session_of(series: Series) -> Session:
    """What one instance of a DICOM series says; nothing for other formats, and nothing where it cannot be read."""
    if series.layout != "dicom":
        return Session()
    with headers.quiet():
        try:
            ds = headers.dataset(min(series.files), ["PatientID", *DATES])
        except ValueError:
            return Session()
        said = (_date(headers.text(ds, keyword)) for keyword in DATES)
        return Session(headers.text(ds, "PatientID"), next((one for one in said if one is not None), None))


def _date(text: str) -> date | None:
    """A DA value (PS3.5 6.2), YYYYMMDD; None for anything else."""
    try:
        return datetime.strptime(text, "%Y%m%d").date() if len(text) == 8 else None
    except ValueError:
        return None
