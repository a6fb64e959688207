"""The plane between the halves of a head, and on which side of it a lesion lies, in the patient's own sense.

The plane is that of the best mirror symmetry of the head's outline: each slice's outline, mirrored, should fall on
itself. Grey values play no part in it, so that a tumour, which has none of the outline, moves it little. The halves of
the head are meant: where a tumour pushes the brain's own midline aside, that is not followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import FLAIR, Case

WIDTH, SLICES = 64, 24  # no more than so many pixels and slices are looked at
LARGE = 0.5  # slices with so much of the largest cross-section count
BOTH = 0.1  # with so much of a lesion on either side of the plane it lies on both
STARTS_DEG, STEEPEST_DEG = (-12.0, 0.0, 12.0), 30.0
FEWEST_POINTS = 40
ALL, ROUGHLY = slice(None), slice(None, None, 4)  # of the outline's points: for the plane, and to find where to begin
MOST_OFF = 0.06  # of the head's width: an outline that mirrors no better has no plane
LEFT, RIGHT, ACROSS = "left", "right", "both"


@dataclass(frozen=True)
class Midline:
    """The plane on which `i * plane[0] + j * plane[1] + k * plane[2] + plane[3]` is 0, for voxel indices i, j, k.

    Elsewhere that is the distance from it, in mm or, where the spacing is unknown, in pixels; more than 0 towards the
    patient's right.
    """

    plane: tuple[float, float, float, float]

    def distance(self, voxels: NDArray[Any]) -> NDArray[np.float64]:
        """Of each of `voxels` (n, 3)."""
        distance: NDArray[np.float64] = np.asarray(voxels, float) @ np.array(self.plane[:3]) + self.plane[3]
        return distance


def side_of(voxels: NDArray[Any], midline: Midline | None) -> str:
    """`LEFT`, `RIGHT`, or `ACROSS` where at least `BOTH` of the `voxels` (n, 3) lie on either side; "" if unknown."""
    if midline is None or not len(voxels):
        return ""
    right = float((midline.distance(voxels) > 0).mean())
    return ACROSS if BOTH <= right <= 1 - BOTH else RIGHT if right > 0.5 else LEFT


def midline_of(case: Case) -> Midline | None:
    """The midline of the head in a case; None where slices may be of any plane or stand alone, or none is found."""
    if case.apart or case.layout in ("picture", "matlab") or (case.layout == "tiff" and case.shape[2] == 1):
        return None
    return find_midline(case.image[FLAIR], case.affine)


def find_midline(flair: NDArray[Any], affine: NDArray[np.float64]) -> Midline | None:
    """The midline of the head in `flair` (X, Y, Z); None where there is no head, or none whose halves are alike.

    Args:
        flair: whose slices lie one above the other.
        affine: 4x4, voxel index to RAS+ mm (or voxels).
    """
    from nibabel import orientations

    from brainseg.appearance import turned_head

    found = turned_head(flair, affine, WIDTH, SLICES)
    if found is None:
        return None
    _, head, thin, steps = found
    line = _symmetry(head, np.array(thin[:2]) * steps[:2])
    if line is None:
        return None
    across, along, up, offset = line
    # from the thinned grid's mm to indices of the scan turned to LPS, then to the scan's own
    first = np.array(thin) // 2
    weights = np.array([across * steps[0], along * steps[1], up / thin[2], 0.0])
    weights[3] = offset - weights[:3] @ first
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LPS"))
    native = -weights @ np.linalg.inv(orientations.inv_ornt_aff(turn, np.shape(flair)))  # LPS grows to the left
    a, b, c, d = (float(f"{value:.6g}") for value in native)
    return Midline((a, b, c, d))


def _symmetry(head: NDArray[np.bool_], pixel: NDArray[np.float64]) -> Sequence[float] | None:
    """(a, b, c, d) of the distance `a x + b y + c k + d` from the plane, x and y in mm in slice k of `head`."""
    from scipy import ndimage, optimize

    areas = head.sum((0, 1))
    rim = head & ~ndimage.binary_erosion(head, np.ones((3, 3, 1)))
    rim[[0, -1]] = rim[:, [0, -1]] = False  # where the scan cuts a head off it has no outline
    rim[..., areas <= LARGE * areas.max()] = False
    points = np.argwhere(rim)
    if len(points) < FEWEST_POINTS:
        return None
    far = np.stack([_signed_distance(head[..., k], pixel) for k in range(head.shape[2])], axis=2)
    places = points[:, :2] * pixel
    centre, middle = places.mean(axis=0), points[:, 2].mean()
    heights = (points[:, 2] - middle) / max(1.0, np.ptp(points[:, 2]))

    def off(values: NDArray[np.float64], some: slice) -> NDArray[np.float64]:
        """How far each point, or some of them, is from the outline once it is mirrored."""
        shift, angle, lean = values
        normal = np.array([np.cos(angle), np.sin(angle)])
        distance = (places[some] - centre) @ normal - shift - lean * heights[some]
        mirrored = (places[some] - 2 * distance[:, None] * normal) / pixel
        apart: NDArray[np.float64] = ndimage.map_coordinates(
            far, np.vstack([mirrored.T, points[some, 2]]), order=1, mode="nearest"
        )
        return apart

    width = float(np.ptp(places[:, 0]))
    steepest = np.deg2rad(STEEPEST_DEG)
    bounds = ([-width, -steepest, -width], [width, steepest, width])
    robust: dict[str, Any] = {"loss": "soft_l1", "f_scale": float(pixel[0]), "x_scale": (5, 0.1, 5), "bounds": bounds}
    starts = [(0.0, np.deg2rad(start), 0.0) for start in STARTS_DEG]
    rough = [optimize.least_squares(off, start, args=(ROUGHLY,), ftol=1e-4, **robust) for start in starts]
    best = optimize.least_squares(off, min(rough, key=lambda fit: fit.cost).x, args=(ALL,), **robust)
    if np.median(np.abs(off(best.x, ALL))) > MOST_OFF * width:
        return None
    shift, angle, lean = best.x
    a, b = np.cos(angle), np.sin(angle)
    c = -lean / max(1.0, np.ptp(points[:, 2]))
    return a, b, c, -shift - np.dot(centre, (a, b)) - c * middle


def _signed_distance(plane: NDArray[np.bool_], pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each pixel from the outline of `plane`, in mm: more than 0 outside."""
    from scipy import ndimage

    inside, outside = (ndimage.distance_transform_edt(side, sampling=pixel) for side in (plane, ~plane))
    distance: NDArray[np.float64] = np.where(plane, 0.5 * pixel.mean() - inside, outside - 0.5 * pixel.mean())
    return distance
