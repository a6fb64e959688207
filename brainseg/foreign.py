"""What of a MONAI config is code, and whether a folder's configs are those of a bundle that is known.

A string that begins with `$` is evaluated, `_target_` names what is called, and `%` puts a part of any file in its
place. logging.conf is code too: Python evaluates the arguments of its handlers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainseg.errors import UntrustedBundleError

MOST_BYTES = 64 * 2**20  # of a file of plain JSON
CALLED = "_target_"
_PARTS = re.compile("::|#")
_HARMLESS = {"_disabled_", "_desc_"}


def code_of(config: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every expression and `_target_` of a config, as (where it stands, its text)."""
    if isinstance(config, dict):
        for key, value in config.items():
            inner = f"{where}::{key}" if where else str(key)
            if key == CALLED:
                yield inner, str(value)
            else:
                yield from code_of(value, inner)
    elif isinstance(config, list):
        for number, value in enumerate(config):
            yield from code_of(value, f"{where}::{number}")
    elif isinstance(config, str) and config.startswith(("$", "%")):
        yield where, config


def code_in_setting(key: str, value: Any) -> str:
    """What of a setting (key as in `optimizer::lr`) is code rather than a value; empty where nothing is."""
    special = [part for part in _PARTS.split(key) if part.startswith("_") and part not in _HARMLESS]
    if special:
        return special[0]
    return next((text for _, text in code_of(value)), "")


def foreign_file(root: Path, known: Path) -> str:
    """The first file in which the bundle at `root` is not the one at `known`, of those that are code; empty where none.

    Compared are everything in configs/ and the modules beside it; a file that `root` lacks does not count.
    """
    for path in sorted([*(root / "configs").rglob("*"), *root.glob("*.py")]):
        place = path.relative_to(root)
        hidden = any(part.startswith((".", "__pycache__")) for part in place.parts)
        if not hidden and not (path.is_dir() or same_file(path, known / place)):
            return place.as_posix()
    return ""


def same_file(path: Path, other: Path) -> bool:
    """Whether both are plain files with the same content."""
    if not (path.is_file() and other.is_file()):  # a device has no end to be read to
        return False
    return path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()


def plain_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, in which nothing is code.

    Raises:
        UntrustedBundleError: there is none.
    """
    try:
        content = json.loads(plain_text(path))
    except (ValueError, RecursionError):
        raise UntrustedBundleError(path, "not readable as JSON", "restore the bundle") from None
    if not isinstance(content, dict):
        raise UntrustedBundleError(path, "not a JSON object", "restore the bundle")
    return content


def plain_text(path: Path) -> str:
    """The text of a plain file of no more than 64 MiB.

    Raises:
        UntrustedBundleError: there is none.
    """
    try:
        if path.is_file() and path.stat().st_size <= MOST_BYTES:
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    raise UntrustedBundleError(path, "not readable as text", "restore the bundle")
