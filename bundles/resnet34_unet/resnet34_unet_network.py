"""U-Nets on a ResNet encoder, which can start from ImageNet weights: MONAI's FlexibleUNet, with or without gates.

Carried by the bundles that use it, each under a module name of its own; needs torch and MONAI only.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import UpCat
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE, FlexibleUNet
from monai.networks.nets.resnet import ResNet, ResNetEncoder

PUBLISHED = {
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}
log = logging.getLogger("brainseg.resnet_unet")  # a name that `brainseg train` shows; it needs no brainseg


class ProjectedResNet34(ResNetEncoder):
    """ResNet-34 with the projection shortcuts of the published weights.

    MONAI's own pads with zeros there and passes no gradient, so that ImageNet's weights would not do what they learned.
    """

    backbone_names = ("resnet34_projected",)

    def __init__(self, model_name: str, pretrained: bool, spatial_dims: int, in_channels: int) -> None:
        ResNet.__init__(
            self,
            "basic",
            [3, 4, 6, 3],
            [64, 128, 256, 512],
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        return [(64, 64, 128, 256, 512)]

    @classmethod
    def num_outputs(cls) -> list[int]:
        return [5]

    @classmethod
    def get_encoder_parameters(cls) -> list[dict[str, Any]]:
        return [{"model_name": cls.backbone_names[0], "pretrained": False, "spatial_dims": 2, "in_channels": 3}]


FLEXUNET_BACKBONE.register_class(ProjectedResNet34)


class GatedUpCat(torch.nn.Module):
    """A step of MONAI's decoder in which the upsampled features gate the encoder's (Oktay et al. 2018)."""

    def __init__(self, step: UpCat, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.upsample = step.upsample
        self.gate = AttentionBlock(spatial_dims=2, f_int=skip_channels // 2, f_g=channels, f_l=skip_channels)
        self.convs = step.convs

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        x = self.upsample(x)
        if skip is not None:
            x = torch.cat([self.gate(x, skip), x], 1)
        return self.convs(x)


class ResNetUNet(FlexibleUNet):
    """2-D FlexibleUNet with the encoder ResNet-34 or ResNet-50: `(N, in_channels, H, W)` to logits `(N, 1, H, W)`.

    Args:
        depth: 34 or 50.
        gated: put an attention gate into every skip connection.
        in_channels: of the image.
        pretrained_encoder: what the encoder starts from: "" for noise, "imagenet" for the published weights, fetched
            where torch.hub has none yet, or a file with torchvision's names and shapes.

    Raises:
        ValueError: a file that is not the state_dict of this encoder.
    """

    def __init__(self, depth: int, gated: bool = False, in_channels: int = 3, pretrained_encoder: str = "") -> None:
        backbone = {34: "resnet34_projected", 50: "resnet50"}[depth]
        super().__init__(in_channels, 1, backbone, is_pad=False)
        if gated:
            skips = FLEXUNET_BACKBONE.register_dict[backbone]["feature_channel"]
            steps = self.decoder.blocks
            for number, skip_channels in enumerate(skips[-2::-1]):
                channels = steps[number].convs.conv_0.conv.in_channels - skip_channels
                steps[number] = GatedUpCat(steps[number], channels, skip_channels)
        self.pretrained = False  # whether the encoder starts from weights that it was given
        if pretrained_encoder:
            state = published(depth) if pretrained_encoder == "imagenet" else read(pretrained_encoder)
            self.pretrained = state is not None
            if state is not None:
                load_encoder(self.encoder, state, pretrained_encoder)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of the size of `inputs`, which is filled up with background to sides that are multiples of 32."""
        height, width = inputs.shape[-2:]
        x = torch.nn.functional.pad(inputs, (0, -width % 32, 0, -height % 32))
        x = self.segmentation_head(self.decoder(self.encoder(x), self.skip_connect))
        return x[..., :height, :width]


def published(depth: int) -> dict[str, torch.Tensor] | None:
    """ImageNet's weights from their well-known address, checked by hash; None, and a line in the log, without them."""
    name = PUBLISHED[depth].rsplit("/", 1)[1]
    cached = Path(torch.hub.get_dir(), "checkpoints", name)  # which torch does not check again
    try:
        if cached.is_file() and not hashlib.sha256(cached.read_bytes()).hexdigest().startswith(name[-12:-4]):
            raise RuntimeError(f"invalid hash value of {cached}: remove it")
        return torch.hub.load_state_dict_from_url(
            PUBLISHED[depth], map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, http.client.HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning("%s: not to be had (%s); the encoder starts from scratch", PUBLISHED[depth], cause)
        return None


def read(path: str) -> dict[str, torch.Tensor]:
    """The state_dict in a file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a plain state_dict ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a state_dict")
    return state


def load_encoder(encoder: torch.nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Puts torchvision's ResNet weights into MONAI's encoder; the names are the same, the classifier `fc` is left out.

    The first convolution's weights are for three channels: for any other number each gets their sum, shared equally.
    """
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    channels = encoder.conv1.in_channels
    if channels != 3 and shape(state, "conv1.weight") == (64, 3, 7, 7):
        state["conv1.weight"] = state["conv1.weight"].sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    own = encoder.state_dict()
    names = {key for key in own.keys() | state.keys() if not key.endswith("num_batches_tracked")}
    wrong = sorted(key for key in names if shape(own, key) != shape(state, key))
    if wrong:
        raise ValueError(
            f"{source}: not this encoder's ({len(wrong)} of {len(names)} tensors differ, {wrong[0]} first)"
        )
    encoder.load_state_dict(state, strict=False)
    log.info("%s: the encoder starts from these weights", source)


def shape(state: dict[str, torch.Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if isinstance(state.get(key), torch.Tensor) else None
