"""Tables and report of a cohort made again from the results in its folder, masks corrected by hand among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from brainseg.casework import detail_of
from brainseg.cohort import Outcome, Progress, failed_row, locked, summary_line, write_cohort_files
from brainseg.errors import BrainsegError, InputError, MachineError, UsageError
from brainseg.record import MASK, RECORD, Record, read_record
from brainseg.remeasure import overlay_of, remeasured
from brainseg.results import CaseDetail, CohortRow, Failed, Failure

NAMELESS = "report_without_names.html"
TOLD = ("brainseg", "versions", "bundles")  # of run.json, what names nobody


def rebuild(out: Path, progress: Progress, *, without_names: bool = False) -> Outcome:
    """Writes cohort.csv, failures.json and report.html of `out` again from what `brainseg segment` left there.

    A mask that is not the one that was measured is measured again; its case keeps its mask and is flagged. A failure
    of the run stays one, whatever results an earlier run left of its case, unless a person changed the mask since.

    Args:
        out: the results of `brainseg segment`.
        progress: as in `run_cohort`.
        without_names: also write `NAMELESS`, in which scans are numbered in the order of cohort.csv.

    Raises:
        UsageError: `out` does not exist or holds no results.
        MachineError: `out` cannot be written, or another process works on it.
    """
    folders = _case_folders(out)
    with locked(out):
        done: dict[str, Record] = {}
        failed: list[Failed] = []
        before = {one.case: one for one in _read_failures(out)}
        with progress(len(folders)) as advance:
            for folder in folders:
                own = f"{folder.name}/{MASK}"  # is what failed where it was this that did
                if folder.name in before and before[folder.name].input != own and not _edited(folder):
                    advance(f"{folder.name}: failed in the run")
                    continue
                before.pop(folder.name, None)
                try:
                    record, fresh = _current(folder)
                except MachineError:
                    raise
                except BrainsegError as error:
                    failed.append(Failed.of(folder.name, own, error))
                    advance(f"{folder.name}: failed")
                else:
                    done[folder.name] = record
                    advance(summary_line(record.row, fresh))
        failures = [*before.values(), *(one.failure for one in failed)]
        rows = [record.row for record in done.values()] + [failed_row(one) for one in failures]
        run = _json(out / "run.json", {})
        details = {name: _detail(out / name, record, run) for name, record in done.items()}
        write_cohort_files(out, rows, failures, details, run)
        if without_names:
            _write_nameless(out, rows, done, details, run)
    return Outcome(tuple(rows), tuple(failures), tuple(one.message for one in failed))


def _case_folders(out: Path) -> list[Path]:
    """The folders of cases, in the order of cohort.csv, those that it does not name last."""
    from brainseg.writers.tables import read_cohort

    if not out.is_dir():
        raise UsageError(out, "does not exist or is no folder", "give the --out of brainseg segment")
    folders = [
        one
        for one in sorted(out.iterdir())
        if one.is_dir() and not one.is_symlink() and ((one / RECORD).is_file() or (one / MASK).is_file())
    ]
    if not folders:
        raise UsageError(out, "holds no results of brainseg segment", "give its --out")
    try:
        order = {row.case: place for place, row in enumerate(read_cohort(out / "cohort.csv"))}
    except InputError:
        order = {}
    return sorted(folders, key=lambda folder: order.get(folder.name, len(order)))


def _edited(folder: Path) -> bool:
    record = read_record(folder)
    return record is not None and record.edited(folder)


def _current(folder: Path) -> tuple[Record, bool]:
    """The record of the case as its mask is now, and whether that had to be measured."""
    record = read_record(folder)
    if record is None:
        raise InputError(folder / RECORD, "does not say what the mask was made from", "run segment again")
    if record.whole(folder):
        return record, False
    return remeasured(folder, record), True


def _detail(folder: Path, record: Record, run: Mapping[str, Any]) -> CaseDetail:
    """What the report shows of a case; also by what it was segmented, where that is not what `run` names."""
    detail, made = detail_of(folder, record), record.made.networks
    try:
        named = {(one["name"], one["weights_sha256"], one["threshold"]) for one in run["bundles"]}
    except (KeyError, TypeError):
        named = set()
    if made is None or not named or set(made) == named:
        return detail
    by = ", ".join(f"{name} {weights[:12]}, threshold {threshold:g}" for name, weights, threshold in made)
    return replace(detail, notes=(*detail.notes, f"segmented by {by}, in another run than the others"))


def _read_failures(out: Path) -> list[Failure]:
    try:
        return [Failure(**{key: str(value) for key, value in one.items()}) for one in _json(out / "failures.json", [])]
    except (TypeError, AttributeError):
        return []


def _json(path: Path, otherwise: Any) -> Any:
    """The content of a JSON file, or `otherwise` where there is none that is of the same kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise
    return content if isinstance(content, type(otherwise)) else otherwise


def _write_nameless(
    out: Path,
    rows: Sequence[CohortRow],
    done: Mapping[str, Record],
    details: Mapping[str, CaseDetail],
    run: Mapping[str, Any],
) -> None:
    """The report with "Scan 1", "Scan 2" for names, and no path, note or cause of failure, which may hold names."""
    from brainseg.quality import FLAGS
    from brainseg.readers.nifti import read_nifti_mask
    from brainseg.writers.report import write_report

    with TemporaryDirectory() as kept:
        shown, cases = [], {}
        for number, row in enumerate(rows, start=1):
            name = f"Scan {number}"
            shown.append(replace(row, case=name, input="", error="failures.json says why" if row.error else ""))
            if row.case not in done:
                continue
            folder = out / row.case
            content = overlay_of(folder, done[row.case], read_nifti_mask(folder / MASK), name)
            picture = Path(kept) / f"{number}.png"
            if content is not None:
                picture.write_bytes(content)
            overlay = picture if content is not None else None
            cases[name] = replace(details[row.case], overlay=overlay, notes=())
        told = {"scans": "numbered in the order of cohort.csv"} | {key: run[key] for key in TOLD if key in run}
        write_report(out / NAMELESS, shown, [], told, cases, flag_words=FLAGS)
