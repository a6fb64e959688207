"""The same network in a form that costs less on a CPU, and divided where bfloat16 hurts.

A batch norm becomes part of the convolution before it; for PyTorch, an instance norm becomes the group norm of single
channels, which it computes without putting the image into another order. Neither changes what the network computes.
OpenVINO is a third slower with group norms, for the same reason.

bfloat16 has 8 significant bits. Most of what it costs in accuracy it costs in the first layers, where the image itself
is rounded, in the same way over whole regions. So the network is divided into a stem, to be computed in fp32, and the
rest. Where the first convolution takes few pixels the stem is the first layers. Elsewhere fp32 would be slow there, and
the stem only writes each value as the sum of two bfloat16 numbers; the first convolution, with weights written so
too, multiplies all of them but the products of the two small parts, which is what fp32 would give but for 16 bits.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CHANNELS = 3  # of the image
SIDE = 16  # the networks halve a slice four times, so sides are multiples of this
# The architectures whose agreement was measured, and the layers that see the image: all that do, or one convolution.
STEMS = {"AttentionUnet": "model.0.conv.0.conv", "BasicUNet": "conv_0.conv_0.conv", "UNet": "model.0"}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def stem_of(network: nn.Module) -> str | None:
    """Where the stem of `network` is, as a path for `get_submodule`; None for an architecture that is not known."""
    for path, module in network.named_modules():
        if type(module).__name__ in STEMS:
            return ".".join(part for part in (path, STEMS[type(module).__name__]) if part)
    return None


def rewritten(network: nn.Module, *, groups: bool = True) -> nn.Module:
    """A copy of `network` on the CPU, for inference only, that gives the same logits up to rounding.

    Args:
        network: maps an image `(N, 3, H, W)` to logits `(N, 1, H, W)`.
        groups: instance norms as group norms.
    """
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    _fold_batch_norms(network)
    for parent, name, norm in _children(network, nn.InstanceNorm2d) if groups else ():
        if not norm.track_running_stats:
            setattr(parent, name, _group_norm(norm))
    return network


def divided(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Stem and rest of a network that has a stem: `rest(stem(image))` are its logits."""
    path = stem_of(network)
    if path is None:
        raise ValueError(f"expected one of {', '.join(STEMS)}, got {type(network).__name__}")
    rest = copy.deepcopy(network)
    first = rest.get_submodule(path)
    if isinstance(first, nn.Conv2d):
        _replace(rest, first, _of_halves(first))
        return Halves(), rest
    _replace(rest, first, nn.Identity())
    return first, rest


class Halves(nn.Module):
    """An image `(N, C, H, W)` as three, `(N, 3C, H, W)`: rounded to bfloat16, what that lost, and the first again."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """See the class."""
        high = image.bfloat16().to(image.dtype)
        return torch.cat([high, image - high, high], 1)


def _of_halves(convolution: nn.Conv2d) -> nn.Conv2d:
    """`convolution` of an image, as one of its `Halves`."""
    same = copy.deepcopy(convolution)
    high = convolution.weight.bfloat16().float()
    same.in_channels *= 3
    same.weight = nn.Parameter(torch.cat([high, high, convolution.weight - high], 1), requires_grad=False)
    return same


def _group_norm(norm: nn.InstanceNorm2d) -> nn.GroupNorm:
    same = nn.GroupNorm(norm.num_features, norm.num_features, norm.eps, norm.affine).eval().requires_grad_(False)
    same.load_state_dict(norm.state_dict())
    return same


def _fold_batch_norms(network: nn.Module) -> None:
    """Every batch norm that directly follows a convolution, as a run of the network shows, goes into it."""
    came_from: dict[int, nn.Module] = {}
    pairs: list[tuple[Any, Any]] = []
    kept: list[torch.Tensor] = []  # so that no id is used twice

    def look(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d) and id(given[0]) in came_from:
            pairs.append((came_from[id(given[0])], module))
        if isinstance(module, _CONVOLUTIONS):
            came_from[id(result)] = module
        kept.append(result)

    leaves = [module for module in network.modules() if isinstance(module, (*_CONVOLUTIONS, nn.BatchNorm2d))]
    hooks = [module.register_forward_hook(look) for module in leaves]
    try:
        with torch.inference_mode():
            network(torch.zeros(1, CHANNELS, 2 * SIDE, 2 * SIDE))
    finally:
        for hook in hooks:
            hook.remove()
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, nn.ConvTranspose2d))
        _replace(network, convolution, fused.requires_grad_(False))
        _replace(network, norm, nn.Identity())


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent, name, child in _children(network, type(old)):
        if child is old:
            setattr(parent, name, new)


def _children(network: nn.Module, kind: type[Any]) -> list[tuple[nn.Module, str, Any]]:
    return [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
