"""One network on slices of 256x256 that are in memory, or (`what` is "peak") the fastest convolution of the machine.

Prints seconds and FLOP a slice, or the FLOP a second in fp32 and bf16. `what` is "brainseg" (the job's bundle through
its backend), "torch" (the same network as it is), "smp" or "buda". A GPU is timed by its own events.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from typing import Any

import torch
from common import open_network, read_job
from torch.utils.flop_counter import FlopCounterMode

SIDE = 256
SLICES = {"cpu": 4, "cuda": 32}
REPEATS = 5
CONVOLUTIONS = ((64, 128), (128, 64), (256, 32), (512, 32))  # channels in and out, pixels a side


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Median time of a call, after two that warm up."""
    for _ in range(2):
        run()
    times = []
    for _ in range(REPEATS):
        if device == "cpu":
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        else:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
    return median(times)


def flop_of(network: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(batch)
    return counter.get_total_flops()


def peak(device: str) -> dict[str, float]:
    """FLOP a second of the fastest 3x3 convolution, for each kind of number."""
    rates: dict[str, float] = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for channels, side in CONVOLUTIONS:
            layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layer = layer.to(device, kind, memory_format=torch.channels_last)
            image = torch.randn(SLICES[device.split(":")[0]], channels, side, side).to(device, kind)
            image = image.to(memory_format=torch.channels_last)
            flop = flop_of(layer, image)
            rates[name] = max(rates.get(name, 0.0), flop / seconds_of(lambda layer=layer, x=image: layer(x), device))
    return rates


def main() -> None:
    what, job = sys.argv[2], read_job()
    kind = job.device.split(":")[0]
    if what == "peak":
        with torch.inference_mode():
            print(json.dumps(peak(job.device)))
        return
    batch = torch.rand(SLICES[kind], 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(job.device)
    if what == "brainseg":
        from ours import choice, logits

        from brainseg import open_bundle

        chosen = choice(job)
        bundle = open_bundle(chosen.pop("bundle"), **chosen)
        network, image = bundle.look(bundle.network), batch.permute(1, 2, 3, 0).contiguous()
        run = lambda: logits(bundle, image)  # noqa: E731
    else:
        if what == "torch":
            plain, setting = open_network(job.bundle, job.device)
            network = setting("look")(plain)
        else:
            module = import_module(f"{what}_unet")
            network = (module.network() if what == "smp" else module.UNet()).to(job.device).eval()
        run = lambda: network(batch)  # noqa: E731
    flop = flop_of(network, batch) / len(batch)
    with torch.inference_mode():
        print(json.dumps({"seconds": seconds_of(run, kind) / len(batch), "flop": flop}))


if __name__ == "__main__":
    main()
