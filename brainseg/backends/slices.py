"""What the CPU engines share: a volume slice by slice, and a second look in fp32 where the first one is unsure."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from brainseg.backends.rewrite import SIDE, rewritten
from brainseg.backends.together import together
from brainseg.backends.torch import TorchEngine

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

# A voxel whose logit in bfloat16 is this near the threshold may be on the other side in fp32; this share of them is.
# The slices with most of them are computed again, until so few are left that Dice stays above the bound, by as many
# standard deviations of what chance makes of that share. The logits are those that the bundle cuts, shared with the
# slices above and below (`probability` in base.yaml).
NEAR = 0.05
FLIPPED = 0.15
LEAST_DICE = 0.999
DEVIATIONS = 3.0


class SliceEngine:
    """Runs a 2-D network on each slice of a volume; see `brainseg.backends.Engine`.

    Blank slices are computed once. A volume whose sides are no multiples of 16, which no bundle's own preprocessing
    makes unless it takes slices whole, goes through PyTorch.
    """

    name: str

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.name = name
        self._bundle = bundle
        # The bundle's threshold in logits.
        self._level = (
            math.log(bundle.threshold / (1 - bundle.threshold)) * bundle.temperature
            if (0 < bundle.threshold < 1)
            else math.nan
        )

    def quick(self, slices: torch.Tensor) -> torch.Tensor:
        """Logits `(N, 1, H, W)` of slices `(N, 3, H, W)`, as fast as the engine can."""
        raise NotImplementedError

    def exact(self, slices: torch.Tensor) -> torch.Tensor:
        """The same in fp32, by PyTorch."""
        return together(self.network, slices)

    @cached_property
    def network(self) -> nn.Module:
        """The bundle's network rewritten, in fp32, channels last."""
        return rewritten(self._bundle.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def rounds(self) -> bool:
        """Whether `quick` is less exact than `exact`."""
        return "bf16" in self.name

    def logits(self, image: Any, *, tta: bool = False) -> torch.Tensor:
        """As `brainseg.backends.Engine.logits`."""
        if any(side % SIDE for side in image.shape[1:3]):
            return TorchEngine(self._bundle).logits(image, tta=tta)
        slices = image.as_tensor() if hasattr(image, "as_tensor") else image
        slices = slices.float().permute(3, 0, 1, 2).contiguous()
        with torch.inference_mode():
            result = self._all(slices)
            if tta:
                result = (result + self._all(slices.flip(2)).flip(2)) / 2
        return result.permute(1, 2, 3, 0).contiguous().clone()

    def _all(self, slices: torch.Tensor) -> torch.Tensor:
        logits = self._each(slices)
        if self.rounds:
            again = unsure(logits, self._level, self._bundle.temperature)
            if len(again):
                logits[again] = self._bundle.look(self.exact)(slices[again])
        return logits

    def _each(self, slices: torch.Tensor) -> torch.Tensor:
        quick: Callable[[torch.Tensor], torch.Tensor] = self._bundle.look(self.quick)
        blank = ~slices.flatten(1).any(1)
        if int(blank.sum()) < 2:
            return quick(slices)
        nothing = int(blank.int().argmax())  # the first stands for all
        wanted = ~blank
        wanted[nothing] = True
        logits = quick(slices[wanted])
        place = int(wanted[:nothing].sum())
        result: torch.Tensor = logits[place : place + 1].repeat(len(slices), 1, 1, 1)
        result[wanted] = logits
        return result


def unsure(logits: torch.Tensor, level: float, temperature: float) -> torch.Tensor:
    """Numbers of the slices of `logits` `(N, looks, H, W)` to compute again: those with most voxels near `level`.

    In the other slices at most `may_be_near` voxels are left near it. With a slice go those above and below, which it
    shares with.
    """
    places = torch.arange(len(logits))
    below, above = (places - 1).clamp(min=0), (places + 1).clamp(max=len(logits) - 1)
    shared = logits / 2 + (logits[below] + logits[above]) / 4
    if shared.shape[1] > 1:  # the logit of the mean probability
        shared = torch.logit(torch.sigmoid(shared / temperature).mean(1, keepdim=True)) * temperature
    near = ((shared - level).abs() < NEAR).flatten(1).sum(1)
    order = near.argsort(stable=True)
    chosen = order[near[order].cumsum(0) > may_be_near(_surest(shared[:, 0], level))]
    return torch.tensor(sorted({*below[chosen].tolist(), *chosen.tolist(), *above[chosen].tolist()}), dtype=torch.long)


def _surest(logits: torch.Tensor, level: float) -> int:
    """Voxels of the part of `logits` `(N, H, W)` over `level` that the clean-up is certain to keep.

    It is the one with most voxels of a probability of one half or more (`surest` in base.yaml).
    """
    from scipy import ndimage

    labels, count = ndimage.label(logits.numpy() >= level)
    sizes, sure = (np.bincount(labels[part], minlength=count + 1)[1:] for part in (labels > 0, logits.numpy() >= 0))
    return max(zip(sure.tolist(), sizes.tolist(), strict=True), default=(0, 0))[1]


def may_be_near(marked: int) -> float:
    """How many voxels may lie near the threshold of a mask of `marked` voxels.

    Dice loses 1 / (2 marked) with every voxel that is on the other side, so 2 marked (1 - LEAST_DICE) may be. Chance
    puts n + DEVIATIONS sqrt(n) there where n are expected.
    """
    most = 2 * marked * (1 - LEAST_DICE)
    expected = ((math.sqrt(DEVIATIONS**2 + 4 * most) - DEVIATIONS) / 2) ** 2
    return expected / FLIPPED
