"""Volumes, lesions, overlap and surface distance of masks: pure functions on the scan's own grid.

Masks are arrays whose nonzero voxels count; `spacing_mm` has one positive number an axis. Where the spacing is unknown
the caller passes `(1, 1, 1)` and reads every length as voxels.

Empty masks. A ratio of nothing to nothing is NaN, never a flattering 1.0, so two empty masks have NaN overlap and NaN
distance. When exactly one of prediction and truth is empty, `dice`, `iou` and `surface_dice` are 0 and `hd95` is
infinite (a finite stand-in would depend on the field of view, and NaN would drop the worst cases from an average);
`precision` of an empty prediction and `recall` of an empty truth are NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Spacing
from brainseg.midline import Midline, side_of

Array = NDArray[Any]
Triple = tuple[float, float, float]
Box = tuple[Triple, Triple]

MM3_PER_ML = 1000.0
CONNECTIVITY = np.ones((3, 3, 3), bool)  # 26 neighbours: voxels that touch at a corner belong together


@dataclass(frozen=True)
class Lesion:
    """One connected component of a mask.

    Attributes:
        voxels: number of voxels.
        volume_ml: millilitres; None where the spacing is unknown.
        centroid_voxel: mean voxel index along X, Y, Z, counted from 0.
        centroid_mm: the same point in RAS+ mm; None where the spacing is unknown.
        diameter_mm: longest diameter within one axial slice, edge to edge; None where the spacing is unknown.
        diameter_pixels: the same, every pixel taken as 1 x 1.
        first_slice, last_slice: index along the axial axis, counted from 0, both included.
        confidence: mean probability of its voxels; None where the probability was not given.
        box_voxel: first and last voxel index along X, Y, Z, both included; None where a table does not have it.
        box_mm: lowest and highest RAS+ mm of the outer edges of those voxels; None where the spacing is unknown. The
            sides are those of the world: on an oblique scan the box holds the voxels' box and some room.
        sphericity: as `sphericity` gives it; None where the spacing is unknown.
        side: of the head, in the patient's own sense: "left", "right", or "both"; empty where it is unknown.
    """

    voxels: int
    volume_ml: float | None
    centroid_voxel: Triple
    centroid_mm: Triple | None
    diameter_mm: float | None
    diameter_pixels: float
    first_slice: int
    last_slice: int
    confidence: float | None
    box_voxel: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
    box_mm: Box | None = None
    sphericity: float | None = None
    side: str = ""


def volume_voxels(mask: Array) -> int:
    """Number of nonzero voxels of `mask`."""
    return int(np.count_nonzero(mask))


def volume_ml(mask: Array, spacing_mm: Spacing) -> float:
    """Volume of the nonzero voxels of `mask` (X, Y, Z), in millilitres.

    Raises:
        ValueError: if `spacing_mm` does not have one positive value per axis of `mask`.
    """
    _check_spacing(mask, spacing_mm)
    return volume_voxels(mask) * math.prod(spacing_mm) / MM3_PER_ML


def axial_axis(affine: NDArray[np.float64]) -> int:
    """The voxel axis (0, 1 or 2) whose direction is closest to head-foot; slices across it are the axial ones."""
    steps = np.asarray(affine, float)[:3, :3]
    return int(np.argmax(np.abs(steps[2]) / np.linalg.norm(steps, axis=0)))


def find_lesions(
    mask: Array,
    probability: Array | None,
    affine: NDArray[np.float64],
    spacing_mm: Spacing | None,
    midline: Midline | None = None,
) -> list[Lesion]:
    """The 26-connected components of `mask` (X, Y, Z), largest first.

    Args:
        mask: nonzero voxels are lesion.
        probability: of the same shape, for each lesion's confidence.
        affine: 4x4, voxel index to RAS+ mm.
        spacing_mm: of a voxel along X, Y, Z, or None where the source does not say.
        midline: of the head, on the same grid; None where it is unknown.
    """
    from scipy import ndimage

    if probability is not None:
        _check_shapes(mask, probability)
    if spacing_mm is not None:
        _check_spacing(mask, spacing_mm)
    labels = label_lesions(mask)
    lesions = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[box] == label
        values = None if probability is None else np.asarray(probability)[box][own]
        lesions.append(_lesion(own, tuple(part.start for part in box), values, affine, spacing_mm, midline))
    return lesions


def label_lesions(mask: Array) -> NDArray[np.int32]:
    """`mask` with lesion n of `find_lesions`, counted from 1, numbered n; 0 elsewhere."""
    from scipy import ndimage

    marked = np.asarray(mask) != 0
    numbered = np.zeros(marked.shape, np.int32)
    for box in ndimage.find_objects(marked.astype(np.uint8)):  # one, or none: a volume is large, what is marked is not
        labels, count = ndimage.label(marked[box], CONNECTIVITY)
        sizes = np.bincount(labels[labels > 0], minlength=count + 1)[1:]
        numbers = np.zeros(count + 1, np.int32)
        numbers[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)  # ties stay in the order of X, Y, Z
        numbered[box] = numbers[labels]
    return numbered


def _lesion(
    own: NDArray[np.bool_],
    corner: tuple[int, ...],
    values: Array | None,
    affine: NDArray[np.float64],
    spacing_mm: Spacing | None,
    midline: Midline | None,
) -> Lesion:
    """Measures one component, cropped to its box, whose first voxel is `corner` of the whole grid."""
    places = np.argwhere(own) + corner
    centre = places.mean(axis=0)
    axis = axial_axis(affine)
    voxels = volume_voxels(own)
    last = tuple(start + size - 1 for start, size in zip(corner, own.shape, strict=True))
    return Lesion(
        voxels=voxels,
        volume_ml=None if spacing_mm is None else volume_ml(own, spacing_mm),
        centroid_voxel=_triple(centre),
        centroid_mm=None if spacing_mm is None else _triple(np.asarray(affine)[:3, :3] @ centre + affine[:3, 3]),
        diameter_mm=None if spacing_mm is None else longest_diameter(own, axis, spacing_mm),
        diameter_pixels=longest_diameter(own, axis, (1.0, 1.0, 1.0)),
        first_slice=corner[axis],
        last_slice=last[axis],
        confidence=None if values is None else float(_finite(values).mean(dtype=float)),
        box_voxel=(_indices(corner), _indices(last)),
        box_mm=None if spacing_mm is None else _box_mm(corner, last, affine),
        sphericity=None if spacing_mm is None else round(sphericity(own, spacing_mm), 4),
        side=side_of(places, midline),
    )


def _box_mm(first: tuple[int, ...], last: tuple[int, ...], affine: NDArray[np.float64]) -> Box:
    """Lowest and highest RAS+ mm of the outer edges of the voxels from `first` to `last`."""
    edges = np.array(list(product(*((a - 0.5, b + 0.5) for a, b in zip(first, last, strict=True)))))
    corners = edges @ np.asarray(affine, float)[:3, :3].T + affine[:3, 3]
    return _triple(corners.min(axis=0)), _triple(corners.max(axis=0))


def sphericity(mask: Array, spacing_mm: Spacing) -> float:
    """Surface of the ball of `mask`'s volume divided by its own surface; NaN if empty.

    Both are of the mesh halfway between the outermost voxels and those around them (marching cubes; IBSI, QCFX). A ball
    has 1, and about 0.9 as its voxels have steps; a cube 0.81.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    if not np.any(mask):
        return math.nan
    inside = np.pad(np.asarray(mask) != 0, 1).astype(np.float32)
    points, triangles, *_ = marching_cubes(inside, 0.5, spacing=spacing_mm)
    a, b, c = np.moveaxis(points[triangles].astype(float), 1, 0)
    volume = abs(float((a * np.cross(b, c)).sum())) / 6
    return float((36 * math.pi * volume**2) ** (1 / 3) / mesh_surface_area(points, triangles))


def longest_diameter(mask: Array, axis: int, spacing_mm: Spacing) -> float:
    """Longest distance in mm between two points of `mask`'s outline within one slice across `axis`; 0 if empty.

    The outline passes through the middles of the outer pixel edges, as in the IBSI/pyradiomics mesh diameters: a row of
    10 pixels of 1 mm measures 10 mm, and a disc its diameter.
    """
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    steps = np.delete(np.asarray(spacing_mm, float), axis)
    edges = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    longest = 0.0
    for plane in np.moveaxis(np.asarray(mask) != 0, axis, 0):
        if not plane.any():
            continue
        pixels = np.argwhere(_surface(plane))
        outline = ((pixels[:, None] + edges).reshape(-1, 2)) * steps
        corners = outline[ConvexHull(outline).vertices]
        longest = max(longest, float(pdist(corners).max()))
    return longest


def dice(prediction: Array, truth: Array) -> float:
    """Dice overlap in [0, 1]; 0 if one mask is empty, NaN if both are."""
    both, predicted, true = _counts(prediction, truth)
    return _ratio(2 * both, predicted + true)


def iou(prediction: Array, truth: Array) -> float:
    """Intersection over union in [0, 1]; 0 if one mask is empty, NaN if both are."""
    both, predicted, true = _counts(prediction, truth)
    return _ratio(both, predicted + true - both)


def precision(prediction: Array, truth: Array) -> float:
    """Part of the prediction that is true; NaN if nothing was predicted."""
    both, predicted, _ = _counts(prediction, truth)
    return _ratio(both, predicted)


def recall(prediction: Array, truth: Array) -> float:
    """Part of the truth that was predicted; NaN if there is nothing to find."""
    both, _, true = _counts(prediction, truth)
    return _ratio(both, true)


def hd95(prediction: Array, truth: Array, spacing_mm: Spacing) -> float:
    """95th percentile Hausdorff distance in mm: the larger of the two directed 95th percentiles.

    Distances run between centres of surface voxels (those with a face neighbour outside), as in MONAI. Infinite if one
    mask is empty, NaN if both are.
    """
    distances = _surface_distances(prediction, truth, spacing_mm)
    if distances is None:
        return _one_or_both_empty(prediction, truth, math.inf)
    return float(max(np.percentile(one_way, 95) for one_way in distances))


def surface_dice(prediction: Array, truth: Array, spacing_mm: Spacing, tolerance_mm: float) -> float:
    """Part of both surfaces that lies within `tolerance_mm` of the other; 0 if one mask is empty, NaN if both are.

    Counts surface voxels (Nikolov et al., JMIR 2021, equation 1, without area weights).
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm must be 0 or more, got {tolerance_mm}")
    distances = _surface_distances(prediction, truth, spacing_mm)
    if distances is None:
        return _one_or_both_empty(prediction, truth, 0.0)
    near = sum(int(np.count_nonzero(one_way <= tolerance_mm)) for one_way in distances)
    return near / sum(one_way.size for one_way in distances)


def case_confidence(probability: Array, mask: Array) -> float:
    """How much of `mask` is expected to be right, in [0, 1]; never NaN.

    The mean probability of its voxels, which the bundle's temperature makes mean what it says. For an empty mask,
    1 - max p: low where some voxel looked abnormal and was cleaned away.
    """
    _check_shapes(mask, probability)
    inside = np.asarray(mask) != 0
    values = np.asarray(probability)
    if not inside.any():
        return 1.0 - min(1.0, float(np.fmax.reduce(values, axis=None, initial=0.0)))  # passes over NaN
    return float(np.clip(_finite(values[inside]), 0.0, 1.0).mean(dtype=float))


def _check_shapes(a: Array, b: Array) -> None:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"both arrays must have one shape, got {np.shape(a)} and {np.shape(b)}")


def _check_spacing(mask: Array, spacing_mm: Spacing) -> None:
    if len(spacing_mm) != np.ndim(mask) or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"spacing_mm must have {np.ndim(mask)} positive values, got {tuple(spacing_mm)}")


def _finite(values: Array) -> NDArray[np.float64]:
    finite: NDArray[np.float64] = np.nan_to_num(np.asarray(values, float), nan=0.0, posinf=1.0, neginf=0.0)
    return finite


def _triple(values: Array) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _indices(values: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = values
    return x, y, z


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _counts(prediction: Array, truth: Array) -> tuple[int, int, int]:
    """Voxels in both, in the prediction, in the truth."""
    _check_shapes(prediction, truth)
    predicted, true = np.asarray(prediction) != 0, np.asarray(truth) != 0
    return volume_voxels(predicted & true), volume_voxels(predicted), volume_voxels(true)


def _one_or_both_empty(prediction: Array, truth: Array, if_one: float) -> float:
    return if_one if np.any(prediction) or np.any(truth) else math.nan


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of `mask` with a face neighbour outside it or outside the grid."""
    from scipy import ndimage

    surface: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask)
    return surface


def _surface_distances(
    prediction: Array, truth: Array, spacing_mm: Spacing
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Distance in mm of each surface voxel of one mask to the other's surface, both ways; None if a mask is empty."""
    from scipy import ndimage

    _check_shapes(prediction, truth)
    _check_spacing(prediction, spacing_mm)
    predicted, true = np.asarray(prediction) != 0, np.asarray(truth) != 0
    if not predicted.any() or not true.any():
        return None
    (box,) = ndimage.find_objects((predicted | true).astype(np.uint8))  # nothing outside changes a distance
    surfaces = _surface(predicted[box]), _surface(true[box])
    to_predicted, to_true = (ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces)
    return to_true[surfaces[0]], to_predicted[surfaces[1]]
