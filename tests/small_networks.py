"""Networks of the shipped architectures with few channels, and weights that no initialisation leaves simple."""

from __future__ import annotations

import torch
from monai.networks.nets import AttentionUnet, BasicUNet, UNet
from torch import nn

NAMES = ("attention_unet", "basic_unet", "residual_unet")


def small_network(name: str) -> nn.Module:
    """The architecture of the shipped bundle `name`; the same weights each time."""
    torch.manual_seed(0)
    five = {"channels": (8, 8, 16, 16, 16), "strides": (2, 2, 2, 2)}
    network: nn.Module
    if name == "attention_unet":
        network = AttentionUnet(2, 3, 1, **five)
    elif name == "basic_unet":
        network = BasicUNet(2, 3, 1, features=(8, 8, 16, 16, 16, 8))
    else:
        unet = UNet(2, 3, 16, **five, num_res_units=2, norm="BATCH", act="LEAKYRELU")
        network = nn.Sequential(unet, nn.Conv2d(16, 1, 1))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


def small_image(slices: int = 4, *, side: int = 64) -> torch.Tensor:
    """`(3, side, side + 16, slices)` of smooth brightness, no slice of it blank."""
    torch.manual_seed(1)
    coarse = torch.rand(slices, 3, side // 8, side // 8 + 2)
    fine = nn.functional.interpolate(coarse, (side, side + 16), mode="bilinear")
    return fine.permute(1, 2, 3, 0).contiguous() * 2
