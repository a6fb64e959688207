"""Segments a case: preprocessing, network, clean-up, back on the case's own grid."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Case, Segmentation

if TYPE_CHECKING:
    from brainseg.bundle import Bundle


def segment(case: Case, bundle: Bundle | Sequence[Bundle], *, tta: bool = False) -> Segmentation:
    """Mask and probability of the FLAIR abnormality on the grid of `case`.

    Args:
        case: a scan from `brainseg.read_case`.
        bundle: one bundle, or several whose probabilities are averaged; threshold and clean-up are the first one's.
        tta: also look at the mirror image and average, at twice the time.
    """
    started = time.perf_counter()
    bundles = list(bundle) if isinstance(bundle, Sequence) else [bundle]
    slices = [replace(case, image=case.image[..., z : z + 1]) for z in range(case.shape[2])] if case.apart else [case]
    masks, probabilities = zip(*(_segmented(one, bundles, tta) for one in slices), strict=True)
    return Segmentation(
        mask=np.concatenate(masks, axis=2),
        probability=np.concatenate(probabilities, axis=2),
        affine=case.affine,
        spacing_mm=case.spacing_mm,
        threshold=bundles[0].threshold,
        bundle="+".join(one.name for one in bundles),
        weights_sha256="+".join(one.weights_sha256 for one in bundles),
        bundle_version="+".join(one.version for one in bundles),
        seconds=time.perf_counter() - started,
    )


def remask(segmentation: Segmentation, bundle: Bundle) -> Segmentation:
    """The mask that `bundle`'s threshold and clean-up make of a probability that is there already; runs no network."""
    import torch
    from monai.data import MetaTensor

    pred = MetaTensor(torch.from_numpy(segmentation.probability)[None], affine=torch.from_numpy(segmentation.affine))
    mask = bundle.mask({"pred": pred})["pred"][0].numpy().astype(np.uint8)
    return replace(segmentation, mask=mask, threshold=bundle.threshold)


def _segmented(case: Case, bundles: Sequence[Bundle], tta: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mask and mean probability, (X, Y, Z)."""
    results = [_probability(case, one, tta) for one in bundles]
    data = results[0]
    if len(results) > 1:
        data["pred"] = sum(result["pred"] for result in results[1:]) + data["pred"]
        data["pred"] /= len(results)
    probability = data["pred"][0].numpy().astype(np.float32, copy=True)
    return bundles[0].mask(data)["pred"][0].numpy().astype(np.uint8), probability


def preprocessed(case: Case, bundle: Bundle) -> dict[str, Any]:
    """`{"image"}`: `(3, X, Y, Z)` in the network's frame, whose slices are those of the case from foot to head."""
    import torch
    from monai.data import MetaTensor

    affine = case.affine
    if case.spacing_mm is None:  # the bundle takes a slice without spacing to have its own pixel size
        pixel_mm = bundle.pixel_mm / case.finer
        affine = affine @ np.diag([pixel_mm, pixel_mm, 1.0, 1.0])
    data: dict[str, Any] = {"image": MetaTensor(torch.from_numpy(case.image), affine=torch.from_numpy(affine))}
    return bundle.preprocessing(data)


def _probability(case: Case, bundle: Bundle, tta: bool) -> dict[str, Any]:
    """`{"image", "pred"}` with `pred` the probability `(1, X, Y, Z)` on the native grid."""
    data = preprocessed(case, bundle)
    data["pred"] = bundle.engine.logits(data["image"], tta=tta)
    data = bundle.probability(data)
    data["pred"] = data["pred"].cpu()
    return data
