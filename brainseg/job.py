"""One patient to be segmented, and what goes into the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from brainseg import __version__
from brainseg.bundle import DEFAULT, shipped, ships_weights
from brainseg.errors import BrainsegError, InputError, MachineError, UsageError
from brainseg.results import Failed
from brainseg.study import Patient, find_patients
from brainseg.study.names import safe_name, unique
from brainseg.study.walk import is_dicomdir, walk
from brainseg.weights import file_sha256
from brainseg.writers.atomic import of_machine

if TYPE_CHECKING:
    from brainseg.bundle import Bundle
    from brainseg.guarded import GuardedReader


MOST_FOLDERS = 3  # in a name


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
    backend: str = "auto"
    force: bool = False
    allow_gap: bool = False
    trust_bundle: bool = False
    formats: tuple[str, ...] | None = None
    segment_per_lesion: bool = False
    save_probability: bool = False
    overwrite: bool = False
    truth_ml: dict[str, float] = field(default_factory=dict)

    def absolute(self) -> Options:
        """The same for a process with another working directory."""
        pre, post = (None if path is None else path.absolute() for path in (self.pre, self.post))
        bundle = self.bundle
        if bundle is not None and bundle not in shipped():
            bundle = str(Path(bundle).absolute())
        return replace(self, pre=pre, post=post, bundle=bundle)


@dataclass(frozen=True)
class Job:
    """A patient under its final name.

    Attributes:
        patient: as found; its name is unique in the cohort, and that of its folder.
        base: what the paths of its files are relative to in the manifest.
        shown: where it came from, relative to what the user gave.
        given: what the user gave; `base` itself unless that is an unpacked zip.
    """

    patient: Patient
    base: Path
    shown: str
    given: Path


def bundles_of(options: Options) -> list[Bundle]:
    """The bundles that `options` ask for; with `ensemble` all that ship with weights."""
    from brainseg.bundle import open_bundle

    names = [options.bundle or DEFAULT]
    if options.ensemble:
        names = [name for name in shipped() if ships_weights(name)]
    return [
        open_bundle(
            name,
            device=options.device,
            backend=options.backend,
            threshold=options.threshold,
            trust=options.trust_bundle,
        )
        for name in names
    ]


def find_jobs(
    inputs: Sequence[Path], options: Options, stack: ExitStack, reader: GuardedReader
) -> tuple[list[Job], list[Failed]]:
    """The patients under `inputs`, and the inputs in which none could be found.

    Args:
        inputs: as the user gave them; a zip is opened, and its files are gone when `stack` closes.
        options: of which `series` narrows the search.
        stack: closes what was opened.
        reader: reads the headers that no code of Python's own can.

    Raises:
        UsageError: an input that does not exist, or a series that is not there.
        MachineError: an input may not be read, or there is no room to unpack a zip.
    """
    from brainseg.readers.archive import opened

    jobs: list[Job] = []
    failures: list[Failed] = []
    for path in inputs:
        folder = path
        try:
            folder = stack.enter_context(opened(path))
            zipped = folder != path
            base = folder.parent if is_dicomdir(folder) else folder
            name = path.stem if zipped else None
            for patient in find_patients(folder, series=options.series, name=name, matlab_header=reader.matlab_header):
                inside = patient.path.relative_to(folder) if patient.path.is_relative_to(folder) else Path()
                shown = path.name if inside == Path() else f"{path.name}/{inside.as_posix()}"
                jobs.append(Job(patient, base, shown, path if zipped else base))
        except (UsageError, MachineError):
            raise
        except OSError as error:
            if (machine := of_machine(error, path.name)) is not None:
                raise machine from error
            cause, file = f"cannot be read ({error.strerror})", Path(str(error.filename or path))
            unread = InputError(file, cause, "check its permissions and where it links to")
            failures.append(Failed.of(safe_name(path.stem), path.name, as_given(unread, folder, path)))
        except BrainsegError as error:
            failures.append(Failed.of(safe_name(path.stem), path.name, as_given(error, folder, path)))
    return _told_apart(jobs), failures


def _told_apart(jobs: Sequence[Job]) -> list[Job]:
    """`jobs` under different names: those of one name by the folders that they lie in, as far as these differ.

    They also show these, or nobody could say which of several files of one name a row is of.
    """
    above = [(job.given if job.given != job.base else job.patient.path).resolve().parts[1:-1] for job in jobs]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*above, strict=False)))
    names, shown = [job.patient.name for job in jobs], [job.shown for job in jobs]
    alike: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        alike.setdefault(name.casefold(), []).append(i)
    for group in alike.values():
        takes = (take for take in range(1, MOST_FOLDERS + 1) if len({above[i][-take:] for i in group}) == len(group))
        needed = next(takes, 0)
        for i in group if len(group) > 1 and needed else ():
            names[i] = safe_name("_".join((*above[i][-needed:], names[i])))
            shown[i] = "/".join((*above[i][shared:], Path(shown[i]).name))
    return [
        replace(job, patient=replace(job.patient, name=name), shown=one)
        for job, name, one in zip(jobs, unique(names), shown, strict=True)
    ]


def as_given(error: BrainsegError, base: Path, given: Path) -> BrainsegError:
    """`error` with the zip that the user gave in place of the folder `base` that it was unpacked to."""
    if base != given and error.where.startswith(str(base)):
        error.where = f"{given}{error.where[len(str(base)) :]}"
    return error


def input_hashes(job: Job, options: Options) -> dict[str, str]:
    """SHA-256 of every file that goes into a case, by its path relative to the input.

    Of what `--pre` and `--post` name, by the option and the file's path from the folder that it lies in. A T1 that was
    found beside the FLAIR and cannot be read has none: the reader leaves it out with a note.

    Raises:
        InputError: if another cannot be read, by permission or by what the disk or a link does.
    """
    patient = job.patient
    spare = {file for series in (patient.pre, patient.post) if series for file in series.files}
    files = {_shown(file, job.base): file for file in sorted({*patient.flair.files, *spare})}
    may_fail = {name for name, file in files.items() if file in spare and file not in patient.flair.files}
    for option, path in (("--pre", options.pre), ("--post", options.post)):
        if path is not None:
            files |= {f"{option} {_shown(file, path.parent)}": file for file in _files_of(path)}
    hashes = {}
    for name, file in files.items():
        try:
            hashes[name] = file_sha256(file)
        except OSError as error:
            if name in may_fail:
                continue
            cause = f"cannot be read ({error.strerror})"
            raise InputError(file, cause, "check its permissions, its disk and where it links to") from None
    return hashes


def _shown(file: Path, base: Path) -> str:
    below = file != base and file.is_relative_to(base)
    return file.relative_to(base).as_posix() if below else file.name


def _files_of(path: Path) -> list[Path]:
    """`path`, or what lies in it where it is a folder."""
    if not path.is_dir():
        return [path]
    return [folder.path / name for folder in walk(path) for name in (*folder.tiffs, *folder.volumes, *folder.others)]


def fingerprint(hashes: dict[str, str], bundles: Sequence[Bundle], options: Options) -> str:
    """One hash of inputs, settings and weights: equal means that the results would be the same."""
    decides = {
        "version": __version__,
        "inputs": hashes,
        "weights": [bundle.weights_sha256 for bundle in bundles],
        "configs": [bundle.configs_sha256 for bundle in bundles],
        "thresholds": [bundle.threshold for bundle in bundles],
        "presence": bundles[0].presence,
        "tta": options.tta,
        "force": options.force,
        "allow_gap": options.allow_gap,
        "spacing": options.spacing_mm,
        "formats": options.formats,
        "segment_per_lesion": options.segment_per_lesion,
        "probability": options.save_probability,
        "device": bundles[0].device.type,
        "engines": [bundle.engine.name for bundle in bundles],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
