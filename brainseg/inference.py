"""Segments a case: preprocessing, network, clean-up, back on the case's own grid."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
    results = [_probability(case, one, tta) for one in bundles]
    data = results[0]
    if len(results) > 1:
        data["pred"] = sum(result["pred"] for result in results[1:]) + data["pred"]
        data["pred"] /= len(results)
    probability = data["pred"][0].numpy().astype(np.float32, copy=True)
    mask = bundles[0].mask(data)["pred"][0].numpy().astype(np.uint8)
    return Segmentation(
        mask=mask,
        probability=probability,
        affine=case.affine,
        spacing_mm=case.spacing_mm,
        threshold=bundles[0].threshold,
        bundle="+".join(one.name for one in bundles),
        weights_sha256="+".join(one.weights_sha256 for one in bundles),
        bundle_version="+".join(one.version for one in bundles),
        seconds=time.perf_counter() - started,
    )


def _probability(case: Case, bundle: Bundle, tta: bool) -> dict[str, Any]:
    """`{"image", "pred"}` with `pred` the probability `(1, X, Y, Z)` on the native grid."""
    import torch
    from monai.data import MetaTensor

    from brainseg.backends.torch import logits

    affine = case.affine
    if case.spacing_mm is None:  # the bundle takes a slice without spacing to have its own pixel size
        affine = affine @ np.diag([bundle.pixel_mm, bundle.pixel_mm, 1.0, 1.0])
    data: dict[str, Any] = {"image": MetaTensor(torch.from_numpy(case.image), affine=torch.from_numpy(affine))}
    data = bundle.preprocessing(data)
    data["pred"] = logits(bundle, data["image"], tta=tta)
    data = bundle.probability(data)
    data["pred"] = data["pred"].cpu()
    return data
