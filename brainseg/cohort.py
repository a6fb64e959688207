"""Many patients: found, segmented and written; resumed, locked, and none harmed by another."""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg import __version__
from brainseg.casework import Loaded, attempt, finish, load, segmented
from brainseg.errors import MachineError, UsageError
from brainseg.guarded import GuardedReader
from brainseg.job import Job, Options, bundles_of, find_jobs
from brainseg.record import RECORD, read_record
from brainseg.results import CaseDetail, CohortRow, Done, Failed, Failure
from brainseg.study.walk import LOCK
from brainseg.units import millilitres
from brainseg.writers.atomic import refuse_link, refuse_unwritable, remove_partials

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

log = logging.getLogger(__name__)
Advance = Callable[[str], None]
Progress = Callable[[int], AbstractContextManager[Advance]]
NONE_SUCCEEDED, SOME_FAILED = 3, 4
COHORT, FAILURES, REPORT, RUN = "cohort.csv", "failures.json", "report.html", "run.json"


@dataclass(frozen=True)
class Outcome:
    """What became of a cohort: a row a case, all failures, a line for the user of each new one, and the exit code."""

    rows: tuple[CohortRow, ...]
    failures: tuple[Failure, ...]
    messages: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        if not self.messages:
            return 0
        return SOME_FAILED if any(row.status == "done" for row in self.rows) else NONE_SUCCEEDED


def run_cohort(
    inputs: Sequence[Path], out: Path, options: Options, progress: Progress, *, cluster: str | None = None
) -> Outcome:
    """Segments every patient under `inputs` into `out`, and writes the cohort's tables and report.

    A case whose inputs, settings and weights are unchanged since it was written is not computed again. With `cluster`,
    the address of a dask scheduler, its workers do the cases; they must see `inputs` and `out` under the same paths.

    Raises:
        UsageError: a path that does not exist, options that fit one patient only or no input, a cluster that is not
            there, or results that would lie among the files of a scan.
        MachineError: `out` or a case's folder in it cannot be written, or another process works on it.
        UntrustedBundleError: the bundle is not what it should be.
    """
    from brainseg.writers.tables import write_run

    for path in inputs:
        if not path.exists():
            raise UsageError(path, "does not exist", "check the path")
        if cluster and path.suffix.lower() == ".zip":
            raise UsageError(path, "is a zip, which the workers cannot open", "unpack it and give the folder")
    for option, given in (("--pre", options.pre), ("--post", options.post)):
        if given is not None and not given.exists():
            raise UsageError(option, f"{given} does not exist", "check the path")
    if options.spacing_mm is not None and not all(0 < mm < math.inf for mm in options.spacing_mm):
        raise UsageError("--spacing", f"is {options.spacing_mm}", "give three positive numbers, in mm")
    if cluster:
        inputs, out, options = [path.absolute() for path in inputs], out.absolute(), options.absolute()
    with GuardedReader() as reader, ExitStack() as stack:  # first, so that it starts while torch is imported
        stack.enter_context(locked(out))
        jobs, failed = find_jobs(inputs, options, stack, reader)
        if cluster is None:
            reader.prepare(job.patient.flair.layout for job in jobs)
        if len(jobs) != 1 and (options.pre or options.post):
            raise UsageError("--pre, --post", f"there are {len(jobs)} patients", "give the input of one patient")
        for job in jobs:
            _refuse_own_files(out, job)
            _refuse_unwritable_case(out / job.patient.name)
        for name in (COHORT, FAILURES, REPORT, RUN):
            refuse_link(out / name)
        bundles = bundles_of(options)
        done: dict[str, Done] = {}
        with progress(len(jobs)) as advance:
            for job, result in _results(jobs, bundles, out, options, reader, cluster):
                name = job.patient.name
                if isinstance(result, Failed):
                    failed.append(result)
                    advance(f"{name}: failed")
                else:
                    done[name] = result
                    advance(summary_line(result.row, result.fresh))
        ordered = {job.patient.name: done[job.patient.name] for job in jobs if job.patient.name in done}
        failures = [one.failure for one in failed]
        rows = [one.row for one in ordered.values()] + [failed_row(failure) for failure in failures]
        details = {name: one.detail for name, one in ordered.items()}
        run = {"command": command_line(inputs, options), **_manifest(bundles, options, out, jobs)}
        write_run(out / RUN, run)
        write_cohort_files(out, rows, failures, details, run)
        _warn_of_others(out, {row.case for row in rows})
    return Outcome(tuple(rows), tuple(failures), tuple(one.message for one in failed))


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes `out`, holds its lock, which ends with the process however it ends, and removes what a killed one left.

    A block that refuses what was asked of it leaves no lock behind where there was none: the folder may be the user's.

    Raises:
        MachineError: `out` cannot be written, or another process holds the lock.
    """
    import filelock

    used = (out / LOCK).exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        refuse_unwritable(out.resolve())
        lock = filelock.FileLock(str(out / LOCK), timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise MachineError(out, "another process is writing here", "wait for it, or choose another --out") from None
    except OSError as error:
        raise MachineError(out, f"cannot be written ({error.strerror})", "choose another --out") from None
    try:
        remove_partials(out)
        yield
    except UsageError:
        if not used:
            (out / LOCK).unlink(missing_ok=True)
        raise
    finally:
        lock.release()


def _warn_of_others(out: Path, cases: Collection[str]) -> None:
    """Tells the log of results of earlier runs, which are in no table of this one."""
    others = [record.parent.name for record in out.glob(f"*/{RECORD}") if record.parent.name not in cases]
    if others:
        log.warning("%s: also holds %d cases of earlier runs; brainseg report lists them too", out, len(others))


def _refuse_own_files(out: Path, job: Job) -> None:
    """That a case's results will not lie among the files of its scan, some of which have their names."""
    patient, case = job.patient, (out / job.patient.name).resolve()
    scan = [file for one in (patient.flair, patient.pre, patient.post) if one for file in one.files]
    for folder in dict.fromkeys(file.parent for file in (*scan, *patient.masks)):
        inside = folder.resolve()
        if inside.is_relative_to(case) or (inside == out.resolve() and patient.path.is_dir()):
            raise UsageError("--out", f"results would lie among the files of {job.shown}", "choose another folder")


def _refuse_unwritable_case(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    refuse_unwritable(folder)
    for path in folder.iterdir():
        refuse_link(path)


def _results(
    jobs: Sequence[Job],
    bundles: Sequence[Bundle],
    out: Path,
    options: Options,
    reader: GuardedReader,
    cluster: str | None,
) -> Iterable[tuple[Job, Done | Failed]]:
    if cluster is None:
        return overlapped(jobs, bundles, out, options, reader)
    from brainseg.cluster import on_cluster

    return on_cluster(cluster, jobs, bundles, out, options)


def overlapped(
    jobs: Sequence[Job], bundles: Sequence[Bundle], out: Path, options: Options, reader: GuardedReader
) -> Iterator[tuple[Job, Done | Failed]]:
    """The result of every job, in order: while one is in the network, the next is read and the one before written.

    The reader is closed at the end, so that whoever interrupts this need not wait for what is being read.
    """
    with ThreadPoolExecutor(1) as ahead_of_it, ThreadPoolExecutor(1) as writer, closing(reader):

        def read(job: Job) -> Future[Loaded | Done | Failed]:
            return ahead_of_it.submit(attempt, job, load, job, bundles, out, options, reader)

        def write(job: Job, loaded: Loaded | Done | Failed) -> Future[Done | Failed]:
            if isinstance(loaded, Loaded):
                result = attempt(job, segmented, loaded, bundles, options)
                if not isinstance(result, Failed):
                    return writer.submit(attempt, job, finish, loaded, result, bundles, out, options)
                loaded = result
            settled: Future[Done | Failed] = Future()
            settled.set_result(loaded)
            return settled

        ahead = deque(read(job) for job in jobs[:1])
        behind: deque[tuple[Job, Future[Done | Failed]]] = deque()
        for number, job in enumerate(jobs, start=1):
            loaded = ahead.popleft().result()
            ahead.extend(read(following) for following in jobs[number : number + 1])
            behind.append((job, write(job, loaded)))
            if len(behind) > 1:
                before, result = behind.popleft()
                yield before, result.result()
        for job, result in behind:
            yield job, result.result()


def failed_row(failure: Failure) -> CohortRow:
    """The row of a case that could not be done."""
    return CohortRow(
        case=failure.case, status="failed", input=failure.input, error=f"{failure.cause}; {failure.remedy}"
    )


def summary_line(row: CohortRow, fresh: bool) -> str:
    """One line on a case for the terminal."""
    volume = f"{millilitres(row.volume_ml)} mL" if row.volume_ml is not None else f"{row.volume_voxels} voxels"
    flags = f"  [{', '.join(row.flags)}]" if row.flags else ""
    lesions = f"{row.lesions} lesion{'' if row.lesions == 1 else 's'}"
    confidence = "unknown" if row.confidence is None else f"{row.confidence:.2f}"
    return f"{row.case}: {volume}, {lesions}, confidence {confidence}{flags}{'' if fresh else '  (unchanged)'}"


def write_cohort_files(
    out: Path,
    rows: Sequence[CohortRow],
    failures: Sequence[Failure],
    details: Mapping[str, CaseDetail],
    run: Mapping[str, Any],
) -> None:
    """Writes cohort.csv, failures.json and report.html; `run` is that of run.json."""
    from brainseg.quality import FLAGS
    from brainseg.writers.report import write_report
    from brainseg.writers.tables import write_cohort, write_failures

    write_cohort(out / COHORT, rows)
    write_failures(out / FAILURES, failures)
    write_report(out / REPORT, rows, failures, run, details, flag_words=FLAGS)


def command_line(inputs: Sequence[Path], options: Options) -> str:
    """What was asked for, as it is typed: of paths the last part, OUT for where this lies, UID for what DICOM gave."""
    names = {"spacing_mm": "spacing", "formats": "format"}
    words = ["brainseg", "segment", *(path.resolve().name for path in inputs), "--out", "OUT"]
    for one in fields(options):
        value, option = getattr(options, one.name), f"--{names.get(one.name, one.name).replace('_', '-')}"
        if value == one.default or one.name == "truth_ml":
            continue
        match value:
            case True:
                words.append(option)
            case Path():
                words += [option, value.name]
            case tuple() if one.name == "formats":
                words += [option, ",".join(value)]
            case tuple():
                words += [option, *map(str, value)]
            case _:
                words += [option, {"series": "UID", "bundle": Path(str(value)).name}.get(one.name, str(value))]
    return shlex.join(words)


def _manifest(bundles: Sequence[Bundle], options: Options, out: Path, jobs: Sequence[Job]) -> dict[str, Any]:
    import monai
    import torch

    recorded = {job.patient.name: read_record(out / job.patient.name) for job in jobs}
    settings = {
        key: value
        for key, value in vars(options).items()
        if key not in ("pre", "post", "series", "truth_ml") and value is not None and value is not False
    }
    if options.bundle is not None:
        settings["bundle"] = Path(options.bundle).name  # where it lies names places, and people
    return {
        "brainseg": __version__,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "monai": monai.__version__},
        "bundles": [
            {
                "name": one.name,
                "recipe": one.recipe,
                "version": one.version,
                "weights_sha256": one.weights_sha256,
                "configs_sha256": one.configs_sha256,
                "threshold": one.threshold,
                "engine": one.engine.name,
            }
            for one in bundles
        ],
        "settings": settings,
        "inputs": {name: record.inputs for name, record in recorded.items() if record is not None},
    }
