"""What one run says about its cases: the rows of cohort.csv, the failures, and what the report shows of each case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brainseg.errors import BrainsegError
from brainseg.measures import Lesion


@dataclass(frozen=True)
class CohortRow:
    """One case of a run, a row of cohort.csv.

    Attributes:
        case: the case's name, also its folder's.
        status: "done", or "failed" with `error` set.
        volume_ml: None where the spacing is unknown or the case failed.
        volume_voxels, lesions, confidence: None where the case failed.
        flags: what looks wrong, one short code or sentence each, without ";".
        seconds: wall-clock time spent on it.
        input: where it came from, relative to the input path.
        error: `<cause>; <what to do>`, or empty.
        volume_low_ml, volume_high_ml: the true volumes that 95% of such measurements come from, by the errors of the
            network's cross-validation; None where that or the volume is not known, nothing bounds it, or a person
            changed the mask: it is then no measurement of the network's, and how far people err is not known.
    """

    case: str
    status: str
    volume_ml: float | None = None
    volume_voxels: int | None = None
    lesions: int | None = None
    confidence: float | None = None
    flags: tuple[str, ...] = ()
    seconds: float | None = None
    input: str = ""
    error: str = ""
    volume_low_ml: float | None = None
    volume_high_ml: float | None = None


@dataclass(frozen=True)
class Failure:
    """A case that could not be done: what failed, why, and what to do."""

    case: str
    input: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class CaseDetail:
    """What the report shows of one case beyond its row.

    Attributes:
        overlay: picture of the slices with the mask's contour (PNG), if there is one.
        lesions: largest first.
        notes: what the reader did or saw, and how the FLAIR was recognised; a sentence each.
        truth_ml: the true volume, where it is known (phantom, annotated data).
        slices, mask: slices.webp and mask.nii.gz, from which the slices to scroll through are made; None without.
    """

    overlay: Path | None = None
    lesions: tuple[Lesion, ...] = ()
    truth_ml: float | None = None
    notes: tuple[str, ...] = ()
    slices: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Done:
    """A case with results; `fresh` unless they lay there from an earlier run."""

    row: CohortRow
    detail: CaseDetail
    fresh: bool


@dataclass(frozen=True)
class Failed:
    """A failure for the tables, and the line that says it on the terminal, with the very file."""

    failure: Failure
    message: str

    @classmethod
    def of(cls, case: str, shown: str, error: BrainsegError) -> Failed:
        """The failure of `case`, which came from `shown`."""
        return cls(Failure(case=case, input=shown, cause=error.cause, remedy=error.remedy), str(error))
