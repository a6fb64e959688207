"""What `follow` is given: scans, or results of `segment`, of one patient; which of them, and in which order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from brainseg.errors import InputError, UsageError
from brainseg.guarded import GuardedReader
from brainseg.job import Job, Options, find_jobs, input_hashes
from brainseg.record import MASK, RECORD, Made, Network, made_of
from brainseg.study.names import safe_name, unique
from brainseg.study.session import Session, session_of

MOST_PARTS = 3  # of a path in a name
SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".zip", ".dcm")


@dataclass(frozen=True)
class Given:
    """One visit as it was given, before anything is measured.

    Attributes:
        name: from the path, as much of it as tells the visits apart.
        path: as the user gave it.
        job: the scan; None where results were given.
        folder: of the case that `segment` wrote; None where a scan was given.
        hashes: SHA-256 of the scan's files.
        session: identity attributes of a DICOM scan.
    """

    name: str
    path: Path
    job: Job | None
    folder: Path | None
    hashes: frozenset[str]
    session: Session


def open_visits(
    inputs: Sequence[Path], options: Options, stack: ExitStack, reader: GuardedReader, *, same_patient: bool
) -> list[Given]:
    """The visits under `inputs`, one each, in that order.

    Args:
        inputs: scans, or folders that `segment` wrote for one case.
        options: for reading scans.
        stack: closes zips that were opened.
        reader: as for `find_jobs`.
        same_patient: take scans of differing PatientIDs for one patient.

    Raises:
        UsageError: fewer than two, a path that does not exist or holds several patients, one scan twice, two patients.
        InputError: what cannot be read.
    """
    if len(inputs) < 2:
        raise UsageError("follow", "one visit alone shows no change", "give the baseline and at least one follow-up")
    for path in inputs:
        if not path.exists():
            raise UsageError(path, "does not exist", "check the path")
    names = visit_names(inputs)
    visits = [_opened(path, name, options, stack, reader) for path, name in zip(inputs, names, strict=True)]
    for number, visit in enumerate(visits):
        for other in visits[:number]:
            if visit.hashes and (visit.hashes <= other.hashes or other.hashes <= visit.hashes):
                raise UsageError(visit.path, f"is the same scan as {other.path}", "give each visit once")
    patients = {visit.session.patient_id for visit in visits} - {""}
    if len(patients) > 1 and not same_patient:
        cause = f"the scans carry {len(patients)} different PatientIDs"
        raise UsageError("follow", cause, "give one patient's scans, or pass --same-patient if the patient was renamed")
    return visits


def visit_names(inputs: Sequence[Path]) -> list[str]:
    """Names for the visits, safe as file names: the last of each path, and folders above it only to tell two apart."""
    parts = [path.resolve().parts[1:] for path in inputs]
    takes = [1] * len(parts)
    for _ in range(MOST_PARTS):
        names = [safe_name(_bare("_".join(part[-take:]))) for part, take in zip(parts, takes, strict=True)]
        count = Counter(name.casefold() for name in names)
        takes = [take + (count[name.casefold()] > 1) for name, take in zip(names, takes, strict=True)]
    return unique(names)


def days_between(
    visits: Sequence[Given], dates: Sequence[date] | None, days: Sequence[int] | None
) -> tuple[list[int] | None, str]:
    """Days of each visit since the earliest of them, None where one is not known; and where they come from.

    Args:
        visits: as given.
        dates, days: of each, from the user; the scans' own count where neither is given.

    Raises:
        UsageError: not one for each visit, or both.
    """
    for option, values in (("--dates", dates), ("--days", days)):
        if values is not None and len(values) != len(visits):
            raise UsageError(option, f"has {len(values)} values for {len(visits)} visits", "give one for each")
    if dates is not None and days is not None:
        raise UsageError("--dates, --days", "both say when the visits were", "give one of them")
    if days is not None:
        return [day - min(days) for day in days], "given with --days"
    if dates is not None:
        return _since_first(dates), "given with --dates"
    known = [visit.session.date for visit in visits if visit.session.date is not None]
    if len(known) == len(visits):
        return _since_first(known), "from the scans' own headers"
    carry = f"{len(known)} of the {len(visits)} visits carry a date"
    return None, f"unknown: {carry if known else 'the visits carry no dates'}; give --days or --dates"


def recorded(folder: Path) -> dict[str, Any]:
    """What `segment` recorded of the case in `folder`: its row, the hashes of its inputs, what was made.

    Raises:
        InputError: if the record or the mask is missing or damaged.
    """
    path = folder / RECORD
    remedy = "run brainseg segment again"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(record["inputs"], dict) and isinstance(record["row"]["flags"], list)
        made_of(record)
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise InputError(path, "is not the record of a case", remedy)
    if not (folder / MASK).is_file():
        raise InputError(folder, f"holds no {MASK}", remedy)
    return dict(record)


def networks_of(folder: Path, made: Made) -> tuple[Network, ...] | None:
    """What segmented the case in `folder`, by its record or, of an earlier version, its run.json; None without both."""
    if made.networks is not None:
        return made.networks
    try:
        bundles = json.loads((folder.parent / "run.json").read_text(encoding="utf-8"))["bundles"]
        return tuple((str(one["name"]), str(one["weights_sha256"]), float(one["threshold"])) for one in bundles)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _opened(path: Path, name: str, options: Options, stack: ExitStack, reader: GuardedReader) -> Given:
    folder = _case_folder(path)
    if folder is not None:
        hashes = frozenset(map(str, recorded(folder)["inputs"].values()))
        return Given(name, path, None, folder, hashes, Session())
    jobs, failed = find_jobs([path], options, stack, reader)
    if failed:
        raise InputError(path, failed[0].failure.cause, failed[0].failure.remedy)
    if len(jobs) > 1:
        raise UsageError(path, f"holds {len(jobs)} scans", "give each visit's scan by itself")
    (job,) = jobs
    hashes = frozenset(input_hashes(job, options).values())
    return Given(name, path, job, None, hashes, session_of(job.patient.flair))


def _case_folder(path: Path) -> Path | None:
    """The folder of the one case that `segment` wrote at or under `path`; None if `path` is no results."""
    if (path / RECORD).is_file():
        return path
    cases = sorted(record.parent for record in path.glob(f"*/{RECORD}")) if path.is_dir() else []
    if len(cases) > 1:
        raise UsageError(path, f"holds the results of {len(cases)} cases", "give the folder of one of them")
    return cases[0] if cases else None


def _bare(name: str) -> str:
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _since_first(dates: Sequence[date]) -> list[int]:
    return [(one - min(dates)).days for one in dates]
