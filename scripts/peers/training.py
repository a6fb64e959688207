"""How many slices a second train one network: by the bundle's train.json, or by a loop as MONAI's tutorials have it.

`what` is "brainseg" or "stock". Both see batches of 16 slices of 160x192, moved about and lit alike, not halved,
with DiceCELoss, in mixed precision on a GPU. The stock loop keeps its slices in memory too (CacheDataset) and changes
them one by one in the workers of a DataLoader. Prints slices a second after a warm-up and, of a GPU, the share of the
time in which it computed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from common import Job, normalised, open_network, read_job, tiff_slices

BATCH = 16
WINDOW = (160, 192)
WARM_UP, STEPS = {"cpu": 2, "cuda": 64}, {"cpu": 6, "cuda": 256}


@dataclass
class Pace:
    """Counts steps, and times those after the warm-up.

    Attributes:
        device: that trains.
        busy: shares of a GPU's time, as its driver tells them.
    """

    device: torch.device
    steps: int = 0
    started: float = 0.0
    busy: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def step(self) -> bool:
        """After each step; whether it was the last."""
        self.steps += 1
        if self.steps == WARM_UP[self.device.type]:
            self._wait()
            self.started = time.perf_counter()
            threading.Thread(target=self._watch, daemon=True).start()
        return self.steps == WARM_UP[self.device.type] + STEPS[self.device.type]

    def report(self) -> None:
        """Prints `seconds`, the time of a slice, and how `busy` the GPU was."""
        self._wait()
        taken = time.perf_counter() - self.started
        self._stop.set()
        busy = float(np.median(self.busy)) if self.busy else None
        print(json.dumps({"seconds": taken / STEPS[self.device.type] / BATCH, "busy": busy}), flush=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _watch(self) -> None:
        while self.device.type == "cuda" and not self._stop.wait(0.25):
            try:
                self.busy.append(torch.cuda.utilization(self.device))
            except (ImportError, RuntimeError):  # nobody there to ask
                return


def brainseg(job: Job, pace: Pace) -> None:
    """The bundle's own training, whole: its data path, augmentation, metric, moving average and TensorBoard."""
    from monai.bundle import ConfigWorkflow

    with tempfile.TemporaryDirectory() as output:
        workflow = ConfigWorkflow(
            config_file=str(job.bundle / "configs" / "train.json"),
            workflow_type="train",
            logging_file=False,
            bundle_root=str(job.bundle),
            dataset_dir=str(job.data),
            output_dir=output,
            device=pace.device,
            amp=pace.device.type == "cuda",
            fold=-1,
            coarse_share=0,
            batch_size=1,
            slices_per_patient=BATCH,
            max_epochs=10_000,
            val_interval=10_000,
            save_interval=10_000,
        )
        workflow.initialize()
        trainer = workflow.parser.get_parsed_content("train#trainer")

        def count(engine: Any) -> None:
            if pace.step():
                pace.report()
                engine.terminate()

        from ignite.engine import Events

        trainer.add_event_handler(Events.ITERATION_COMPLETED, count)
        workflow.run()


def slices_of(patients: list[Path]) -> Iterator[dict[str, Any]]:
    """Image `(3, X, Y)`, scaled as the bundles do, and label `(1, X, Y)` of every slice, in memory."""
    for patient in patients:
        files = tiff_slices(patient)
        for file, image in zip(files, normalised(np.stack([tifffile.imread(one) for one in files])), strict=True):
            label = tifffile.imread(file.with_name(f"{file.stem}_mask.tif"))[None] > 0
            yield {key: torch.from_numpy(a.astype(np.float32)).mT for key, a in (("image", image), ("label", label))}


def stock(job: Job, pace: Pace) -> None:
    """Dictionary transforms, CacheDataset, DataLoader, DiceCELoss, AdamW, autocast: a loop of one's own."""
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandFlipd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    network = open_network(job.bundle, job.device)[0].train()
    augment = Compose(
        [
            RandFlipd(["image", "label"], 0.5, spatial_axis=0),
            RandAffined(
                ["image", "label"],
                prob=1.0,
                rotate_range=0.35,
                scale_range=(0.25, 0.25),
                translate_range=(20, 20),
                spatial_size=WINDOW,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandGaussianSmoothd("image", prob=0.2),
            RandAdjustContrastd("image", prob=0.4, gamma=(0.67, 1.5)),
            RandScaleIntensityd("image", 0.25, prob=1.0),
            RandShiftIntensityd("image", 0.1, prob=0.3),
            RandGaussianNoised("image", prob=0.2, std=0.1),
        ]
    )
    data = CacheDataset(list(slices_of(job.patients)), augment, progress=False)
    loader = DataLoader(data, job.threads, batch_size=BATCH, shuffle=True, drop_last=True, persistent_workers=True)
    loss_of = DiceCELoss(sigmoid=True, batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), 0.001)
    scaler = torch.amp.GradScaler(pace.device.type, enabled=pace.device.type == "cuda")
    while True:
        for batch in loader:
            optimizer.zero_grad()
            with torch.autocast(pace.device.type, enabled=pace.device.type == "cuda"):
                loss = loss_of(network(batch["image"].to(pace.device)), batch["label"].to(pace.device))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            loss.item()  # for the log
            if pace.step():
                pace.report()
                return


def main() -> None:
    ways: dict[str, Callable[[Job, Pace], None]] = {"brainseg": brainseg, "stock": stock}
    job = read_job()
    ways[sys.argv[2]](job, Pace(torch.device(job.device)))


if __name__ == "__main__":
    main()
