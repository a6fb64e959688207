"""A patient as found on disk: which files are the FLAIR, and why they are thought to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brainseg.case import Layout
from brainseg.errors import InputError


@dataclass(frozen=True)
class Series:
    """The files of one sequence: slices in natural order, one volume, or the instances of one DICOM series.

    Attributes:
        layout: which reader it needs.
        files: slices in slice order; DICOM in no particular order; one file for NIfTI and ITK formats.
        uid: SeriesInstanceUID, DICOM only.
        description: SeriesDescription or file name, to show to a person who must choose.
    """

    layout: Layout
    files: tuple[Path, ...]
    uid: str = ""
    description: str = ""


@dataclass(frozen=True)
class Patient:
    """One patient (one session of one patient) and the series chosen for it.

    Attributes:
        name: safe (letters, digits, `._-`) and unique within one search; from folder or file names alone.
        path: the folder or file that the user would recognise.
        flair: the FLAIR; for colour TIFF it holds all three channels.
        pre, post: pre- and post-contrast T1 where found.
        masks: ground truth that lies beside the scan: one file a slice, one for a volume, a DICOM SEG of the same study
            for DICOM, or none (a MATLAB file is its own mask).
        why: one sentence that says how the FLAIR was recognised.
        certain: False where the format cannot say that it is a FLAIR (NIfTI, TIFF).
        skipped: files under `path` that are not images of this patient (junk, localisers, other series), counted.
        alone: the slice is not known to belong to any other, so that its patient is not known either.
        problem: what makes this patient unreadable, seen while searching; to be raised by whoever reads it, so that
            one bad patient does not hide the others of a cohort.
    """

    name: str
    path: Path
    flair: Series
    pre: Series | None = None
    post: Series | None = None
    masks: tuple[Path, ...] = ()
    why: str = ""
    certain: bool = False
    skipped: int = 0
    alone: bool = False
    problem: InputError | None = None
