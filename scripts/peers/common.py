"""What the runners of scripts/benchmark.py share; needs neither brainseg nor, until one is called, anything else.

A runner is started with one argument, its job as JSON, and prints one line of JSON at its end. It imports and loads its
network first, then does the job's patients, and times only that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOLUMES = ("t1.nii.gz", "flair.nii.gz", "t1c.nii.gz")


@dataclass(frozen=True)
class Job:
    """What a runner is to do.

    Attributes:
        data: folder of patients, each a folder of TIFF slices or of `VOLUMES`.
        out: folder that gets a mask.nii.gz for each patient, somewhere below a folder of the patient's name.
        bundle: folder of the MONAI bundle whose network and weights are used.
        threads: of the CPU.
        device: "cpu" or "cuda:0".
        backend: of brainseg.
    """

    data: Path
    out: Path
    bundle: Path
    threads: int = 2
    device: str = "cpu"
    backend: str = "torch"

    @property
    def patients(self) -> list[Path]:
        return sorted(path for path in self.data.iterdir() if path.is_dir())


@dataclass
class Clock:
    """Seconds of the timed section, and of each patient where they come one after another."""

    seconds: float = 0.0
    each: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def patient(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.each[name] = time.perf_counter() - started


def read_job() -> Job:
    """The job on the command line; torch gets its number of threads."""
    import torch

    given = json.loads(sys.argv[1])
    job = Job(**{key: Path(value) if key in ("data", "out", "bundle") else value for key, value in given.items()})
    torch.set_num_threads(job.threads)
    return job


@contextmanager
def timed() -> Iterator[Clock]:
    """Times the block, then prints what there is to report."""
    clock = Clock()
    started = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - started
    print(json.dumps(vars(clock)), flush=True)


def tiff_slices(patient: Path) -> list[Path]:
    """A patient's TIFF slices from foot to head, without the masks; empty where the patient is in volumes."""
    found = [path for path in patient.glob("*.tif") if not path.stem.endswith("_mask")]
    return sorted(found, key=lambda path: int(path.stem.rsplit("_", 1)[1]))


def open_network(bundle: Path, device: str) -> tuple[Any, Callable[[str], Any]]:
    """The bundle's network with its weights, ready, and what looks up a setting of its configs.

    `setting("look")` makes of it one that looks at slices as often as the bundle does: logits `(N, looks, X, Y)`.
    """
    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True))
    return network.to(device).eval(), parser.get_parsed_content


def normalised(volume: Any) -> Any:
    """A volume `(Z, Y, X, 3)` scaled as the bundles do, `(Z, 3, Y, X)`: 0 to 1 over the mean of the head."""
    import numpy as np

    channels = []
    for channel in np.moveaxis(volume.astype(np.float32), 3, 0):
        low, high = (float(value) for value in np.percentile(channel, (1, 99.8)))  # else all becomes double
        channel = np.clip((channel - low) / max(high - low, 1e-6), 0, 1)
        head = channel[channel > channel.mean()]
        channels.append(channel / (head.mean() if head.size else 1))
    return np.stack(channels, 1)


def shared_with_neighbours(logits: Any) -> Any:
    """Logits `(looks, X, Y, Z)`, each slice's averaged with those above and below it, as the bundles have it."""
    import torch

    below = torch.cat([logits[..., :1], logits[..., :-1]], -1)
    above = torch.cat([logits[..., 1:], logits[..., -1:]], -1)
    return logits / 2 + (below + above) / 4


def without_unsure_lesions(probability: Any, threshold: float, least: float) -> Any:
    """`(1, X, Y, Z)` with 0 in lesions whose mean probability is below `least`, but for that with most of one half."""
    import numpy as np
    import torch
    from skimage import measure

    array = np.asarray(probability[0])
    parts = measure.label(array >= threshold)
    lesions = measure.regionprops(parts, array)
    surest = max(lesions, key=lambda one: ((one.image_intensity >= 0.5).sum(), one.area), default=None)
    unsure = [one.label for one in lesions if one.intensity_mean < least and one is not surest]
    return probability * torch.from_numpy(~np.isin(parts, unsure))
