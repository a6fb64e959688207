"""The default engine: PyTorch on a CPU or GPU; on a GPU in bf16, with smaller batches when memory runs out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

log = logging.getLogger(__name__)


def logits(bundle: Bundle, image: Any, *, tta: bool = False) -> torch.Tensor:
    """Logits `(1, X, Y, Z)` of a preprocessed `image` `(3, X, Y, Z)`, float32.

    With `tta` the mean of the logits of the image and of its mirror image (left and right exchanged).
    When a GPU runs out of memory the windows go one by one, then the CPU takes over; either is logged.
    """
    attempts: list[tuple[torch.device, int | None]] = [(bundle.device, None)]
    if bundle.device.type == "cuda":
        attempts += [(bundle.device, 1), (torch.device("cpu"), None)]
    for attempt, (device, window_batch) in enumerate(attempts):
        try:
            return _logits(bundle, image, device, window_batch, tta)
        except torch.cuda.OutOfMemoryError:
            if attempt == len(attempts) - 1:
                raise
            torch.cuda.empty_cache()
            log.warning("the GPU is out of memory; going on %s", ("with smaller windows", "on the CPU")[attempt])
        finally:
            if device != bundle.device:
                bundle.network.to(bundle.device)
    raise AssertionError("unreachable")


def _logits(bundle: Bundle, image: Any, device: torch.device, window_batch: int | None, tta: bool) -> torch.Tensor:
    network = bundle.network.to(device)
    batch = image[None].to(device)
    inferer = bundle.inferer
    usual = inferer.sw_batch_size  # type: ignore[attr-defined]
    inferer.sw_batch_size = window_batch or usual  # type: ignore[attr-defined]
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            result = inferer(batch, network)
            if tta:
                mirrored = inferer(torch.flip(batch, (2,)), network)
                result = (result + torch.flip(mirrored, (2,))) / 2
    finally:
        inferer.sw_batch_size = usual  # type: ignore[attr-defined]
    return result[0].float().to(bundle.device)  # type: ignore[no-any-return]
