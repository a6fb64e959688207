"""Curves of a training, from events as the bundles write them."""

from __future__ import annotations

import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from brainseg.history import read_history


def test_loss_is_the_mean_of_each_epoch_and_dice_that_of_the_validations(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        start = time.time()
        for step, loss in enumerate((4.0, 2.0, 1.0, 3.0), start=1):
            writer.add_scalar("train_loss", loss, step, walltime=start + step)
            if step % 2 == 0:
                writer.add_scalar("learning_rate", 0.001, step // 2, walltime=start + step)
        writer.add_scalar("train_loss", 9.0, 5, walltime=start + 5)  # of an epoch that did not end
        writer.add_scalar("val_dice_mean", 0.75, 2, walltime=start + 4)
    history = read_history(tmp_path)
    assert history is not None
    assert history.run == tmp_path.name
    assert history.loss.tolist() == [[1, 3], [2, 2]]
    assert history.dice.tolist() == [[2, 0.75]]


def test_a_folder_without_events_of_a_training_has_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) is None
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("review/dice_mean", 0.75, 0)
    assert read_history(tmp_path) is None
