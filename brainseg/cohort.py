"""Many patients: found, segmented and written one after another; resumed, locked, and none harmed by another."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg import __version__
from brainseg.bundle import file_sha256
from brainseg.case import Case, Segmentation
from brainseg.errors import BrainsegError, MachineError, UsageError
from brainseg.results import CaseDetail, CohortRow, Failure
from brainseg.study import Patient, find_patients
from brainseg.study.names import safe_name, unique

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

log = logging.getLogger(__name__)
Advance = Callable[[str], None]
Progress = Callable[[int], AbstractContextManager[Advance]]
RECORD = "case.json"
NONE_SUCCEEDED, SOME_FAILED = 3, 4


@dataclass(frozen=True)
class Options:
    """What the user asked of a cohort; the fields are the options of `brainseg segment`."""

    bundle: str | None = None
    ensemble: bool = False
    tta: bool = False
    threshold: float | None = None
    pre: Path | None = None
    post: Path | None = None
    spacing_mm: tuple[float, float, float] | None = None
    series: str | None = None
    device: str = "auto"
    force: bool = False
    allow_gap: bool = False
    trust_bundle: bool = False
    formats: tuple[str, ...] | None = None
    segment_per_lesion: bool = False
    save_probability: bool = False
    overwrite: bool = False
    truth_ml: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a cohort: a row a case, the failures with a line each for the user, and the exit code."""

    rows: tuple[CohortRow, ...]
    failures: tuple[Failure, ...]
    messages: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        if not self.failures:
            return 0
        return SOME_FAILED if any(row.status == "done" for row in self.rows) else NONE_SUCCEEDED


@dataclass(frozen=True)
class _Job:
    """A patient, and what its paths are relative to."""

    patient: Patient
    base: Path
    shown: str


def run_cohort(inputs: Sequence[Path], out: Path, options: Options, progress: Progress) -> Outcome:
    """Segments every patient under `inputs` into `out`, and writes the cohort's tables and report.

    A case whose inputs, settings and weights are unchanged since it was written is not computed again.

    Raises:
        UsageError: a path that does not exist, or options that fit one patient only.
        MachineError: `out` cannot be written, or another process works on it.
        UntrustedBundleError: the bundle is not what it should be.
    """
    for path in inputs:
        if not path.exists():
            raise UsageError(path, "does not exist", "check the path")
    with ExitStack() as stack:
        stack.enter_context(_locked(out))
        jobs, failed = _find(inputs, options, stack)
        if len(jobs) != 1 and (options.pre or options.post):
            raise UsageError("--pre, --post", f"there are {len(jobs)} patients", "give the input of one patient")
        bundles = _open_bundles(options)
        rows: list[CohortRow] = []
        details: dict[str, CaseDetail] = {}
        with progress(len(jobs)) as advance:
            for job in jobs:
                result = _attempt(job, bundles, out, options)
                if isinstance(result, _Failed):
                    failed.append(result)
                    advance(f"{job.patient.name}: failed")
                    continue
                row, details[job.patient.name], fresh = result
                rows.append(row)
                advance(_summary(row, fresh))
        failures = [one.failure for one in failed]
        rows += [_failed_row(failure) for failure in failures]
        _write_cohort(out, rows, failures, details, bundles, options, jobs)
    return Outcome(tuple(rows), tuple(failures), tuple(one.message for one in failed))


@dataclass(frozen=True)
class _Failed:
    """A failure for the tables, and the line that says it on the terminal, with the very file."""

    failure: Failure
    message: str


def _failed(case: str, shown: str, error: BrainsegError) -> _Failed:
    return _Failed(Failure(case=case, input=shown, cause=error.cause, remedy=error.remedy), str(error))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Makes `out` and holds its lock, which ends with the process however it ends."""
    import filelock

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(out / ".lock"), timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise MachineError(out, "another process is writing here", "wait for it, or choose another --out") from None
    except OSError as error:
        raise MachineError(out, f"cannot be written ({error.strerror})", "choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def _find(inputs: Sequence[Path], options: Options, stack: ExitStack) -> tuple[list[_Job], list[_Failed]]:
    from brainseg.readers.archive import opened

    jobs: list[_Job] = []
    failures: list[_Failed] = []
    for path in inputs:
        try:
            folder = stack.enter_context(opened(path))
            zipped = folder != path
            for patient in find_patients(folder, series=options.series, name=path.stem if zipped else None):
                inside = patient.path.relative_to(folder) if patient.path.is_relative_to(folder) else Path()
                shown = path.name if inside == Path() else f"{path.name}/{inside.as_posix()}"
                jobs.append(_Job(patient, folder, shown))
        except UsageError:
            raise
        except BrainsegError as error:
            failures.append(_failed(safe_name(path.stem), path.name, error))
    names = unique(job.patient.name for job in jobs)
    return [
        replace(job, patient=replace(job.patient, name=name)) for job, name in zip(jobs, names, strict=True)
    ], failures


def _open_bundles(options: Options) -> list[Bundle]:
    from brainseg.bundle import DEFAULT, open_bundle, shipped, ships_weights

    names = [options.bundle or DEFAULT]
    if options.ensemble:
        names = [name for name in shipped() if ships_weights(name)]
    return [
        open_bundle(name, device=options.device, threshold=options.threshold, trust=options.trust_bundle)
        for name in names
    ]


def _attempt(
    job: _Job, bundles: Sequence[Bundle], out: Path, options: Options
) -> tuple[CohortRow, CaseDetail, bool] | _Failed:
    """The row and details of one case and whether it was computed now, or why it failed."""
    name = job.patient.name
    try:
        if job.patient.problem is not None:
            raise job.patient.problem
        return _process(job, bundles, out, options)
    except MachineError:
        raise
    except BrainsegError as error:
        return _failed(name, job.shown, error)
    except MemoryError:
        return _failed(name, job.shown, BrainsegError(job.shown, "not enough memory", "use a machine with more"))
    except Exception as error:
        log.debug("%s failed", name, exc_info=True)
        cause = f"{type(error).__name__}: {error}"
        return _failed(name, job.shown, BrainsegError(job.shown, cause, "this is a bug; run with -v and report it"))


def _process(job: _Job, bundles: Sequence[Bundle], out: Path, options: Options) -> tuple[CohortRow, CaseDetail, bool]:
    from brainseg.inference import segment
    from brainseg.readers import read_patient
    from brainseg.writers.tables import write_json

    patient = job.patient
    folder = out / patient.name
    hashes = _input_hashes(job, options)
    fingerprint = _fingerprint(hashes, bundles, options)
    truth_ml = options.truth_ml.get(patient.name)
    if not options.overwrite and (done := _unchanged(folder, fingerprint)) is not None:
        row, notes = done
        return row, _detail(folder, notes, truth_ml), False
    started = time.perf_counter()
    case = read_patient(
        patient,
        pre=options.pre,
        post=options.post,
        spacing_mm=options.spacing_mm,
        force=options.force,
        allow_gap=options.allow_gap,
    )
    result = segment(case, bundles, tta=options.tta)
    row, left_out = _write_case(folder, job, case, result, options)
    row = replace(row, seconds=round(time.perf_counter() - started, 2))
    notes = [note for note in (*case.notes, *left_out, patient.why) if note]
    write_json(folder / RECORD, {"fingerprint": fingerprint, "inputs": hashes, "notes": notes, "row": asdict(row)})
    return row, _detail(folder, notes, truth_ml), True


def _write_case(
    folder: Path, job: _Job, case: Case, result: Segmentation, options: Options
) -> tuple[CohortRow, list[str]]:
    """The case's row, and what there is to say of formats that were left out."""
    from brainseg.measures import case_confidence, find_lesions, volume_ml
    from brainseg.quality import flags_of
    from brainseg.writers.formats import write_formats
    from brainseg.writers.nifti import write_mask, write_probability
    from brainseg.writers.overlay import write_overlay
    from brainseg.writers.tables import write_lesions

    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    lesions = find_lesions(result.mask, result.probability, case.affine, case.spacing_mm)
    confidence = case_confidence(result.probability, result.mask)
    in_mm = case.spacing_mm is not None
    write_mask(folder / "mask.nii.gz", result.mask, case.affine, in_mm=in_mm)
    if options.save_probability:
        write_probability(folder / "probability.nii.gz", result.probability, case.affine, in_mm=in_mm)
    left_out = write_formats(folder, case, result, options.formats, segment_per_lesion=options.segment_per_lesion)
    write_lesions(folder / "lesions.csv", lesions)
    write_overlay(folder / "overlay.png", case, result.mask)
    row = CohortRow(
        case=job.patient.name,
        status="done",
        volume_ml=volume_ml(result.mask, case.spacing_mm) if case.spacing_mm else None,
        volume_voxels=int(result.mask.sum()),
        lesions=len(lesions),
        confidence=round(confidence, 4),
        flags=flags_of(case, result, confidence, certain=job.patient.certain, left_out=bool(left_out)),
        seconds=0.0,
        input=job.shown,
        error="",
    )
    return row, left_out


def _detail(folder: Path, notes: Sequence[str], truth_ml: float | None) -> CaseDetail:
    from brainseg.writers.tables import read_lesions

    lesions = tuple(read_lesions(folder / "lesions.csv"))
    return CaseDetail(overlay=folder / "overlay.png", lesions=lesions, truth_ml=truth_ml, notes=tuple(notes))


def _input_hashes(job: _Job, options: Options) -> dict[str, str]:
    """SHA-256 of every file that goes into a case, by its path relative to the input."""
    patient = job.patient
    files = [file for series in (patient.flair, patient.pre, patient.post) if series for file in series.files]
    extra = [path for path in (options.pre, options.post) if path is not None and path.is_file()]
    hashes = {}
    for file in sorted({*files, *extra}):
        shown = file.relative_to(job.base).as_posix() if file.is_relative_to(job.base) else file.name
        hashes[shown] = file_sha256(file)
    return hashes


def _fingerprint(hashes: dict[str, str], bundles: Sequence[Bundle], options: Options) -> str:
    """One hash of inputs, settings and weights: equal means that the mask would be the same."""
    decides = {
        "version": __version__,
        "inputs": hashes,
        "weights": [bundle.weights_sha256 for bundle in bundles],
        "thresholds": [bundle.threshold for bundle in bundles],
        "tta": options.tta,
        "spacing": options.spacing_mm,
        "formats": options.formats,
        "segment_per_lesion": options.segment_per_lesion,
        "probability": options.save_probability,
        "device": bundles[0].device.type,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _unchanged(folder: Path, fingerprint: str) -> tuple[CohortRow, list[str]] | None:
    """The row and notes of a case that is done already, from the same inputs, settings and weights."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["fingerprint"] != fingerprint or not (folder / "mask.nii.gz").is_file():
            return None
        row = record["row"]
        return CohortRow(**{**row, "flags": tuple(row["flags"])}), [str(note) for note in record["notes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _failed_row(failure: Failure) -> CohortRow:
    return CohortRow(
        case=failure.case,
        status="failed",
        volume_ml=None,
        volume_voxels=None,
        lesions=None,
        confidence=None,
        flags=(),
        seconds=None,
        input=failure.input,
        error=f"{failure.cause}; {failure.remedy}",
    )


def _summary(row: CohortRow, fresh: bool) -> str:
    volume = f"{row.volume_ml:.1f} mL" if row.volume_ml is not None else f"{row.volume_voxels} voxels"
    flags = f"  [{', '.join(row.flags)}]" if row.flags else ""
    lesions = f"{row.lesions} lesion{'' if row.lesions == 1 else 's'}"
    return f"{row.case}: {volume}, {lesions}, confidence {row.confidence:.2f}{flags}{'' if fresh else '  (unchanged)'}"


def _write_cohort(
    out: Path,
    rows: Sequence[CohortRow],
    failures: Sequence[Failure],
    details: Mapping[str, CaseDetail],
    bundles: Sequence[Bundle],
    options: Options,
    jobs: Sequence[_Job],
) -> None:
    from brainseg.quality import FLAGS
    from brainseg.writers.report import write_report
    from brainseg.writers.tables import write_cohort, write_failures, write_run

    run = _manifest(bundles, options, out, jobs)
    write_cohort(out / "cohort.csv", rows)
    write_failures(out / "failures.json", failures)
    write_run(out / "run.json", run)
    write_report(out / "report.html", rows, failures, run, details, flag_words=FLAGS)


def _manifest(bundles: Sequence[Bundle], options: Options, out: Path, jobs: Sequence[_Job]) -> dict[str, Any]:
    import monai
    import torch

    inputs = {}
    for job in jobs:
        record = out / job.patient.name / RECORD
        if record.is_file():
            inputs[job.patient.name] = json.loads(record.read_text(encoding="utf-8"))["inputs"]
    settings = {
        key: value
        for key, value in vars(options).items()
        if key not in ("pre", "post", "truth_ml") and value not in (None, False)
    }
    return {
        "brainseg": __version__,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "monai": monai.__version__},
        "bundles": [
            {"name": one.name, "version": one.version, "weights_sha256": one.weights_sha256, "threshold": one.threshold}
            for one in bundles
        ],
        "settings": settings,
        "inputs": inputs,
    }
