"""PyTorch through the bundle's own inferer; on a GPU in fp16 and many slices at once, fewer when its memory runs out.

On a CPU this is the reference that the other engines are held against.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from brainseg.backends.memory import keep_memory

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

log = logging.getLogger(__name__)

GPU_BATCH = 32  # slices; a slice alone leaves a GPU idle


class TorchEngine:
    """The bundle's network as it is; see `brainseg.backends.Engine`.

    When a GPU runs out of memory the windows go one by one, then the CPU takes over; either is logged.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._network, self._inferer, self._device = bundle.network, bundle.inferer, bundle.device
        self._look = bundle.look
        self.name = "torch-fp32" if bundle.device.type == "cpu" else "torch-fp16"

    def logits(self, image: Any, *, tta: bool = False) -> torch.Tensor:
        """As `brainseg.backends.Engine.logits`."""
        attempts: list[tuple[torch.device, int | None]] = [(self._device, None)]
        if self._device.type == "cuda":
            attempts = [(self._device, GPU_BATCH), (self._device, 1), (torch.device("cpu"), None)]
        for attempt, (device, window_batch) in enumerate(attempts):
            try:
                return self._logits(image, device, window_batch, tta)
            except torch.cuda.OutOfMemoryError:
                if attempt == len(attempts) - 1:
                    raise
                torch.cuda.empty_cache()
                log.warning("the GPU is out of memory; going on %s", ("with smaller windows", "on the CPU")[attempt])
            finally:
                if device != self._device:
                    with suppress(torch.cuda.OutOfMemoryError):  # the next case tries again
                        self._network.to(self._device)
        raise AssertionError("unreachable")

    def _logits(self, image: Any, device: torch.device, window_batch: int | None, tta: bool) -> torch.Tensor:
        if device.type == "cpu":
            keep_memory()
        network: Any = self._network.to(device)
        if device.type == "cuda":
            network = lambda slices: self._network(channels_last(slices))  # noqa: E731
        network = self._look(network)
        batch = image[None].to(device)
        inferer: Any = self._inferer
        usual = inferer.sw_batch_size
        inferer.sw_batch_size = window_batch or usual
        try:
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                result = inferer(batch, network)
                if tta:
                    mirrored = inferer(torch.flip(batch, (2,)), network)
                    result = (result + torch.flip(mirrored, (2,))) / 2
        finally:
            inferer.sw_batch_size = usual
        return result[0].float()  # type: ignore[no-any-return]


def channels_last(image: torch.Tensor) -> torch.Tensor:
    """`image` `(N, C, H, W)` as convolutions like it best, on a CPU and, in half precision, on a GPU."""
    return image.contiguous(memory_format=torch.channels_last)
