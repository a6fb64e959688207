"""A scan of the synthetic head: three sequences and the true mask on the grid asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Spacing
from brainseg.phantom.anatomy import Floats, Head, Point

AXES = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
SITES: tuple[tuple[Point, float], ...] = (  # centre, volume in mL: right frontal, right parietal
    ((31, 27, 22), 30.0),
    ((31, -42, 24), 6.0),
)
COUNTED_MM = 1.25  # step of the lattice on which a lesion's volume is counted
CHUNK = 2**15


@dataclass(frozen=True)
class Lesion:
    """A lesion of the synthetic patient.

    Attributes:
        centre_mm: its centroid, RAS+ mm.
        volume_ml: its true volume, of the function that defines it, whatever the grid.
    """

    centre_mm: Point
    volume_ml: float


@dataclass(frozen=True)
class Phantom:
    """A scan of a synthetic patient.

    Attributes:
        image: `(3, X, Y, Z)` in the order of `case.CHANNELS`; whole numbers from 0 to 255, so that every format holds
            the same values.
        mask: uint8 0/1 `(X, Y, Z)`: voxels at least half of which are lesion.
        affine: `(4, 4)`, voxel index to RAS+ mm.
        spacing_mm: size of a voxel along X, Y, Z.
        lesions: the lesions that are there, also where the grid does not reach them.
        seed: what the patient was made from.
    """

    image: Floats
    mask: NDArray[np.uint8]
    affine: NDArray[np.float64]
    spacing_mm: Spacing
    lesions: tuple[Lesion, ...]
    seed: int

    @property
    def volume_ml(self) -> float:
        """True volume of all lesions together."""
        return sum(lesion.volume_ml for lesion in self.lesions)


def make_phantom(
    *,
    shape: tuple[int, int, int] = (256, 256, 30),
    spacing_mm: Spacing = (0.9, 0.9, 5.0),
    axes: str = "LPS",
    rotation_deg: tuple[float, float, float] = (0, 0, 0),
    lesions: int = 1,
    growth: float = 1,
    noise: float = 2.5,
    seed: int = 0,
) -> Phantom:
    """A synthetic patient with lesions of known volume in the right hemisphere, on any grid about the head.

    The head is fixed in the world: whatever the grid, the same point in mm is the same tissue. It shows the contrast of
    T1 before contrast agent, FLAIR, and T1 after, partial volume, a bias field and Rician noise. It is a drawing, and
    proves nothing about accuracy on patients.

    Args:
        shape: voxels along X, Y, Z; the grid's centre is the world's origin, in the middle of the head.
        axes: where X, Y and Z grow to, before rotation: "LPS" is axial as in the public data set and in DICOM, "PIL"
            sagittal, "LIP" coronal.
        rotation_deg: turns of the grid about the world's x, y and z axes, in that order.
        lesions: how many: none, one (right frontal, 30 mL), or two (right parietal also, 6 mL).
        growth: factor on the volume of each, 0.2 to 2, for a follow-up of the same patient.
        noise: deviation of the noise in grey levels, of 255.

    Raises:
        ValueError: if an argument is not one of these.
    """
    affine = _affine(shape, spacing_mm, axes, rotation_deg)
    if lesions not in range(len(SITES) + 1):
        raise ValueError(f"lesions must be 0 to {len(SITES)}, not {lesions}")
    if not 0.2 <= growth <= 2:
        raise ValueError(f"growth must be 0.2 to 2, not {growth}")
    if noise < 0:
        raise ValueError(f"noise must not be negative, not {noise}")
    head = _head(seed)
    blobs = [_Blob(head, centre, volume_ml * growth, seed + i) for i, (centre, volume_ml) in enumerate(SITES[:lesions])]
    signal = _scan(head, blobs, shape, affine, spacing_mm)
    return Phantom(
        image=_recorded(signal, affine, noise, seed),
        mask=_mask(blobs, shape, affine),
        affine=affine,
        spacing_mm=spacing_mm,
        lesions=tuple(blob.lesion for blob in blobs),
        seed=seed,
    )


@lru_cache(maxsize=4)
def _head(seed: int) -> Head:
    return Head(seed)


class _Blob:
    """A lesion as a function of the point.

    Its surface is a level of a distance from its centre that noise, the skull and the ventricles bend; which level is
    found by counting, so that its volume is the one asked for.
    """

    def __init__(self, head: Head, centre: Point, volume_ml: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        self.head = head
        self.centre = np.array(centre, np.float32)[:, None] + rng.uniform(-3, 3, (3, 1)).astype(np.float32)
        self.stretch = rng.uniform(0.85, 1.15, (3, 1)).astype(np.float32) * np.array([[1.1], [0.95], [1]], np.float32)
        ball = np.cbrt(volume_ml * 3000 / (4 * np.pi))
        self.reach_mm = float(1.5 * ball + 6)
        self.uneven_mm = np.float32(0.24 * ball)
        steps = np.arange(-self.reach_mm, self.reach_mm, COUNTED_MM, dtype=np.float32)
        points = np.stack(np.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, -1) + self.centre
        points = points[:, np.square(points - self.centre).sum(axis=0) < self.reach_mm**2]
        distance = np.concatenate([self.distance_mm(part) for part in _parts(points)])
        count = round(volume_ml * 1000 / COUNTED_MM**3)
        self.level = np.sort(distance)[count]
        x, y, z = points[:, distance < self.level].mean(axis=1).tolist()
        self.lesion = Lesion((x, y, z), volume_ml)

    def distance_mm(self, points: Floats) -> Floats:
        """Distance of `points` `(3, N)` from the centre, as the lesion grows."""
        distance = np.sqrt(np.square((points - self.centre) * self.stretch).sum(axis=0))
        fields = self.head.fields
        distance += self.uneven_mm * (fields.warp[0](points) + fields.blotch(points)) + fields.texture(points)
        warped = self.head.warped(points)
        distance += 3 * np.maximum(4 - self.head.depth_mm(warped), 0)
        distance += 3 * np.maximum(self.head.ventricle_mm(warped) + 3, 0)
        distance += 3 * np.maximum(4 - np.abs(warped[0]), 0)
        return np.asarray(distance, np.float32)

    def near(self, points: Floats) -> NDArray[np.intp]:
        """Indices of those of `points` `(3, N)` that the lesion may reach."""
        return np.flatnonzero(np.square(points - self.centre).sum(axis=0) < self.reach_mm**2)

    def share(self, points: Floats) -> Floats:
        """How much of the tissue at `points` `(3, N)` is lesion: it fades over 7 mm, half of it at the surface."""
        result = np.zeros(points.shape[1], np.float32)
        near = self.near(points)
        if near.size:
            t = np.clip((self.level - self.distance_mm(points[:, near])) / 7 + 0.5, 0, 1)
            result[near] = t * t * (3 - 2 * t)
        return result


def _affine(
    shape: tuple[int, int, int], spacing_mm: Spacing, axes: str, rotation_deg: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Voxel index to RAS+ mm, with the origin in the middle of the grid."""
    if len(axes) != 3 or sorted("RL AP SI".find(a) // 3 if a in AXES else -1 for a in axes) != [0, 1, 2]:
        raise ValueError(f"axes must be one each of R or L, A or P, S or I, not {axes!r}")
    if min(shape) < 1 or min(spacing_mm) <= 0:
        raise ValueError(f"shape and spacing_mm must be positive, not {shape} and {spacing_mm}")
    turn = np.eye(3)
    for axis, degrees in enumerate(rotation_deg):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        about = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        about[first, first] = about[second, second] = cos
        about[second, first], about[first, second] = sin, -sin
        turn = about @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([AXES[a] for a in axes], dtype=np.float64).T * np.array(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine + 0.0  # no negative zeros


def _parts(points: Floats) -> Iterator[Floats]:
    """`points` in pieces that stay in a processor's cache."""
    for start in range(0, points.shape[1], CHUNK):
        yield points[:, start : start + CHUNK]


def _world(affine: NDArray[np.float64], voxels: NDArray[np.intp], shape: tuple[int, int, int]) -> Floats:
    """Centres `(3, N)` of voxels given by their flat index."""
    index = np.stack(np.unravel_index(voxels, shape)).astype(np.float64)
    return np.asarray((affine[:3, :3] @ index + affine[:3, 3:]), np.float32)


def _offsets(affine: NDArray[np.float64], counts: tuple[int, ...]) -> list[Floats]:
    """Steps `(3, 1)` from a voxel's centre to evenly spaced points in it, `counts` along each axis."""
    along = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    return [(affine[:3, :3] @ np.array(step)).astype(np.float32)[:, None] for step in product(*along)]


def _scan(
    head: Head, blobs: list[_Blob], shape: tuple[int, int, int], affine: NDArray[np.float64], spacing_mm: Spacing
) -> Floats:
    """Signal `(3, X, Y, Z)` without bias and noise: the mean over a few points of each voxel."""
    offsets = _offsets(affine, tuple(int(np.clip(np.rint(size / 1.7), 1, 3)) for size in spacing_mm))
    signal = np.zeros((3, int(np.prod(shape))), np.float32)
    for start in range(0, signal.shape[1], CHUNK):
        voxels = np.arange(start, min(start + CHUNK, signal.shape[1]))
        centres = _world(affine, voxels, shape)
        kept = ~head.outside(centres)
        if not kept.any():
            continue
        voxels, centres = voxels[kept], centres[:, kept]
        total = np.zeros((3, voxels.size), np.float32)
        for offset in offsets:
            points = centres + offset
            lesion = np.zeros(voxels.size, np.float32)
            for blob in blobs:
                np.maximum(lesion, blob.share(points), out=lesion)
            total += head.signal(points, lesion)
        signal[:, voxels] = total / len(offsets)
    return signal.reshape(3, *shape)


def _mask(blobs: list[_Blob], shape: tuple[int, int, int], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Voxels `(X, Y, Z)` at least half of which are lesion."""
    mask = np.zeros(int(np.prod(shape)), np.uint8)
    offsets = _offsets(affine, tuple(int(np.clip(np.ceil(n), 1, 8)) for n in np.linalg.norm(affine[:3, :3], axis=0)))
    for blob in blobs:
        for start in range(0, mask.size, CHUNK):
            voxels = np.arange(start, min(start + CHUNK, mask.size))
            centres = _world(affine, voxels, shape)
            near = blob.near(centres)
            if near.size == 0:
                continue
            inside = np.zeros(near.size, np.float32)
            for offset in offsets:
                inside += blob.distance_mm(centres[:, near] + offset) < blob.level
            mask[voxels[near]] |= (inside >= len(offsets) / 2).astype(np.uint8)
    return mask.reshape(shape)


def _recorded(signal: Floats, affine: NDArray[np.float64], noise: float, seed: int) -> Floats:
    """The signal with a bias field and Rician noise, in whole grey levels.

    The magnitude of a complex signal with Gaussian noise in both parts is Rician (Gudbjartsson and Patz 1995).
    """
    shape = signal.shape[1:]
    rng = np.random.default_rng([seed, 3])
    x, y, z = (
        sum(
            affine[i, j] * np.arange(n, dtype=np.float64).reshape([-1 if k == j else 1 for k in range(3)])
            for j, n in enumerate(shape)
        )
        + affine[i, 3]
        for i in range(3)
    )
    image = np.empty_like(signal)
    for channel in range(len(signal)):
        tilt, bend = rng.uniform(-0.08, 0.08, 3) / 100, rng.uniform(0.02, 0.12, 3) / 100**2
        slope = tilt[0] * x + tilt[1] * y + tilt[2] * z + bend[0] * x**2 + bend[1] * y**2 + bend[2] * z**2
        biased = signal[channel] * np.exp(slope - 0.04).astype(np.float32)
        if noise:
            real = biased + np.float32(noise) * rng.standard_normal(shape, dtype=np.float32)
            biased = np.hypot(real, np.float32(noise) * rng.standard_normal(shape, dtype=np.float32))
        image[channel] = np.clip(np.rint(biased), 0, 255)
    return image
