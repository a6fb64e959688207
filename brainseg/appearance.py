"""What a FLAIR looks like: where the head lies in it, and its grey values, for judging whether it is what it should be.

Measured on the scan turned to LPS and thinned, so that a volume of thin slices takes no longer than one of thick ones.
`scripts/quality_flags.py` fits what is expected, on the patients that the networks were trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, SLICES = 128, 64  # no more than so many pixels and slices are looked at
AIR = 0.1  # of the brightest tissue; what is darker is taken for air
RINGS = 12
LARGE = 0.5  # slices with so much of the largest cross-section hold brain
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Appearance:
    """What is known of the head in a scan.

    Attributes:
        share: part of the scan's voxels that is head.
        aspect: its width (left to right) divided by its length, both in mm or, where that is unknown, in pixels.
        fill: area of its outline seen from above, divided by that of the ellipse of that width and length.
        sides: largest part of the left or right edge of the scan that it touches.
        top: area of its highest slice divided by that of its largest.
        quantiles: `QUANTILES` of its grey values, divided by their mean.
        rings: `(RINGS, 4)` mean, deviation, first and last decile of the grey values at `RINGS` depths from skin to
            centre, divided by their mean, over the upper two thirds of its large slices.
    """

    share: float
    aspect: float
    fill: float
    sides: float
    top: float
    quantiles: NDArray[np.float64]
    rings: NDArray[np.float64]


Head = tuple[NDArray[np.float32], NDArray[np.bool_], list[int], NDArray[np.float64]]


def appearance(flair: NDArray[Any], affine: NDArray[np.float64]) -> Appearance | None:
    """What `flair` (X, Y, Z) with its 4x4 `affine` looks like; None where nothing stands out from the air."""
    found = turned_head(flair, affine, WIDTH, SLICES)
    if found is None:
        return None
    image, head, thin, steps = found
    above: NDArray[np.bool_] = np.any(head, axis=2)
    width, length = (int(np.ptp(np.flatnonzero(above.any(1 - axis)))) + 1 for axis in (0, 1))
    areas = head.sum((0, 1))
    inside = image[head]
    return Appearance(
        share=float(head.mean()),
        aspect=width * thin[0] * steps[0] / (length * thin[1] * steps[1]),
        fill=float(above.sum() / (np.pi / 4 * width * length)),
        sides=float(max(above[0].mean(), above[-1].mean())),
        top=float(areas[-1] / areas.max()),
        quantiles=np.quantile(inside, QUANTILES) / inside.mean(),
        rings=_rings(image, head, areas),
    )


def turned_head(flair: NDArray[Any], affine: NDArray[np.float64], width: int, slices: int) -> Head | None:
    """The scan turned to LPS by whole axes and thinned, and where the head lies in it; None where there is none.

    Args:
        flair: (X, Y, Z).
        affine: 4x4, voxel index to RAS+ mm (or voxels).
        width, slices: no more than so many pixels a side, and slices, are left.

    Returns:
        The image, 0 the darkest; the head, one piece without holes in its slices; of how many voxels along each axis
        one is left, the one in their middle; and the length of a step of the scan along these axes.
    """
    from nibabel import orientations
    from scipy import ndimage

    native = orientations.io_orientation(affine)
    turn = orientations.ornt_transform(native, orientations.axcodes2ornt("LPS"))
    whole = orientations.apply_orientation(np.asarray(flair), turn)
    steps = np.empty(3)
    steps[native[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    thin = [max(1, round(size / most)) for size, most in zip(whole.shape, (width, width, slices), strict=True)]
    some = whole[..., thin[2] // 2 :: thin[2]].astype(np.float32, copy=False)
    smooth = ndimage.uniform_filter(some, (thin[0], thin[1], 1))
    image = smooth[thin[0] // 2 :: thin[0], thin[1] // 2 :: thin[1]]
    image = np.nan_to_num(image - min(0.0, float(image.min())))
    brightest = float(np.percentile(image, 99.8))
    image = np.clip(image, 0, brightest)
    tissue = ndimage.binary_opening(image > AIR * brightest, np.ones((3, 3, 1)))
    for k in range(tissue.shape[2]):
        tissue[..., k] = ndimage.binary_fill_holes(tissue[..., k])
    labels, count = ndimage.label(tissue)
    if not count:
        return None
    head: NDArray[np.bool_] = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return image, head, thin, steps


def _rings(image: NDArray[Any], head: NDArray[np.bool_], areas: NDArray[Any]) -> NDArray[np.float64]:
    from scipy import ndimage

    large = np.flatnonzero(areas > LARGE * areas.max())
    values: list[list[NDArray[Any]]] = [[] for _ in range(RINGS)]
    for k in large[len(large) // 3 :]:
        depth = ndimage.distance_transform_edt(head[..., k])
        ring = np.minimum(depth / depth.max() * RINGS, RINGS - 1).astype(int)
        for number, own in enumerate(values):
            own.append(image[..., k][(ring == number) & head[..., k]])
    joined = [np.concatenate(own) if sum(map(len, own)) else np.zeros(1) for own in values]
    mean = np.concatenate(joined).mean()
    rings: NDArray[np.float64] = np.array([[v.mean(), v.std(), *np.quantile(v, (0.1, 0.9))] for v in joined]) / mean
    return rings
