"""Compiled networks on the disk, in the user's own cache folder, to be had again at once.

What lies there is loaded into this process, so it is taken only from a folder that nobody else can write, and only
where its SHA-256 is the one written before it. Without a cache everything works, and is compiled again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from brainseg.errors import MachineError

KEPT = 12  # files; the oldest go
_SUFFIX = ".compiled"
_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/brainseg`, or `~/.cache/brainseg`; on Windows in the local application data."""
    base = Path(os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "brainseg"


def cached(key: str) -> bytes | None:
    """What `keep` stored under `key`; None where it is missing, damaged, or not certain to be the user's own."""
    path = cache_folder() / f"{key}{_SUFFIX}"
    try:
        if not (_own(path.parent) and _own(path)):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return body if hashlib.sha256(body).digest() == digest else None


def keep(key: str, body: bytes) -> None:
    """Stores `body` under `key`, whole or not at all; a folder that cannot be written is left alone."""
    from brainseg.writers.atomic import replacing

    folder = cache_folder()
    with suppress(OSError, MachineError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _own(folder):
            return
        with replacing(folder / f"{key}{_SUFFIX}") as partial:
            partial.chmod(0o600)
            partial.write_bytes(hashlib.sha256(body).digest() + body)
        by_age = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in by_age[KEPT:]:
            path.unlink(missing_ok=True)


def _own(path: Path) -> bool:
    """Whether `path` is no link, belongs to this user, and nobody else may write it; Windows keeps its folders so."""
    found = path.lstat()
    if os.name == "nt":
        return not stat.S_ISLNK(found.st_mode)
    return not stat.S_ISLNK(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
