"""The leak alarm: what a predictor scores that never looks at a pixel.

On a split of slices it copies the mask of the nearest training slice of the same patient. A network that scores no more
may have learned nothing but whose slice it sees, so every table of such a split carries this row, and one for
predicting nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALARM = "leak alarm: mask of the nearest training slice"
NOTHING = "predicting nothing"


def nearest(index: int, training: Sequence[int]) -> int | None:
    """The one of `training` closest to `index`, the lower of two equally close; None of none."""
    return min(training, key=lambda other: (abs(other - index), other), default=None)


def copied_mask(truth: NDArray[Any], index: int, training: Sequence[int]) -> NDArray[Any]:
    """The mask (X, Y) that the alarm predicts for slice `index` of a patient.

    Args:
        truth: the patient's true mask (X, Y, Z).
        index: which of its slices to predict.
        training: the slices whose masks a network would have been shown; where there are none nothing is predicted.
    """
    source = nearest(index, training)
    return np.zeros_like(truth[..., index]) if source is None else truth[..., source]
