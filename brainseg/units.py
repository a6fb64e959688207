"""How a volume is shown."""

from __future__ import annotations

import math


def millilitres(volume: float, decimals: int = 1, *, signed: bool = False) -> str:
    """`volume` with so many decimals, or as many more as two significant digits need: a small one is not 0.0."""
    if volume:
        decimals = max(decimals, 1 - math.floor(math.log10(abs(volume))))
    return f"{volume:{'+' if signed else ''}.{decimals}f}"
