"""A reading process whose decoder does what the name of a scan says; tests run it in place of the real one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from brainseg import readers
from brainseg.case import Case
from brainseg.readers import child
from brainseg.study import Patient

TAKEN = 8 * 2**30
original = readers.read_patient


def read_patient(patient: Patient, **options: Any) -> Case:
    name = patient.path.name
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "quit" in name:
        os._exit(7)
    if "oom" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in name:
        Path(f"{patient.path}.pid").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(600)  # as a decoder in C that holds the interpreter's lock
    if "slow" in name:
        time.sleep(600)
    if "greedy" in name:
        np.ones(TAKEN, dtype=np.uint8)
    if "bug" in name:
        raise KeyError("unforeseen")
    if "loud" in name:
        os.write(1, b"to stdout")
        os.write(2, b"to stderr")
        print("printed", file=sys.stdout, flush=True)
    if "nonsense" in name:
        child.LENGTH_BYTES = 4
    return original(patient, **options)


def main() -> None:
    readers.read_patient = read_patient
    child.main()
