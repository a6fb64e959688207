"""The C library's allocator, told to keep what a network will ask for again."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any

# man mallopt. What is freed at the heap's end goes back to the system above _TRIM; what is larger than _MAP (glibc
# takes no more than 32 MB) is mapped and unmapped each time, and the kernel clears every page of it anew.
_TRIM, _TRIM_BYTES = -1, 1 << 29
_MAP, _MAP_BYTES = -3, 32 << 20


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Lets the process keep up to 512 MB of freed memory, so that a slice's feature maps reuse those of the last.

    For glibc; elsewhere, and the second time, it does nothing.
    """
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(_TRIM, _TRIM_BYTES)
        mallopt(_MAP, _MAP_BYTES)


def release_memory() -> None:
    """Gives what is kept back to the system, before something else needs much of it."""
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    if sys.platform != "linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
