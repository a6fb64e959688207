"""What reads in place of `GuardedReader`, so that not every fault waits for a process to start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainseg.case import Case
from brainseg.guarded import GuardedReader
from brainseg.readers import read_patient
from brainseg.study import Patient
from brainseg.study.matlab import Header, read_header


class Kept(GuardedReader):
    """Its process stays from one command to the next, until `end`."""

    def __enter__(self) -> Kept:
        if self.pid is None:
            super().__enter__()
        return self

    def close(self) -> None:
        """Nothing."""

    def end(self) -> None:
        super().close()


class Here(GuardedReader):
    """Reads in this process, where a test sees what is allocated."""

    def __enter__(self) -> Here:
        return self

    def prepare(self, *_: object) -> None:
        """Nothing."""

    def read_patient(self, patient: Patient, **options: Any) -> Case:
        return read_patient(patient, **options)

    def matlab_header(self, file: Path) -> Header:
        return read_header(file)
