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
    from monai.data import MetaTensor

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
    results = [_segmented(one, bundles, tta) for one in slices]
    mask, probability = (
        results[0] if len(results) == 1 else (np.concatenate(of, axis=2) for of in zip(*results, strict=True))
    )
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


def remask(segmentation: Segmentation, bundle: Bundle) -> Segmentation:
    """The mask that `bundle`'s threshold and clean-up make of a probability that is there already; runs no network."""
    import torch
    from monai.data import MetaTensor

    pred = MetaTensor(torch.from_numpy(segmentation.probability)[None], affine=torch.from_numpy(segmentation.affine))
    mask = bundle.mask({"pred": pred})["pred"][0].numpy().astype(np.uint8)
    return replace(segmentation, mask=mask, threshold=bundle.threshold)


def preprocessed(case: Case, bundle: Bundle) -> dict[str, Any]:
    """`{"image"}`: `(3, X, Y, Z)` in the network's frame, whose slices are those of the case from foot to head."""
    return bundle.preprocessing({"image": _in_mm(case, bundle)})


def _in_mm(case: Case, bundle: Bundle) -> MetaTensor:
    """The case's image; the bundle takes a slice without spacing to have its own pixel size."""
    import torch
    from monai.data import MetaTensor

    affine = case.affine
    if case.spacing_mm is None:
        pixel_mm = bundle.pixel_mm / case.finer
        affine = affine @ np.diag([pixel_mm, pixel_mm, 1.0, 1.0])
    return MetaTensor(torch.from_numpy(case.image), affine=torch.from_numpy(affine))


def _segmented(case: Case, bundles: Sequence[Bundle], tta: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mask and mean probability, (X, Y, Z)."""
    pred = _probability(case, bundles[0], tta)
    for other in bundles[1:]:
        pred += _probability(case, other, tta)
    if len(bundles) > 1:
        pred /= len(bundles)
    mask = bundles[0].mask({"pred": pred})["pred"][0].numpy().astype(np.uint8)
    return mask, pred[0].numpy().astype(np.float32, copy=False)


def _probability(case: Case, bundle: Bundle, tta: bool) -> MetaTensor:
    """`(1, X, Y, Z)` on the native grid."""
    from brainseg.frame import framed

    frame = framed(_in_mm(case, bundle), bundle)
    return frame.back(bundle.engine.logits(frame.image, tta=tta))
