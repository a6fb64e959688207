"""A volume in a bundle's frame, and a prediction there back on the volume's own grid.

A bundle's `preprocessing` and `probability` do both. MONAI resamples in double precision, with the place of every voxel
in memory, which takes some ten times the volume. The network's frame keeps a scan's slices, so for a large volume the
same transforms are given some slices at a time, and what needs all of it (percentiles, the crop to the head) comes
between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, Spacingd

from brainseg.backends.memory import release_memory

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

LARGE_VOXELS = 2**24  # of one channel: 64 slices of 512 x 512
SLAB_VOXELS = 2**21


class Frame(Protocol):
    """Attributes:
    image: the volume in the network's frame, `(3, X, Y, Z)`.
    """

    image: Any

    def back(self, logits: torch.Tensor) -> torch.Tensor:
        """The probability that `bundle.probability` makes of logits `(1, X, Y, Z)` there, on the volume's own grid."""
        ...


def framed(image: MetaTensor, bundle: Bundle) -> Frame:
    """`image` `(3, X, Y, Z)`, whose affine says where it is, in the frame of `bundle`."""
    divided = _divided(bundle) if image[0].numel() > LARGE_VOXELS else None
    if divided is not None:
        return _Slabs(image, *divided)
    try:
        return _Whole(image.to(bundle.device), bundle)
    except torch.cuda.OutOfMemoryError:
        return _Whole(image, bundle)


class _Whole:
    def __init__(self, image: MetaTensor, bundle: Bundle) -> None:
        self._bundle = bundle
        self._data = bundle.preprocessing({"image": image})
        self.image = self._data["image"]

    def back(self, logits: torch.Tensor) -> torch.Tensor:
        try:
            return self._probability(logits)
        except torch.cuda.OutOfMemoryError:
            return self._probability(logits.cpu())

    def _probability(self, logits: torch.Tensor) -> torch.Tensor:
        return self._bundle.probability({**self._data, "pred": logits})["pred"].cpu()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Slab:
    """Slices of the volume, where they are in it, and what was done to bring them into the frame."""

    place: tuple[slice, ...]
    slices: int
    affine: torch.Tensor
    done: list[Any]


class _Slabs:
    def __init__(self, image: MetaTensor, turn: Compose, rest: Compose, activate: Compose) -> None:
        self._turn, self._activate = turn, activate
        self._shape, self._native = image.shape[1:], image.affine
        parts, self._slabs = [], []
        for place, slab in _cut(image):
            part = turn({"image": slab})["image"]
            parts.append(part.as_tensor())
            self._slabs.append(_Slab(place, part.shape[-1], part.affine, part.applied_operations))
        self._data = rest({"image": MetaTensor(torch.cat(parts, -1), affine=self._slabs[0].affine)})
        self._uncrop = Invertd("pred", rest, orig_keys="image", nearest_interp=False)
        self.image = self._data["image"]
        del parts
        release_memory()

    def back(self, logits: torch.Tensor) -> torch.Tensor:
        release_memory()
        there = self._uncrop(self._activate({**self._data, "pred": logits}))["pred"]
        result = torch.empty((1, *self._shape))
        slabs = torch.split(there.as_tensor().cpu(), [slab.slices for slab in self._slabs], -1)
        for slab, pred in zip(self._slabs, slabs, strict=True):
            part = MetaTensor(pred, affine=slab.affine, applied_operations=slab.done)
            result[slab.place] = self._turn.inverse({"image": part})["image"].as_tensor()
        return MetaTensor(result, affine=self._native)  # type: ignore[no-any-return]


def _divided(bundle: Bundle) -> tuple[Compose, Compose, Compose] | None:
    """What turns and resamples each slice by itself, what follows, and what makes probabilities of logits.

    None where a bundle that is not brainseg's does it in another way.
    """
    if not (isinstance(bundle.preprocessing, Compose) and isinstance(bundle.probability, Compose)):
        return None
    steps, after = bundle.preprocessing.flatten().transforms, bundle.probability.flatten().transforms
    turning = list(takewhile(_keeps_slices, steps))
    if not turning or not after or not isinstance(after[-1], Invertd):
        return None
    return Compose(turning), Compose(steps[len(turning) :]), Compose(after[:-1])


def _keeps_slices(step: Any) -> bool:
    return isinstance(step, Orientationd) or (isinstance(step, Spacingd) and step.spacing_transform.pixdim[2] <= 0)


def _cut(image: MetaTensor) -> Iterator[tuple[tuple[slice, ...], MetaTensor]]:
    """Slabs of `image`, from foot to head, and where in it each is."""
    from nibabel.orientations import io_orientation

    turned = io_orientation(image.affine.numpy())
    axis = int((turned[:, 0] == 2).argmax())
    upwards = turned[axis, 1] > 0
    count = image.shape[1 + axis]
    thick = max(1, SLAB_VOXELS * count // image[0].numel())
    starts = range(0, count, thick)
    for start in starts if upwards else reversed(starts):
        place = [slice(None)] * 4
        place[1 + axis] = slice(start, min(start + thick, count))
        affine = image.affine.clone()
        affine[:3, 3] += start * affine[:3, axis]
        yield tuple(place), MetaTensor(image.as_tensor()[tuple(place)], affine=affine)
