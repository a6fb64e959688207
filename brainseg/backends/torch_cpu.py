"""PyTorch on a CPU with the network rewritten, channels last, and in bfloat16 where the CPU has it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from brainseg.backends.rewrite import divided
from brainseg.backends.slices import SliceEngine
from brainseg.backends.together import together

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
        return together(lambda one: self._rest(rest, stem(one)), slices)

    def _rest(self, rest: nn.Module, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return rest(features).float()  # type: ignore[no-any-return]

    @cached_property
    def _divided(self) -> tuple[nn.Module, nn.Module]:
        return divided(self.network)
