"""How a training went, read from its TensorBoard events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LOSS, EPOCH, VALIDATION_DICE = "train_loss", "learning_rate", "val_dice_mean"  # tags of the bundles' train.json


@dataclass(frozen=True)
class History:
    """Curves of one run.

    Attributes:
        run: name of its folder.
        loss: (epochs, 2): epoch, counted from 1, and mean training loss in it.
        dice: (validations, 2): epoch and mean Dice of the validation patients.
    """

    run: str
    loss: NDArray[np.float64]
    dice: NDArray[np.float64]


def read_history(root: Path) -> History | None:
    """The curves of the run at `root`; None where there are no events of a training."""
    if not any(root.glob("events.out.tfevents.*")):
        return None
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root), size_guidance={"scalars": 0, "images": 1, "tensors": 1})
    events.Reload()
    tags = events.Tags()["scalars"]
    if LOSS not in tags or EPOCH not in tags:
        return None
    ends = events.Scalars(EPOCH)  # written when an epoch ends, the loss at every step
    times, losses = np.array([(one.wall_time, one.value) for one in events.Scalars(LOSS)]).T
    owner = np.searchsorted([end.wall_time for end in ends], times)
    loss = [(end.step, losses[owner == k].mean()) for k, end in enumerate(ends) if np.any(owner == k)]
    dice = [(one.step, one.value) for one in events.Scalars(VALIDATION_DICE)] if VALIDATION_DICE in tags else []
    return History(root.name, _pairs(loss), _pairs(dice))


def _pairs(points: list[tuple[int, float]]) -> NDArray[np.float64]:
    return np.array(points, np.float64).reshape(-1, 2)
