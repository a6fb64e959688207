"""One case from its files to its results, in three steps that can overlap with those of other cases."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from brainseg.case import CHANNELS, FLAIR, Case, Segmentation
from brainseg.errors import BrainsegError, InputError, MachineError, bug_place, bug_trace
from brainseg.job import Job, Options, as_given, fingerprint, input_hashes
from brainseg.record import MASK, RECORD, Made, Record, hashes_of, read_record, write_record
from brainseg.results import CaseDetail, CohortRow, Done, Failed
from brainseg.writers.atomic import of_machine

if TYPE_CHECKING:
    from brainseg.appearance import Appearance
    from brainseg.bundle import Bundle
    from brainseg.guarded import GuardedReader
    from brainseg.midline import Midline

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Given = ParamSpec("Given")
NO_MEMORY = ("not enough memory", "use a machine with more")


@dataclass(frozen=True)
class Loaded:
    """A case that is read and waits for the network, with what its record will say and the time spent so far."""

    job: Job
    case: Case
    made_from: str
    hashes: dict[str, str]
    seconds: float


def attempt(job: Job, step: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result | Failed:
    """What `step(*args, **kwargs)` gives, or why this one case fails; what would fail every case is raised."""
    try:
        return step(*args, **kwargs)
    except MachineError:
        raise
    except BrainsegError as known:
        error = known
    except MemoryError:
        error = BrainsegError(job.shown, *NO_MEMORY)
    except OSError as failed:
        if (machine := of_machine(failed, job.shown)) is not None:
            raise machine from failed
        cause = f"{failed.strerror or type(failed).__name__} ({Path(failed.filename or job.shown).name})"
        error = BrainsegError(job.shown, cause, "check that the files are there and may be read")
    except Exception as bug:
        if "DefaultCPUAllocator" in str(bug):  # torch's MemoryError
            error = BrainsegError(job.shown, *NO_MEMORY)
        else:
            log.debug("%s failed\n%s", job.patient.name, bug_trace(bug))
            error = BrainsegError(job.shown, bug_place(bug), "this is a bug; run with -v and report it")
    return Failed.of(job.patient.name, job.shown, as_given(error, job.base, job.given))


def load(job: Job, bundles: Sequence[Bundle], out: Path, options: Options, reader: GuardedReader) -> Loaded | Done:
    """Step 1: the case as read, or its results where they were made before from the same inputs and settings."""
    from brainseg.readers.checks import refuse_label_map

    if job.patient.problem is not None:
        raise job.patient.problem
    started = time.perf_counter()
    folder = out / job.patient.name
    hashes = input_hashes(job, options)
    made_from = fingerprint(hashes, bundles, options)
    if not options.overwrite and (before := _before(folder, job, hashes, made_from)) is not None:
        return Done(before.row, detail_of(folder, before), fresh=False)
    case = reader.read_patient(
        job.patient,
        pre=options.pre,
        post=options.post,
        spacing_mm=options.spacing_mm,
        force=options.force,
        allow_gap=options.allow_gap,
    )
    if not options.force:
        refuse_label_map(job.patient.flair.files[0], case.image[FLAIR])
    return Loaded(job, case, made_from, hashes, time.perf_counter() - started)


def segmented(loaded: Loaded, bundles: Sequence[Bundle], options: Options) -> Segmentation:
    """Step 2: the network and the clean-up."""
    from brainseg.inference import segment

    return segment(loaded.case, bundles, tta=options.tta)


def finish(loaded: Loaded, result: Segmentation, bundles: Sequence[Bundle], out: Path, options: Options) -> Done:
    """Step 3: measured and written; the record comes last."""
    from brainseg.appearance import appearance
    from brainseg.midline import midline_of
    from brainseg.quality import head_of

    started = time.perf_counter()
    job, case = loaded.job, loaded.case
    folder = out / job.patient.name
    look, midline = appearance(case.image[FLAIR], case.affine), midline_of(case)
    errors_of = _errors_of(case, result, bundles[0], options)
    row, left_out = _write_case(folder, job, case, result, bundles[0], options, look, midline, errors_of)
    spent = loaded.seconds + result.seconds + time.perf_counter() - started
    row = replace(row, seconds=round(spent, 2))
    unused = job.patient.skipped
    aside = f"{unused} other file{'s were' if unused > 1 else ' was'} there and not used" if unused else ""
    notes = [note for note in (*case.notes, *left_out, job.patient.why, aside) if note]
    files = hashes_of(folder)
    record = Record(
        fingerprint=loaded.made_from,
        inputs=loaded.hashes,
        notes=tuple(notes),
        row=row,
        shape=case.shape,
        affine=case.affine,
        spacing_mm=case.spacing_mm,
        made=Made(
            mask=files[MASK],
            confidence=row.confidence,
            flags=row.flags,
            networks=tuple((one.name, one.weights_sha256, one.threshold) for one in bundles),
            errors_of=errors_of,
            head=head_of(look, result.mask.size),
        ),
        files=files,
        truth_ml=options.truth_ml.get(job.patient.name),
        midline=midline,
    )
    write_record(folder, record)
    return Done(row, detail_of(folder, record), fresh=True)


def _before(folder: Path, job: Job, hashes: Mapping[str, str], made_from: str) -> Record | None:
    """A case that was made from the same before; one whose mask a person changed since is measured, never made again.

    Raises:
        InputError: the mask was changed by hand, and what it would be made from has changed too; or the results are of
            a scan from elsewhere that only has the same name.
    """
    from brainseg.remeasure import remeasured

    record = read_record(folder)
    if record is None:
        return None
    same = record.fingerprint == made_from
    if not same and record.row.input != job.shown and not set(hashes.values()) & set(record.inputs.values()):
        cause = f"holds results of another scan ({record.row.input})"
        raise InputError(folder, cause, "choose another --out, or pass --overwrite to lose them")
    if same and record.whole(folder):
        return record
    if not record.edited(folder):
        return None
    if not same:
        cause = "was edited by hand, and inputs, settings or weights are others than it was made from"
        raise InputError(folder / MASK, cause, "choose another --out, or pass --overwrite to lose the edit")
    return remeasured(folder, record)


def _errors_of(case: Case, result: Segmentation, bundle: Bundle, options: Options) -> str:
    """What of `VOLUME_ERRORS` speaks of it; empty where other than the bundle's own weights and threshold made it."""
    from brainseg.bundle import shipped
    from brainseg.volume_error import measured_as

    as_shipped = result.bundle == bundle.name and bundle.root == shipped().get(bundle.name)
    if not as_shipped or options.threshold is not None or options.tta:
        return ""
    return measured_as(bundle.name, bundle.version, flair_alone=len(case.missing) == len(CHANNELS) - 1)


def _write_case(
    folder: Path,
    job: Job,
    case: Case,
    result: Segmentation,
    bundle: Bundle,
    options: Options,
    look: Appearance | None,
    midline: Midline | None,
    errors_of: str,
) -> tuple[CohortRow, list[str]]:
    """The case's row, and what there is to say of formats that were left out."""
    from brainseg.axial import axial_slices, in_eight_bits
    from brainseg.backends.memory import release_memory
    from brainseg.frame import LARGE_VOXELS
    from brainseg.measures import case_confidence, find_lesions, volume_ml
    from brainseg.presence import slice_presence
    from brainseg.quality import flags_of
    from brainseg.volume_error import known_error, volume_interval
    from brainseg.writers.formats import write_formats
    from brainseg.writers.nifti import write_mask, write_probability
    from brainseg.writers.overlay import write_overlay
    from brainseg.writers.slices import SLICES, write_sheet
    from brainseg.writers.tables import write_lesions, write_slices

    if result.mask.size > LARGE_VOXELS:
        release_memory()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (RECORD, MASK):  # which come last, so that a case that fails here leaves none
        (folder / stale).unlink(missing_ok=True)
    lesions = find_lesions(result.mask, result.probability, case.affine, case.spacing_mm, midline)
    confidence = case_confidence(result.probability, result.mask)
    in_mm = case.spacing_mm is not None
    if options.save_probability:
        write_probability(folder / "probability.nii.gz", result.probability, case.affine, in_mm=in_mm)
    left_out = write_formats(folder, case, result, options.formats, segment_per_lesion=options.segment_per_lesion)
    write_lesions(folder / "lesions.csv", lesions)
    presence = slice_presence(result.mask, result.probability, case.affine, case.spacing_mm, bundle.presence)
    write_slices(folder / "slices.csv", presence)
    flags = flags_of(case, result, lesions, confidence, look, certain=job.patient.certain, left_out=bool(left_out))
    slices = list(axial_slices(case, result.mask))
    write_overlay(folder / "overlay.png", case, result.mask, slices=slices)
    tiles = [in_eight_bits(one.flair) for one in slices]
    del slices  # four times as large as these
    write_sheet(folder / SLICES, tiles)
    write_mask(folder / MASK, result.mask, case.affine, in_mm=in_mm)
    volume = volume_ml(result.mask, case.spacing_mm) if case.spacing_mm else None
    low, high = volume_interval(volume, known_error(errors_of))
    row = CohortRow(
        case=job.patient.name,
        status="done",
        volume_ml=volume,
        volume_voxels=int(result.mask.sum()),
        lesions=len(lesions),
        confidence=round(confidence, 4),
        flags=flags,
        seconds=0.0,
        input=job.shown,
        error="",
        volume_low_ml=low,
        volume_high_ml=high,
    )
    return row, left_out


def detail_of(folder: Path, record: Record) -> CaseDetail:
    """What the report shows of the case whose results lie in `folder`."""
    from brainseg.writers.slices import SLICES
    from brainseg.writers.tables import read_lesions

    def there(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    return CaseDetail(
        overlay=there("overlay.png"),
        lesions=tuple(read_lesions(folder / "lesions.csv")),
        truth_ml=record.truth_ml,
        notes=record.notes,
        slices=there(SLICES),
        mask=folder / MASK,
    )
