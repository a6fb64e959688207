"""Errors a user can fix: each says which file, what is wrong and what to do.

The command line turns a `BrainsegError` into one line on stderr and an exit code; anything else is a bug.
"""

from __future__ import annotations

import traceback
from pathlib import Path


class BrainsegError(Exception):
    """A situation the user can fix, as `<file>: <cause>; <what to do>`."""

    exit_code = 3

    def __init__(self, where: str | Path, cause: str, remedy: str) -> None:
        super().__init__(str(where), cause, remedy)  # what another process needs to make it again
        self.where = str(where)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.cause}; {self.remedy}"


class InputError(BrainsegError):
    """A scan or data set that cannot be read, or that would be read ambiguously."""


class NotFlairError(InputError):
    """A series that says it is not FLAIR."""


class StoppedError(InputError):
    """A scan whose reading was stopped: its decoder crashed, or took too long or too much memory."""


class UsageError(BrainsegError):
    """A path that does not exist, or options that contradict each other."""

    exit_code = 2


class MachineError(BrainsegError):
    """Disk, permission, memory, or a second process on the same output."""

    exit_code = 5


class UntrustedBundleError(BrainsegError):
    """A bundle or weights whose content is not what it should be, or that would run foreign code."""

    exit_code = 6


def bug_place(bug: BaseException) -> str:
    """Kind and place of an error that nobody foresaw, without its words, which may quote a patient's data."""
    frames = traceback.extract_tb(bug.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(bug).__name__}{place}"


def bug_trace(bug: BaseException) -> str:
    """The traceback of such an error without its words, nor those of what led to it."""
    return "".join(traceback.format_tb(bug.__traceback__)) + bug_place(bug)


def one_line(text: str) -> str:
    """`text` without what would break a line, or change how a terminal shows it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
