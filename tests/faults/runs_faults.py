"""Trainings that are killed or go wrong, and scans and networks that do not fit."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults.exploits import NAME, patients
from faults.fault import Fault, Met, Situation
from faults.files_faults import no_file_larger_than

from brainseg import bundle as bundles
from brainseg.bundle import WEIGHTS, Bundle
from brainseg.train import newest_state
from brainseg.training_faults import LOUD

GROUP = "runs"
EPOCHS = 3
KILLED = """
import os, sys, torch
from brainseg.cli import main

steps, step = [], torch.optim.AdamW.step

def killed_in_the_third_epoch(self, *args, **kwargs):
    steps.append(1)
    if len(steps) == 3:
        os.kill(os.getpid(), 9)
    return step(self, *args, **kwargs)

torch.optim.AdamW.step = killed_in_the_third_epoch
main(sys.argv[1:])
"""


def arguments(met: Met, out: Path, *more: object) -> tuple[object, ...]:
    """A training whose epochs are one step each, and each validated and saved."""
    data = patients(met)
    tiny = ("batch_size=1", "num_workers=0", "window=[32, 32]", "canvas=[32, 32]", "val_interval=1")
    common = ("--bundle", NAME, "--data", data, "--folds", data / "folds.json", "--out", out)
    return ("train", *common, "--epochs", EPOCHS, *tiny, *more)


def train(met: Met, out: Path, *more: object) -> tuple[int, list[str]]:
    """Exit code and lines on stderr, MONAI's own log among them but for its progress."""
    for name in LOUD:
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.stderr  # that of an earlier test is closed
    code, lines = met.command(*arguments(met, out, *more))
    return code, [line for line in lines if line.strip() and not re.match("Loading dataset|.* - INFO - ", line)]


def killed(met: Met) -> Path:
    """A run that was killed with SIGKILL in its third epoch; trained once in a test run, and copied to one place."""
    run = met.folder.parent / "killed"
    if not run.is_dir():
        words = [str(word) for word in arguments(met, run, "-q")]
        ended = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True)
        assert ended.returncode == -9, ended.stderr
    copy = run.with_name("resumed")  # 230 MB, of which one entry after another has its copy
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(run, copy))


def states(run: Path) -> list[int]:
    """The epochs whose training states can be read."""
    paths = sorted((run / "models").glob("state_checkpoint_epoch=*.pt"))
    for path in paths:
        torch.load(path, weights_only=True)
    return [int(path.stem.rpartition("=")[2]) for path in paths]


def resumed(met: Met) -> None:
    run = killed(met)
    assert states(run) == [1, 2]
    assert json.loads((run / "run.json").read_text())["weights_sha256"] is None
    code, lines = train(met, run, "--resume", "-q")
    assert (code, lines) == (0, [])
    assert states(run)[-1] == 3
    code, lines = met.command("bundle", "verify", run)
    assert (code, lines) == (0, [])


def last_is_cut(met: Met) -> None:
    run = killed(met)
    path = run / "models" / "state_checkpoint_epoch=2.pt"
    path.write_bytes(path.read_bytes()[:1_000_000])
    code, lines = train(met, run, "--resume")
    assert code == 0, lines
    (said,) = (line for line in lines if "going back to the one before" in line)
    assert "state_checkpoint_epoch=2.pt cannot be read (damaged" in said
    assert states(run)[-1] == 3


def last_has_a_flipped_bit(met: Met) -> None:
    run = killed(met)
    path = run / "models" / "state_checkpoint_epoch=2.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert newest_state(run).name == "state_checkpoint_epoch=1.pt"


def all_corrupt(met: Met) -> None:
    run = killed(met)
    for path in (run / "models").glob("state_*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    code, lines = train(met, run, "--resume", "-q")
    assert (code, len(lines)) == (2, 1), lines
    assert "holds no training state that can be read; train again in another folder" in lines[0]


def other_bundle(met: Met) -> None:
    run = killed(met)
    words = [("basic_unet" if word == NAME else word) for word in arguments(met, run, "--resume", "-q")]
    code, lines = met.command(*words)
    assert (code, len(lines)) == (2, 1), lines
    assert "--bundle: is not that which the run began with; resume with the same" in lines[0]


def no_number(met: Met) -> None:
    run = killed(met)
    kept = (run / WEIGHTS).read_bytes()
    with met.monkeypatch.context() as patch:
        from monai.losses import DiceCELoss

        patch.setattr(DiceCELoss, "forward", lambda self, given, target: given.mean() * float("nan"))
        code, lines = train(met, run, "--resume", "-q")
    assert (code, len(lines)) == (3, 1), lines
    assert "the loss was no number in epoch 3, so training stopped there; its last good weights are kept" in lines[0]
    assert (run / WEIGHTS).read_bytes() == kept
    assert states(run) == [1, 2]
    assert met.command("bundle", "verify", run) == (0, [])


def training_out_of_memory(met: Met) -> None:
    run = killed(met)

    def full(self: object, *args: object, **kwargs: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with met.monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", full)
        code, lines = train(met, run, "--resume", "-q")
    assert (code, len(lines)) == (5, 1), lines
    assert "the GPU is out of memory; lower batch_size" in lines[0]
    assert states(run) == [1, 2]


def training_disk_full(met: Met) -> None:
    run = killed(met)
    with no_file_larger_than(1_000_000):
        code, lines = train(met, run, "--resume", "-q")
    assert (code, len(lines)) == (5, 1), lines
    assert "a checkpoint could not be written; free some space; then --resume" in lines[0]
    assert states(run) == [1, 2]


class Tight(torch.nn.Module):
    """Marks what is bright, but has no room for more than `most` windows at a time while it is on the GPU."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.on_gpu, self.seen = most, True, 0

    def to(self, device: torch.device) -> Tight:  # type: ignore[override]
        self.on_gpu = torch.device(device).type == "cuda"
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.on_gpu and len(image) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.seen = max(self.seen, len(image))
        return (image[:, 1:2] - 1.3) * 20


def gpu_is_full(most: int, says: list[str]) -> Callable[[Met], None]:
    """Plays a segmentation on a GPU, whose place the CPU takes, with the same mask as on the CPU."""

    def play(met: Met) -> None:
        assert met.command("segment", met.sound, "--out", met.folder / "clean", "-q") == (0, [])
        opened, moved, network = bundles.open_bundle, torch.Tensor.to, Tight(most)

        def on_gpu(*args: Any, **kwargs: Any) -> Bundle:
            return replace(opened(*args, **kwargs), network=network, device=torch.device("cuda:0"))

        def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            gpu = [isinstance(one, torch.device) and one.type == "cuda" for one in args]
            return moved(
                self, *(torch.device("cpu") if is_gpu else one for one, is_gpu in zip(args, gpu, strict=True)), **kwargs
            )

        with met.monkeypatch.context() as patch:
            patch.setattr(bundles, "open_bundle", on_gpu)
            patch.setattr(torch.Tensor, "to", to)
            code, lines = met.command("segment", met.sound, "--out", met.out)
        assert code == 0, lines
        assert [line for line in lines if "out of memory" in line] == [
            f"WARNING: the GPU is out of memory; going on {how}" for how in says
        ]
        assert network.seen == (most or 2)
        mask = "sound/mask.nii.gz"
        assert (met.out / mask).read_bytes() == (met.folder / "clean" / mask).read_bytes()

    return play


def huge(folder: Path) -> Path:
    """A whole NIfTI volume of half a GiB, of which the disk holds nothing but the header."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_shape((820, 820, 800))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.diag([0.1, 0.1, 0.1, 1]), code=1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path = folder / "huge.nii"
    with path.open("wb") as stream:
        stream.write(header.binaryblock)
        stream.truncate(352 + 820 * 820 * 800)
    return path


FAULTS = [
    Situation(GROUP, "training killed in an epoch, then resumed", resumed),
    Situation(GROUP, "last checkpoint corrupt: cut short", last_is_cut),
    Situation(GROUP, "last checkpoint corrupt: a flipped bit", last_has_a_flipped_bit),
    Situation(GROUP, "all checkpoints corrupt", all_corrupt),
    Situation(GROUP, "resumed with another bundle", other_bundle),
    Situation(GROUP, "loss NaN", no_number),
    Situation(GROUP, "GPU out of memory: smaller windows", gpu_is_full(1, ["with smaller windows"])),
    Situation(GROUP, "GPU out of memory: the CPU", gpu_is_full(0, ["with smaller windows", "on the CPU"])),
    Situation(GROUP, "GPU out of memory in training", training_out_of_memory),
    Situation(GROUP, "disk full in training", training_disk_full),
    Fault(GROUP, "a huge volume: refused", huge, refused="declares 820 x 820 x 800 voxels, more than the 536870912"),
]
