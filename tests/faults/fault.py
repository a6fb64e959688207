"""A fault is data: what is wrong, what builds it, and its outcome; how it is met is one function, the same for all."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import brainseg
from dicom_files import PATIENT_ID, PATIENT_NAME
from faults.readers import Here

from brainseg.record import RECORD
from brainseg.writers.atomic import PARTIAL_PREFIX
from brainseg.writers.tables import read_cohort

GROUPS = ("TIFF", "NIfTI", "DICOM", "bundle, weights", "files", "runs")
MOST_BYTES, MOST_SECONDS = 50 * 2**20, 20
Builder = Callable[[Path], Path | None]


@dataclass(frozen=True)
class Fault:
    """A bad or unusual input of `brainseg segment`.

    Attributes:
        group, what: the words of the list of faults.
        build: makes the input in the empty folder it is given; returns what to segment where that is not the folder.
        refused: what the one line on stderr says; empty where the input must be done.
        check: looks at the case's folder of results where it is done; asserts what the outcome asks for besides.
        says: words that the case's notes or flags must hold where it is done.
        options: more of the command line.
        frugal: the input declares far more than it holds, and nothing near it may be allocated.
    """

    group: str
    what: str
    build: Builder
    refused: str = ""
    check: Callable[[Path], None] | None = None
    says: str = ""
    options: tuple[str, ...] = ()
    frugal: bool = False

    def meet(self, met: Met) -> None:
        """Segments the input beside a sound patient and asserts the outcome."""
        folder = met.folder / "input" / "bad"
        folder.mkdir(parents=True)
        bad = self.build(folder) or folder
        with met.little_memory() if self.frugal else nullcontext():
            code, lines = met.command("segment", bad, met.sound, "--out", met.out, "-q", *self.options)
        rows = {row.case: row for row in read_cohort(met.out / "cohort.csv")}
        failures = json.loads((met.out / "failures.json").read_text(encoding="utf-8"))
        assert rows["sound"].status == "done"
        assert len(rows) == 2, f"one row for the input is expected: {sorted(rows)}"
        (row,) = (row for row in rows.values() if row.case != "sound")
        if self.refused:
            assert (code, row.status, len(failures)) == (4, "failed", 1), (code, row, failures)
            assert len(lines) == 1, lines
            assert lines[0].startswith("error: "), lines
            assert self.refused in lines[0], lines
            assert failures[0]["cause"] in lines[0]
            assert failures[0]["remedy"]
            assert not (met.out / row.case).exists(), sorted((met.out / row.case).iterdir())
        else:
            assert (code, row.status, lines) == (0, "done", []), (code, row, lines)
            record = json.loads((met.out / row.case / RECORD).read_text(encoding="utf-8"))
            assert self.says in " ".join([*record["notes"], *row.flags]), (record["notes"], row.flags)
            if self.check is not None:
                self.check(met.out / row.case)


@dataclass(frozen=True)
class Situation:
    """A fault that is more than an input: `play` runs the commands and asserts what must come of them."""

    group: str
    what: str
    play: Callable[[Met], None]

    def meet(self, met: Met) -> None:
        self.play(met)


class Met:
    """One fault being met: where, with what beside it, and what became of it.

    Attributes:
        folder: empty at first; `out` in it is where results go.
        sound: a patient that must always be done, `sound.nii.gz`.
        tracebacks, partial: commands that printed a traceback or called themselves a bug, and files left half-written.
    """

    def __init__(
        self, folder: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.sound, self.monkeypatch, self.capture = folder, sound, monkeypatch, capture
        self.out = folder / "out"
        self.tracebacks = 0

    def command(self, *arguments: object) -> tuple[int, Sequence[str]]:
        """Exit code of `brainseg ARGUMENTS`, and the lines it wrote on stderr."""
        self.capture.readouterr()
        code = brainseg(*arguments)
        written = self.capture.readouterr().err
        self.look(written)
        return code, written.splitlines()

    def read_here(self) -> None:
        """Scans are read in this process from now on, where what is patched or allocated counts."""
        self.monkeypatch.setattr("brainseg.cohort.GuardedReader", Here)

    @contextmanager
    def little_memory(self) -> Iterator[None]:
        """Asserts that what is done meanwhile never holds more than MOST_BYTES at once, nor computes MOST_SECONDS."""
        self.read_here()
        started = time.process_time()
        tracemalloc.start()
        try:
            yield
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < MOST_BYTES
        assert time.process_time() - started < MOST_SECONDS

    def look(self, written: str) -> None:
        """Counts what must never be seen in the output of a command; the identity of no patient may be in it."""
        if "Traceback" in written or "this is a bug" in written:
            self.tracebacks += 1
        assert not any(identity in written for identity in (PATIENT_NAME, PATIENT_ID)), written

    @property
    def partial(self) -> int:
        return sum(1 for _ in self.folder.rglob(f"{PARTIAL_PREFIX}*"))
