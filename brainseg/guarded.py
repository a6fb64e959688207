"""Scans read in a process of their own: a decoder that crashes, hangs or takes all memory costs one case.

The process (`readers/child.py`) is started once, and again when it is gone. It has a cap on memory where the system
knows one, and a time for each case; it ends when this process does, however it ends. Arrays come through its pipe
straight into the array that is returned.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg import errors
from brainseg.case import CHANNELS, FLAIR, Case, Spacing
from brainseg.errors import BrainsegError, MachineError, StoppedError

if TYPE_CHECKING:
    from brainseg.study import Patient
    from brainseg.study.matlab import Header

log = logging.getLogger(__name__)

CHILD = "brainseg.readers.child"
LEAST_MEMORY = 4 * 2**30  # a study of three sequences of 512 x 512 x 400 takes 3
STARTING_SECONDS = 120.0
STARTS = 2
EXIT_SECONDS = 1.0
MOST_HEADER = 2**26
MOST_VALUES = 3 * 2**29
TRY_AGAIN = "copy or export it again, or convert it to NIfTI"
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[2]).main()"
)
_KINDS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, BrainsegError)
}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def memory_for_a_case() -> int:
    """Half of the machine's memory in bytes, at least 4 GiB; the other half is for what was read before."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows, which has no cap either
        machine = 0
    return max(LEAST_MEMORY, machine // 2)


@dataclass(frozen=True)
class Limits:
    """What one case may take: `seconds` and so much more for each megabyte of its files, and `memory_bytes`."""

    seconds: float = 180.0
    seconds_per_mb: float = 1.0
    memory_bytes: int = field(default_factory=memory_for_a_case)

    def seconds_for(self, files: Iterable[Path]) -> float:
        """The time for a case of these files and folders."""
        return self.seconds + self.seconds_per_mb * sum(map(_size, files)) / 1e6


class ReadingBugError(Exception):
    """An exception in the reading process that is no error of the user's: its type and words."""


class _GoneError(Exception):
    """The process ended, or talks nonsense, before it had answered."""


class GuardedReader:
    """Reads as `brainseg.readers` does, with the same results and errors, in another process; a context manager.

    Threads may share it: one case is read at a time. `close` may be called while one is being read, which then fails.
    """

    def __init__(self, limits: Limits | None = None, child: str | None = None) -> None:
        """Nothing is started yet.

        Args:
            limits: for each case.
            child: module whose `main` the process runs; for tests.
        """
        self.limits = limits or Limits()
        self._module = child or CHILD
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def __enter__(self) -> GuardedReader:
        """Starts the process, which is ready some time later."""
        with self._lock:
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._closed = True
        child = self._child
        if child is not None:
            child.stop()
            with self._lock:
                child.end()

    @property
    def pid(self) -> int | None:
        """Of the process; None where none runs."""
        return None if self._child is None or self._child.gone else self._child.process.pid

    def prepare(self, layouts: Iterable[str]) -> None:
        """Says what is going to be read, so that the process imports what it needs for that; does not wait for it."""
        with self._lock, suppress(OSError):
            if self._child is not None and not self._child.gone:
                self._child.write(("prepare", (sorted(set(layouts)),), {}))

    def read_patient(
        self,
        patient: Patient,
        *,
        pre: Path | None = None,
        post: Path | None = None,
        spacing_mm: Spacing | None = None,
        force: bool = False,
        allow_gap: bool = False,
    ) -> Case:
        """As `brainseg.readers.read_patient`.

        Raises:
            StoppedError: if the decoder crashed, or went beyond a limit.
            BrainsegError: as `brainseg.readers.read_patient`.
        """
        if patient.problem is not None:
            raise patient.problem
        series = (patient.flair, patient.pre, patient.post)
        files = [*(file for one in series if one for file in one.files), *(path for path in (pre, post) if path)]
        options = {"pre": pre, "post": post, "spacing_mm": spacing_mm, "force": force, "allow_gap": allow_gap}
        return self._ask(patient.path, files, _case, "read_patient", patient, **options)  # type: ignore[no-any-return]

    def read_ground_truth(self, patient: Patient) -> NDArray[np.uint8] | None:
        """As `brainseg.readers.read_ground_truth`.

        Raises:
            StoppedError: if the decoder crashed, or went beyond a limit.
            BrainsegError: as `brainseg.readers.read_ground_truth`.
        """
        if not patient.masks:
            return None
        if patient.problem is not None:
            raise patient.problem
        files = [*patient.masks, *patient.flair.files]
        return self._ask(patient.masks[0], files, _mask, "read_ground_truth", patient)  # type: ignore[no-any-return]

    def matlab_header(self, file: Path) -> Header:
        """As `brainseg.study.matlab.read_header`: of all that the search opens, HDF5 alone is decoded in C.

        Raises:
            StoppedError: if the decoder crashed, or went beyond a limit.
            BrainsegError: as `read_header`.
        """
        from brainseg.study.matlab import Header

        said = self._ask(file, [file], lambda said, _: said, "matlab_header", file)
        return Header(file, bytes.fromhex(said["pid"]), tuple(said["shape"]), said["mask"])

    def _ask(self, where: Path, files: Iterable[Path], made: Any, call: str, *args: Any, **options: Any) -> Any:
        """What `made` makes of the reply to a call, within the time for `files`."""
        seconds = self.limits.seconds_for(files)
        with self._lock:
            child = self._begun((call, args, options))
            try:
                with _deadline(seconds, child):
                    said = child.said()
                    refused = said.keys() & {"error", "memory", "bug"}
                    answer = None if refused else made(said, child)
            except _GoneError:
                raise _why(where, child.ended(), seconds if child.stopped else None) from None
            except BaseException:
                child.end()  # the rest of the reply would be taken for the next
                raise
        if refused:
            self._refuse(where, said)
        return answer

    def _begun(self, request: tuple[Any, ...]) -> _Child:
        """The process at work on a request; one that died between two requests is no fault of either."""
        for _ in range(STARTS):
            if self._child is None or self._child.gone:
                self._start()
            child: _Child = self._child  # type: ignore[assignment]
            try:
                with _deadline(STARTING_SECONDS, child):
                    child.send(request)
                    child.said()
                return child
            except _GoneError:
                code = child.ended()
        cause = f"the process to read in does not start ({_ended(code)})"
        raise MachineError("brainseg", cause, "install brainseg again")

    def _start(self) -> None:
        if self._child is not None:
            self._child.end()
        if self._closed:
            raise RuntimeError("the reader is closed")
        self._child = _Child(self._module, self.limits.memory_bytes)
        if self._closed:  # meanwhile, by another thread
            self._child.end()

    def _refuse(self, where: Path, said: dict[str, Any]) -> None:
        if "memory" in said:
            most = f"{self.limits.memory_bytes / 2**30:.1f} GiB"
            cause = f"needs more memory than reading one case may take on this machine ({most})"
            raise StoppedError(where, cause, "crop or downsample it, or use a machine with more")
        if "error" in said:
            raise _KINDS[said["error"]](*map(str, said["said"]))
        log.debug("in the reading process: %s", said["traceback"])
        raise ReadingBugError(said["bug"])


@contextmanager
def _deadline(seconds: float, child: _Child) -> Iterator[None]:
    """Stops the process if the block takes longer."""
    timer = threading.Timer(seconds, child.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # so that whoever comes next sees that it was stopped


class _Child:
    """One process, from its start to its end."""

    def __init__(self, module: str, memory_bytes: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="brainseg-", ignore_cleanup_errors=True)  # for its zips
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, paths, module, str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, "TMPDIR": self._folder.name},
            )
        except OSError as error:
            self._folder.cleanup()
            remedy = "free memory, or end other programs"
            raise MachineError("brainseg", f"cannot start a process to read in ({error.strerror})", remedy) from None
        self.stopped = False

    @property
    def gone(self) -> bool:
        return self.stopped or self.process.poll() is not None

    def stop(self) -> None:
        """Ends it from any thread; whoever waits for its reply is told."""
        self.stopped = True
        with suppress(OSError):
            self.process.kill()

    def end(self) -> None:
        """Ends it, and removes what it left."""
        with suppress(OSError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self._folder.cleanup()

    def ended(self) -> int | None:
        """Ends what has closed its pipe; its exit code, or None where it would have gone on."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(EXIT_SECONDS)
        code = self.process.returncode
        self.end()
        return code

    def send(self, request: tuple[Any, ...]) -> None:
        try:
            self.write(request)
        except OSError:
            raise _GoneError from None

    def write(self, request: tuple[Any, ...]) -> None:
        self.process.stdin.write(pickle.dumps(request))  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]

    def said(self) -> dict[str, Any]:
        """The object of a reply."""
        length = bytearray(8)
        self.fill(memoryview(length))
        size = int.from_bytes(length, "little")
        if size > MOST_HEADER:
            raise _GoneError
        header = bytearray(size)
        self.fill(memoryview(header))
        try:
            said = json.loads(header)
        except ValueError:
            raise _GoneError from None
        if not isinstance(said, dict):
            raise _GoneError
        return said

    def fill(self, view: memoryview) -> None:
        """Reads as many bytes as `view` has into it."""
        while view:
            count = self.process.stdout.readinto(view)  # type: ignore[union-attr]
            if not count:
                raise _GoneError
            view = view[count:]


def _case(said: dict[str, Any], child: _Child) -> Case:
    shape = _shape(said["shape"], 4)
    if shape[0] != len(CHANNELS) or not {FLAIR} <= set(said["channels"]) <= set(range(len(CHANNELS))):
        raise _GoneError
    image = np.empty(shape, dtype=np.float32)
    for channel in said["channels"]:
        child.fill(image[channel].data.cast("B"))
    for channel in set(range(len(CHANNELS))) - set(said["channels"]):
        image[channel] = image[FLAIR]
    return Case(
        name=said["name"],
        image=image,
        affine=np.array(said["affine"], dtype=np.float64),
        spacing_mm=None if said["spacing_mm"] is None else tuple(said["spacing_mm"]),
        layout=said["layout"],
        files=tuple(Path(file) for file in said["files"]),
        missing=tuple(said["missing"]),
        notes=tuple(said["notes"]),
        finer=said["finer"],
        apart=said["apart"],
    )


def _mask(said: dict[str, Any], child: _Child) -> NDArray[np.uint8] | None:
    if said["shape"] is None:
        return None
    mask = np.empty(_shape(said["shape"], 3), dtype=np.uint8)
    child.fill(mask.data.cast("B"))
    return mask


def _shape(sizes: Any, axes: int) -> tuple[int, ...]:
    if len(sizes) != axes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise _GoneError
    if np.prod(sizes, dtype=object) > MOST_VALUES:
        raise _GoneError
    return tuple(sizes)


def _why(where: Path, code: int | None, seconds: float | None) -> StoppedError:
    """Why a process that ended with `code` gave no reply; `seconds` is the time it had, where it was stopped."""
    if seconds is not None:
        return StoppedError(where, f"was not read within {seconds:.0f} s and given up", TRY_AGAIN)
    if sys.platform != "win32" and code == -signal.SIGKILL:
        cause = "its reading was ended by the system (signal KILL), as it is where memory runs out"
        return StoppedError(where, cause, "use a machine with more memory, or end other programs")
    return StoppedError(where, f"the decoder crashed ({_ended(code)})", TRY_AGAIN)


def _ended(code: int | None) -> str:
    if code is None:
        return "its answer makes no sense"
    try:
        return f"signal {signal.Signals(-code).name.removeprefix('SIG')}"
    except ValueError:
        return f"exit status {code}"


def _size(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; 0 for what is not there."""
    try:
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0
