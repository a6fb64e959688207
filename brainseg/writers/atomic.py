"""Files that appear whole under their final name, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from brainseg.errors import MachineError

PARTIAL_PREFIX = ".part-"

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free some space and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run again"),
    errno.EACCES: ("permission denied", "choose an output folder that you may write to"),
    errno.EPERM: ("permission denied", "choose an output folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose an output folder that you may write to"),
    errno.EFBIG: ("the file system does not take a file this large", "choose another output folder"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "choose a shorter output path"),
    errno.ENOTDIR: ("part of the path is a file, not a folder", "choose another output folder"),
    errno.EEXIST: ("part of the path is a file, not a folder", "choose another output folder"),
    errno.EISDIR: ("a folder has this name", "remove it, or choose another output folder"),
    errno.EIO: ("the disk reports an error", "check the disk, or choose another output folder"),
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, beside `path`, that takes the place of `path` when the block ends well.

    The temporary file exists, empty, with the permissions of a new file and the last two suffixes of `path`; it is
    flushed to disk before the rename and removed if the block fails. Missing parent folders are made.

    Raises:
        MachineError: if `path` is a symbolic link, or disk or permissions do not allow the file.
    """
    with replacing_all([path]) as (partial,):
        yield partial


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As `replacing`, for files that are renamed once all of them are on the disk, which takes less waiting for it."""
    for path in paths:
        refuse_link(path)
    partials = {
        path.with_name(f"{PARTIAL_PREFIX}{secrets.token_hex(6)}{''.join(path.suffixes[-2:])}"): path for path in paths
    }
    folders = dict.fromkeys(path.parent for path in paths)
    try:
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            for partial in partials:
                partial.touch(exist_ok=False)
            yield list(partials)
            for partial in partials:
                _flush(partial)
            for partial, path in partials.items():
                partial.replace(path)
            for folder in folders:
                _flush(folder)
        finally:
            for partial in partials:
                partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        path = partials.get(Path(str(error.filename)), paths[0])
        raise MachineError(path, *caused(error.errno)) from error


def refuse_link(path: Path) -> None:
    """That `path` is no symbolic link.

    Raises:
        MachineError: it is one.
    """
    if path.is_symlink():
        raise MachineError(path, "is a symbolic link", "remove it; results are never written through links")


def refuse_unwritable(folder: Path) -> None:
    """That files can be made in `folder`, tried before any work is done for them.

    Raises:
        MachineError: it is a link or no folder, or disk or permissions do not allow a file there.
    """
    if folder.is_symlink() or not folder.is_dir():
        what = "a symbolic link" if folder.is_symlink() else "not a folder"
        raise MachineError(folder, f"is {what}", "remove it, or choose another output folder")
    probe = folder / f"{PARTIAL_PREFIX}{secrets.token_hex(6)}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise MachineError(folder, *caused(error.errno)) from error


def caused(number: int | None) -> tuple[str, str]:
    """Cause and remedy of an OSError with this errno."""
    unknown = (os.strerror(number or 0), "check the disk, or choose another output folder")
    return _CAUSES.get(number or 0, unknown)


def of_machine(error: OSError, where: object) -> MachineError | None:
    """What to say of an error that every file would meet: disk full, broken, or read-only. None for another."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return None
    return MachineError(str(error.filename or where), *caused(error.errno))


def refused_by_machine(error: OSError) -> MachineError | None:
    """What to say of an error that disk or permissions are to blame for. None for another."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return MachineError(str(error.filename), "permission denied", "check its permissions, or choose another path")
    if error.errno not in _CAUSES:
        return None
    return MachineError(str(error.filename or "disk"), *caused(error.errno))


def remove_partials(root: Path) -> int:
    """Removes what killed runs left half-written anywhere under `root`; returns how many files that were.

    Symbolic links are neither followed nor removed.
    """
    names = [Path(folder, name) for folder, _, found in os.walk(root) for name in found]
    partials = [path for path in names if path.name.startswith(PARTIAL_PREFIX) and not path.is_symlink()]
    for partial in partials:
        partial.unlink(missing_ok=True)
    return len(partials)


def _flush(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders; it orders renames itself
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
