"""Errors a user can fix: each says which file, what is wrong and what to do.

The command line turns a `BrainsegError` into one line on stderr and an exit code; anything else is a bug.
"""

from __future__ import annotations

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


class UsageError(BrainsegError):
    """A path that does not exist, or options that contradict each other."""

    exit_code = 2


class MachineError(BrainsegError):
    """Disk, permission, memory, or a second process on the same output."""

    exit_code = 5


class UntrustedBundleError(BrainsegError):
    """A bundle or weights whose content is not what it should be, or that would run foreign code."""

    exit_code = 6


def one_line(text: str) -> str:
    """`text` without what would break a line, or change how a terminal shows it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
