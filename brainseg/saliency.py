"""What the network looked at on one slice: occlusion sensitivity, the same for every network.

A square of the slice is hidden behind the mean grey of the head, in all sequences at once, and the network looks again:
what it marked it may now be less sure of (Zeiler and Fergus, Visualizing and understanding convolutional networks,
ECCV 2014). It names no layer, so it needs nothing of a network's own. GradCAM weights feature maps by the mean of their
gradient, and an instance norm takes a map's mean away: in `basic_unet` the gradients at the lowest resolution cancel to
a fiftieth of their size, and what is left says little.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Case
from brainseg.errors import InputError, UsageError
from brainseg.inference import preprocessed, segment
from brainseg.measures import axial_axis

if TYPE_CHECKING:
    import torch

    from brainseg.bundle import Bundle, Network

SQUARE = 32  # side of what is hidden, in pixels of the network's frame
OVERLAP = 0.5
HIDDEN = 1.0  # the mean of the head, as the bundles normalise it
LEAST_SQUARE = 4


@dataclass(frozen=True)
class Saliency:
    """How much the network's answer on one slice hangs on each part of it.

    Attributes:
        drop: float32 `(X, Y, Z)` on the grid of the case, 0 outside the slice: how far the mean logit of `target` falls
            while a voxel is hidden, on average over the squares that hide it; negative where it rises.
        marked: whether the network marks anything on the slice; else the mean is that of the whole slice.
        square_mm: side of the square; None where the spacing is unknown.
        square_pixels: the same in pixels of the network's frame.
    """

    drop: NDArray[np.float32]
    marked: bool
    square_mm: float | None
    square_pixels: int


def occlusion_saliency(case: Case, bundle: Bundle, place: int) -> Saliency:
    """Saliency of one axial slice; `place` counts from 0 at the foot.

    The network's own logits of the slice are meant, before they are shared with its neighbours and cleaned up; the
    mean of them where the bundle looks at it more than once.

    Raises:
        InputError: a slice too small to hide a part of.
        IndexError: no such slice.
    """
    import torch
    from monai.transforms import Invertd
    from monai.visualize import OcclusionSensitivity

    data = preprocessed(case, bundle)
    frame = data["image"]
    if not 0 <= place < frame.shape[-1]:
        raise IndexError(f"place must be 0 to {frame.shape[-1] - 1}, got {place}")
    image = frame.as_tensor()[None, ..., place].contiguous().to(bundle.device)
    square = min(SQUARE, *(side // 2 for side in image.shape[2:]))
    if square < LEAST_SQUARE:
        raise InputError(case.name, "its slices are too small to hide a part of", "give a whole head")
    look = bundle.look(bundle.network)
    with torch.inference_mode():
        marked = torch.sigmoid(look(image) / bundle.temperature).mean(1) >= bundle.threshold
        target = marked if marked.any() else torch.ones_like(marked)
        answer = _mean_logit(look, target)
        hide = OcclusionSensitivity(
            answer,
            mask_size=square,
            n_batch=2 if bundle.device.type == "cpu" else 16,
            verbose=False,
            mode=HIDDEN,
            overlap=OVERLAP,
            activate=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)  # MONAI's, of torch
            hidden, _ = hide(image)
        drop = torch.zeros_like(frame[:1])  # with the metadata that the way back needs
        drop[..., place] = (answer(image)[0] - hidden[0]).as_tensor().float().cpu()
    data["pred"] = drop
    back = Invertd(keys="pred", orig_keys="image", transform=bundle.preprocessing, nearest_interp=False, to_tensor=True)
    native: NDArray[np.float32] = back(data)["pred"][0].cpu().numpy().astype(np.float32)
    in_mm = case.spacing_mm is not None
    return Saliency(native, bool(marked.any()), square * bundle.pixel_mm if in_mm else None, square)


def show_saliency(case: Case, bundle: Bundle, out: Path, *, number: int | None = None) -> Path:
    """Writes `out/<case>/saliency_<number>.png` of one slice and returns its path.

    Args:
        case: a scan.
        bundle: whose network is asked.
        out: folder for the results.
        number: of the slice, counted from 1 as in slices.csv; without it the slice with most mask, or the middle one.

    Raises:
        UsageError: no slice of that number.
        InputError: a slice too small to hide a part of.
    """
    from brainseg.axial import axial_slices
    from brainseg.writers.saliency import write_saliency

    count = case.shape[axial_axis(case.affine)]
    if number is not None and not 1 <= number <= count:
        raise UsageError("--slice", f"there is no slice {number}", f"give 1 to {count}")
    mask = segment(case, bundle).mask
    slices = list(axial_slices(case, mask))
    if number is None:
        place = max(range(len(slices)), key=lambda k: (np.count_nonzero(slices[k].mask), -abs(2 * k + 1 - len(slices))))
    else:
        place = next(k for k, one in enumerate(slices) if one.number == number)
    path = out / case.name / f"saliency_{slices[place].number:03d}.png"
    write_saliency(path, case, mask, occlusion_saliency(case, bundle, place), place, bundle.name)
    return path


def _mean_logit(look: Network, target: torch.Tensor) -> torch.nn.Module:
    """`look` with one number an image for an answer, `(N, 1)`: its mean logit over `target` (1, H, W)."""
    import torch

    class MeanLogit(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            mean: torch.Tensor = (look(image).mean(1) * target).sum((-2, -1)) / target.sum()
            return mean[:, None]

    return MeanLogit().eval()
