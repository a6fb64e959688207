"""Segments a case: preprocessing, network, clean-up, back on the case's own grid."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.ahead import ahead
from brainseg.case import Case, Segmentation

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from brainseg.bundle import Bundle
    from brainseg.frame import Frame


def segment(case: Case, bundle: Bundle | Sequence[Bundle], *, tta: bool = False) -> Segmentation:
    """Mask and probability of the FLAIR abnormality on the grid of `case`.

    Args:
        case: a scan from `brainseg.read_case`.
        bundle: one bundle, or several whose probabilities are averaged; threshold and clean-up are the first one's.
        tta: also look at the mirror image and average, at twice the time.
    """
    steps = _Steps(bundle, tta)
    return steps.masked(steps.seen(steps.framed(case)))


def segment_cases(
    cases: Iterable[Case], bundle: Bundle | Sequence[Bundle], *, tta: bool = False
) -> Iterator[Segmentation]:
    """What `segment` gives of each case, in their order and in less time.

    While one case is in the network, the next is taken from `cases` and made ready for it, and the one before is the
    caller's. So give an iterator that reads when it is asked, as `map(brainseg.read_case, paths)`; three cases are in
    memory at a time. An error of `cases` is raised when it is that case's turn, and is the end.
    """
    steps = _Steps(bundle, tta)
    return map(steps.masked, ahead(steps.seen, ahead(steps.framed, cases)))


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


@dataclass(frozen=True)
class _Look:
    """One bundle's look at a case, or at a slice of it that stands alone."""

    bundle: Bundle
    frame: Frame
    logits: Any = None


@dataclass(frozen=True)
class _Passing:
    """A case on its way: its parts, each with a look of every bundle; and the time spent so far."""

    case: Case
    parts: list[list[_Look]]
    seconds: float


class _Steps:
    """From a case to its segmentation, in three steps that can overlap with those of other cases."""

    def __init__(self, bundle: Bundle | Sequence[Bundle], tta: bool) -> None:
        self._bundles = list(bundle) if isinstance(bundle, Sequence) else [bundle]
        self._tta = tta

    def framed(self, case: Case) -> _Passing:
        """Step 1: in the frame of every network."""
        from brainseg.frame import framed

        started = time.perf_counter()
        alone = range(case.shape[2]) if case.apart else []
        parts = [replace(case, image=case.image[..., z : z + 1]) for z in alone] or [case]
        looks = [[_Look(bundle, framed(_in_mm(part, bundle), bundle)) for bundle in self._bundles] for part in parts]
        return _Passing(case, looks, time.perf_counter() - started)

    def seen(self, passing: _Passing) -> _Passing:
        """Step 2: what the networks say of it."""
        started = time.perf_counter()
        parts = [
            [replace(look, logits=look.bundle.engine.logits(look.frame.image, tta=self._tta)) for look in looks]
            for looks in passing.parts
        ]
        return replace(passing, parts=parts, seconds=passing.seconds + time.perf_counter() - started)

    def masked(self, passing: _Passing) -> Segmentation:
        """Step 3: the mean probability on the case's own grid, and the mask."""
        started = time.perf_counter()
        case, first = passing.case, self._bundles[0]
        pairs = []
        while passing.parts:
            pairs.append(self._mask(passing.parts.pop(0)))
        mask, probability = (
            pairs[0] if len(pairs) == 1 else (np.concatenate(of, axis=2) for of in zip(*pairs, strict=True))
        )
        return Segmentation(
            mask=mask,
            probability=probability,
            affine=case.affine,
            spacing_mm=case.spacing_mm,
            threshold=first.threshold,
            bundle="+".join(one.name for one in self._bundles),
            weights_sha256="+".join(one.weights_sha256 for one in self._bundles),
            bundle_version="+".join(one.version for one in self._bundles),
            seconds=passing.seconds + time.perf_counter() - started,
        )

    def _mask(self, looks: list[_Look]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Empties `looks`, as the clean-up of a large volume needs their memory."""
        pred = looks[0].frame.back(looks[0].logits)
        for look in looks[1:]:
            pred += look.frame.back(look.logits)
        if len(looks) > 1:
            pred /= len(looks)
        looks.clear()
        mask = self._bundles[0].mask({"pred": pred})["pred"][0].numpy().astype(np.uint8)
        return mask, pred[0].numpy().astype(np.float32, copy=False)
