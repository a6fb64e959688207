"""A head as small as can be, whose bright part is where a reader must put it."""

from __future__ import annotations

import numpy as np

FLAIR = np.zeros((64, 48), np.uint8)  # rows, columns
FLAIR[8:56, 6:42] = 100
FLAIR[12:28, 10:22] = 170  # nowhere near the middle, so that no turn or flip leaves it where it is
SLICES = 4
HEAD = np.repeat(FLAIR.T[..., None], SLICES, axis=2)  # X, Y, Z
BRIGHT = HEAD == 170  # what the bright network marks of it
