"""PyTorch on a CPU with the network rewritten, channels last, and in bfloat16 where the CPU has it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from brainseg.backends.memory import keep_memory
from brainseg.backends.rewrite import divided, rewritten
from brainseg.backends.slices import SliceEngine

if TYPE_CHECKING:
    from brainseg.bundle import Bundle


class RewrittenEngine(SliceEngine):
    """See `brainseg.backends.rewrite`; for networks that have a stem."""

    def __init__(self, bundle: Bundle, *, bf16: bool) -> None:
        super().__init__(bundle, f"torch-rewritten-{'bf16' if bf16 else 'fp32'}")

    def quick(self, slices: torch.Tensor) -> torch.Tensor:
        """See `SliceEngine`."""
        if not self.rounds:
            return self.exact(slices)
        stem, rest = self._divided
        keep_memory()
        return torch.cat([self._rest(rest, stem(_channels_last(one))) for one in torch.split(slices, 1)])

    def exact(self, slices: torch.Tensor) -> torch.Tensor:
        """See `SliceEngine`."""
        keep_memory()
        return torch.cat([self._network(_channels_last(one)).contiguous() for one in torch.split(slices, 1)])

    def _rest(self, rest: nn.Module, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return rest(features).float().contiguous()  # type: ignore[no-any-return]

    @cached_property
    def _network(self) -> nn.Module:
        return rewritten(self._bundle.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @cached_property
    def _divided(self) -> tuple[nn.Module, nn.Module]:
        return divided(self._network)


def _channels_last(image: torch.Tensor) -> torch.Tensor:
    return image.contiguous(memory_format=torch.channels_last)
