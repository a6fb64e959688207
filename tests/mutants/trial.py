"""A file through what `brainseg segment` does with it before the network: searched, and read in the guarded process."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mutants.mutations import mutant
from mutants.seeds import SEEDS, Seed

from brainseg.errors import BrainsegError, StoppedError
from brainseg.guarded import GuardedReader
from brainseg.job import Options, find_jobs

HARMLESS = ("read", "refused")
_STOPPED = {"crashed": "crash", "ended by the system": "crash", "not read within": "hang", "more memory": "memory"}


@dataclass(frozen=True)
class Trial:
    """What became of one file.

    Attributes:
        outcome: read, refused, crash, hang, memory, or bug: anything else than one of these.
        said: the line that refuses it.
        seconds: that it took.
        megabytes: most memory that the reading process has had so far; 0 where the system does not tell.
    """

    outcome: str
    said: str
    seconds: float
    megabytes: float


def trials(name: str, numbers: Iterable[int], seed: int, reader: GuardedReader) -> Iterator[tuple[int, Seed, Trial]]:
    """The mutants of a format of these numbers, each tried, with its seed, whose file it still is.

    Raises:
        ValueError: if a scan that nothing was done to is not read.
    """
    with tempfile.TemporaryDirectory() as folder:
        seeds = []
        for place, make in enumerate(SEEDS[name]):
            own = Path(folder) / str(place) / "p"
            own.mkdir(parents=True)
            seeds.append(make(own))
            if (trial := tried(seeds[-1].given, reader)).outcome != "read":
                raise ValueError(f"a sound {name} is not read: {trial.said}")
        sound = [one.file.read_bytes() for one in seeds]
        for number in numbers:
            one = seeds[number % len(seeds)]
            one.file.write_bytes(mutant(one, random.Random(f"{seed} {name} {number}")))
            yield number, one, tried(one.given, reader)
            one.file.write_bytes(sound[number % len(seeds)])


def tried(given: Path, reader: GuardedReader) -> Trial:
    """Search and read what was given; every patient found must be read or refused in one line."""
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            jobs, failed = find_jobs([given], Options(), stack, reader)
            said = [one.message for one in failed]
            for job in jobs:
                try:
                    case = reader.read_patient(job.patient, force=True)
                    if not np.isfinite(case.image).all():
                        raise ValueError("voxels that are not finite")
                except StoppedError:
                    raise
                except BrainsegError as error:
                    said.append(str(error))
        outcome = "refused" if said else "read"
        if any(len(line.splitlines()) != 1 for line in said):
            outcome = "bug"
    except StoppedError as error:
        outcome = next(word for words, word in _STOPPED.items() if words in error.cause)
        said = [str(error)]
    except Exception as error:
        outcome, said = "bug", [f"{type(error).__name__}: {error}"]
    return Trial(outcome, "; ".join(said), time.monotonic() - started, peak_megabytes(reader.pid))


def peak_megabytes(pid: int | None) -> float:
    """Most resident memory that a process has had."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return 0.0
