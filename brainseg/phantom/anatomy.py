"""A synthetic head as functions of the point: what tissue is where, in RAS+ millimetres.

The origin lies between the thalami; x grows to the right, y to anterior, z to superior. Surfaces are level sets of
functions that are about a distance in mm, positive inside, so that a voxel grid of any orientation cuts the same head
and partial volume follows from the distance. Random fields, drawn once per seed on a lattice, bend the surfaces: the
zero level of a band-passed field, followed inwards from the brain's hull, makes the sulci.

Shapes and sizes are schematic, those of an adult head to about a centimetre.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Point = tuple[float, float, float]

LATTICE_MM = 3.0
REACH_MM = 126.0
EDGE_MM = 0.9  # over which one tissue turns into the next, the blur of an in-plane pixel
SHELL_MM = 70.0  # radius at which the field of the sulci is drawn
FOLD_MM = 5.4  # width of the Laplacian-of-Gaussian filter of that field: sulci are about 2.2 widths apart
CORTEX_MM = 3.4

# Signal of each tissue on pre-contrast T1, FLAIR and post-contrast T1, of 255, before bias and noise.
SIGNAL: dict[str, Point] = {
    "air": (0, 0, 0),
    "skin": (92, 72, 100),
    "fat": (196, 150, 188),
    "muscle": (58, 44, 72),
    "bone": (9, 8, 9),
    "marrow": (84, 46, 84),
    "csf": (20, 9, 21),
    "grey": (68, 79, 72),
    "deep grey": (76, 73, 80),
    "white": (94, 62, 98),
    "eye": (18, 12, 20),
    "blood": (40, 30, 190),
    "choroid": (46, 66, 170),
    "lesion": (60, 122, 64),
}

_LATERAL = (  # frontal horn, body, atrium, occipital horn; then temporal horn: x, y, z, radius
    ((12, 33, 2, 3.0), (8, 22, 10, 5.6), (9, 2, 18, 5.0), (13, -22, 18, 5.4), (23, -38, 9, 6.6), (23, -62, 3, 2.2)),
    ((23, -38, 9, 6.0), (32, -24, -8, 2.8), (31, -4, -18, 2.2)),
)


class Fields:
    """Smooth random functions of the point, fixed by a seed.

    Attributes:
        warp: three fields of unit deviation, correlated over about 26 mm.
        texture: one, over about 3 mm.
        blotch: one, over about 7 mm.
        fold: distance in mm to the nearest sheet of a labyrinth, signed.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        side = round(2 * REACH_MM / LATTICE_MM)
        half = (side // 2,) * 3
        self.warp = [_Field(_smooth(rng, half, 26 / (2 * LATTICE_MM)), 2 * LATTICE_MM) for _ in range(3)]
        self.texture = _Field(_smooth(rng, (side,) * 3, 1.0), LATTICE_MM)
        self.blotch = _Field(_smooth(rng, (side,) * 3, 7 / LATTICE_MM), LATTICE_MM)
        raw = rng.standard_normal((side,) * 3, dtype=np.float32)
        band = ndimage.gaussian_laplace(raw, FOLD_MM / LATTICE_MM, mode="wrap")
        steep = np.sqrt(sum(g**2 for g in np.gradient(band, LATTICE_MM)))
        self.fold = _Field(np.clip(band / (steep + 0.25 * steep.mean()), -9, 9), LATTICE_MM)


class _Field:
    """Values on a lattice about the origin, linear between, periodic beyond."""

    def __init__(self, values: Floats, step_mm: float) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        self.step_mm = step_mm

    def __call__(self, points: Floats) -> Floats:
        """Values at `points` `(3, N)`."""
        index = points / np.float32(self.step_mm) + np.float32(self.values.shape[0] / 2)
        found: Floats = ndimage.map_coordinates(self.values, index, np.float32, order=1, mode="grid-wrap")
        return found


def _smooth(rng: np.random.Generator, shape: Sequence[int], sigma: float) -> Floats:
    """White noise blurred by `sigma` lattice steps, of unit deviation."""
    field: Floats = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(field / field.std(), np.float32)


class Head:
    """A head without lesions: the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.fields = Fields(seed)

    def outside(self, points: Floats) -> NDArray[np.bool_]:
        """Which of `points` `(3, N)` are in the air around the head, by a coarse bound."""
        x, y, z = points
        nose = (np.abs(x) < 25) & (y > 60) & (y < 128) & (z < -10)
        return np.asarray((_ellipsoid(points, (0, -3, -2), (90, 110, 92), below=0.25) < 0) & ~nose)

    def warped(self, points: Floats) -> Floats:
        """Where in the symmetric plan of the brain `points` `(3, N)` lie."""
        return np.asarray(
            points + np.stack([field(points) for field in self.fields.warp]) * np.float32(1.5), np.float32
        )

    def depth_mm(self, warped: Floats) -> Floats:
        """Depth below the inner table of the skull, negative outside, of points of the plan."""
        x, y, z = warped
        dome = _ellipsoid(warped, (0, -6, 2), (69, 85, 67), narrowing=0.09, below=0.62)
        front, back = _step((y - 22) / 10), _step((-22 - y - 0.4 * np.maximum(np.abs(x) - 15, 0)) / 10)
        aside = _step((np.abs(x) - 16) / 7)
        floor = -27 - 17 * aside * (1 - front) * (1 - back) + 5 * front * (1 - 0.5 * aside) - 35 * back
        floor = floor - 26 * _bell((x / 16) ** 2 + ((y + 22) / 14) ** 2)
        inner = np.minimum(dome, (z - floor) * np.float32(0.85))
        return np.asarray(inner, np.float32)

    def ventricle_mm(self, warped: Floats) -> Floats:
        """Depth inside the lateral, third and fourth ventricle, of points of the plan."""
        x, y, z = warped
        mirrored = np.stack([np.abs(x), y, z])
        inside = np.full(x.shape, -60, np.float32)
        near = np.flatnonzero((mirrored[0] < 55) & (y > -85) & (y < 55) & (z > -60) & (z < 45))
        here = mirrored[:, near]
        depth = np.maximum(_tube(here, _LATERAL[0], flat=0.72), _tube(here, _LATERAL[1]))
        depth = np.minimum(depth, here[0] - 0.9)
        third = np.minimum(2.0 - here[0], 11 - np.hypot(here[1] + 6, here[2] * 1.1 + 2))
        fourth = _ellipsoid(here, (0, -33, -34), (8, 5, 10))
        aqueduct = np.minimum(1.3 - np.hypot(here[0], here[1] + 26), 10 - np.abs(here[2] + 18))
        inside[near] = np.maximum(np.maximum(depth, third), np.maximum(fourth, aqueduct))
        return inside

    def signal(self, points: Floats, lesion: Floats) -> Floats:
        """Signal `(3, N)` of the three sequences at `points` `(3, N)`, of 255.

        Args:
            lesion: share of the brain tissue at each point that is lesion, `(N,)`.
        """
        result = np.zeros((3, points.shape[1]), np.float32)
        left = np.ones(points.shape[1], np.float32)
        for tissue, cover in self._layers(points, lesion):
            weight = left * np.clip(cover, 0, 1)
            left -= weight
            for channel, value in enumerate(SIGNAL[tissue]):
                result[channel] += np.float32(value) * weight
        return result

    def _layers(self, points: Floats, lesion: Floats) -> Iterator[tuple[str, Floats]]:
        """Tissues and how much of each point they cover, those in front first."""
        texture, blotch = self.fields.texture(points), self.fields.blotch(points)
        warped = self.warped(points)
        depth = self.depth_mm(warped)
        skin = self._skin_mm(points, warped, texture)
        yield "air", _soft(-skin)
        inside = depth > -1
        cranial = _soft(depth)
        for tissue, cover in self._brain(warped, depth, inside, texture, blotch, lesion):
            full = np.zeros_like(depth)
            full[inside] = cover
            yield tissue, full * cranial
        yield "csf", cranial
        yield from self._face(points, texture, skin)
        yield from _shell(points, warped, depth, skin, texture, blotch)

    def _skin_mm(self, points: Floats, warped: Floats, texture: Floats) -> Floats:
        """Depth below the skin."""
        x, y, z = points
        head = _ellipsoid(warped, (0, -5, 1), (81, 98, 80), narrowing=0.07, below=0.2)
        chin = _step((-z - 40) / 12) * _step((-y - 40) / 20) * 9  # the neck is narrower than the head
        nose = _ellipsoid(points, (0, 88, -46), (11, 24, 24)) - 0.06 * np.abs(x) ** 1.5
        eyes = _ellipsoid(points, (0, 120, -25), (60, 28, 12))  # the hollow in front of them
        ears = _ellipsoid(np.stack([np.abs(x), y, z]), (78, -14, -32), (7, 13, 22)) - 1.2 * np.abs(texture)
        return np.asarray(np.maximum.reduce([np.minimum(head - chin, -eyes), nose, ears]), np.float32)

    def _brain(
        self,
        warped: Floats,
        depth: Floats,
        inside: NDArray[np.bool_],
        texture: Floats,
        blotch: Floats,
        lesion: Floats,
    ) -> Iterator[tuple[str, Floats]]:
        """Layers of what lies in the skull, for the points that are `inside`."""
        warped, depth, texture, blotch = warped[:, inside], depth[inside], texture[inside], blotch[inside]
        lesion = lesion[inside]
        x, y, z = warped
        aside = np.abs(x)
        mirrored = np.stack([aside, y, z])
        ventricle = self.ventricle_mm(warped)

        # Veins: the sagittal sinus under the vault, and dots where vessels cross a sulcus.
        fold = self._fold_mm(warped)
        behind = _step((z - 5 - 0.35 * y) / 12)
        sinus = np.minimum(3.6 - 0.55 * depth - aside, depth + 0.8) * behind - 2 * (1 - behind)
        yield "blood", _soft(sinus)
        straight = 1.6 - np.hypot(x, (z - 4 + 0.55 * (y + 40)) * 0.8) - 4 * _step((np.abs(y + 55) - 18) / 4)
        yield "blood", _soft(straight)
        dots = np.minimum(0.9 - np.abs(fold), 0.55 - np.abs(texture)) + np.minimum(
            0, np.minimum(depth - 1, z + 12) * 0.3
        )
        yield "blood", 0.75 * _soft(dots - 0.25 * np.maximum(depth - 7, 0))
        plexus = 3.4 - _length(mirrored, (22, -37, 9)) + 1.1 * texture
        yield "choroid", _soft(np.minimum(plexus, ventricle))
        yield "csf", _soft(ventricle)

        # Cerebellum and brain stem, under the tentorium.
        tent = -9 - 0.22 * (-y - 25) - 0.20 * aside - z
        hindbrain = np.minimum(tent, -20 - y + 6 * _step((-z - 20) / 10) - 0.5 * np.maximum(aside - 12, 0))
        leaves = _ellipsoid(mirrored, (22, -54, -36), (36, 34, 27))
        leaves = np.maximum(leaves, _ellipsoid(warped, (0, -54, -36), (18, 31, 25)))
        leaves = np.minimum.reduce([leaves, depth - 2, hindbrain - 0.5])
        ribbed = np.sin(leaves * 0.9 + 2 * np.pi / 4.6 * np.hypot(y + 32, (z + 36) * 1.15) + 0.4 * blotch)
        stem = np.maximum(
            _ellipsoid(warped, (0, -15, -31), (16, 13, 15)), 6.5 - np.hypot(x, (y + 22) * 1.1) - np.maximum(z + 28, 0)
        )
        stem = np.maximum(stem, _ellipsoid(mirrored, (8, -14, -13), (10, 12, 11)))
        peduncle = 8 - np.hypot(z + 34, y + 30) - np.maximum(aside - 20, 0)
        yield "white", _soft(np.maximum(stem, peduncle)) * _soft(depth - 2)
        core = leaves - 8 - 1.5 * blotch
        below = _soft(hindbrain)
        yield "white", _soft(core) * below
        yield "csf", 0.30 * _soft(leaves) * below * _step((ribbed - 0.55) / 0.3) * _step((7 - leaves) / 4)
        yield "grey", (0.62 + 0.25 * ribbed) * _soft(leaves) * below
        yield "white", _soft(leaves) * below
        yield "csf", _soft(hindbrain + 1.5)

        # Cerebrum.
        pia = self._pia_mm(warped, depth, fold, blotch)
        cistern = 9 - np.hypot(np.hypot(x * 0.8, y - 3), (z + 25) * 1.3) + 1.5 * blotch
        ambient = np.minimum(1.6 - np.abs(stem + 1.8), -11 - z)
        tissue = np.minimum(np.minimum(pia, -cistern), -ambient)
        yield "csf", _soft(-tissue)
        yield "lesion", lesion * (0.88 + 0.10 * blotch + 0.06 * texture)
        nuclei = np.maximum.reduce(
            [
                _ellipsoid(mirrored, (14.5, 17, 7), (5.5, 10, 10)),
                _ellipsoid(mirrored, (25, 4, 1), (6.5, 17, 10)),
                _ellipsoid(mirrored, (11, -16, 4), (9.5, 15, 10)),
            ]
        )
        yield "deep grey", 0.9 * _soft(nuclei + 0.4 * texture, 1.6)
        cortex = CORTEX_MM + 0.5 * blotch - tissue
        yield "grey", _soft(cortex, 1.3) * (0.94 + 0.04 * texture)
        yield "deep grey", np.clip(0.10 + 0.07 * blotch + 0.05 * texture, 0, 0.4)
        yield "white", np.ones_like(tissue)

    def _fold_mm(self, warped: Floats) -> Floats:
        """Distance to the nearest sulcus's sheet, signed; sheets run inwards from the hull."""
        radius = np.sqrt((warped**2).sum(axis=0)) + np.float32(1e-3)
        shell = np.float32(SHELL_MM) + np.float32(0.65) * (radius - np.float32(SHELL_MM))
        scale = shell / radius
        found = self.fields.fold(warped * scale) / np.maximum(scale, np.float32(0.9))
        return np.asarray(found, np.float32)

    def _pia_mm(self, warped: Floats, depth: Floats, fold: Floats, blotch: Floats) -> Floats:
        """Depth below the surface of the cerebrum, sulci and fissures included."""
        x, y, z = warped
        aside = np.abs(x)
        width = 0.35 + 0.40 * np.clip(blotch + 0.4, 0, 2) + 0.6 * np.clip(1 - depth / 7, 0, 1)
        fundus = np.clip(20 + 7 * blotch, 9, 32)
        radius = np.sqrt((warped**2).sum(axis=0))
        sulci = np.abs(fold) - width + np.maximum(depth - fundus, 0) + np.maximum(36 - radius, 0)
        hull = depth - 1.6
        callosum = 1 - np.sqrt(((y + 6) / 45) ** 2 + ((z - 3) / 25) ** 2)
        between = aside - 0.9 - 0.5 * np.clip(blotch, 0, 2) + np.maximum(callosum * 30, 0)
        slope = z + 3 + 0.28 * (y - 10) - 0.25 * (aside - 45) + 2.5 * blotch
        sylvian = np.abs(slope) - 1.6 - 0.5 * blotch + np.maximum(38 - aside, 0) + np.maximum(np.abs(y - 2) - 26, 0)
        insula = (
            np.hypot(aside - 38 - 2 * blotch + 0.12 * slope, np.maximum(np.abs(slope) - 8, 0))
            - 1.1
            + np.maximum(np.abs(y - 4) - 17, 0)
        )
        return np.asarray(np.minimum.reduce([sulci, hull, between, sylvian, insula]), np.float32)

    def _face(self, points: Floats, texture: Floats, skin: Floats) -> Iterator[tuple[str, Floats]]:
        """Eyes, orbits and the air of nose and sinuses."""
        x, y, z = points
        mirrored = np.stack([np.abs(x), y, z])
        eye = 12 - _length(mirrored, (32, 67, -29))
        lens = _ellipsoid(mirrored, (32, 76.5, -29), (4.5, 2.2, 4.5))
        yield "muscle", _soft(lens)
        yield "eye", _soft(eye - 1.2)
        yield "muscle", _soft(eye)
        nerve = 1.9 - np.hypot(mirrored[0] - (32 - 0.55 * (56 - y)), z + 29) - np.maximum(np.abs(y - 40) - 16, 0)
        cone = np.hypot(mirrored[0] - (32 - 0.45 * (62 - y)), z + 29) - np.clip(12 - 0.30 * (62 - y), 2, 12)
        straps = 1.3 - np.abs(cone) - np.maximum(np.abs(y - 47) - 14, 0)
        orbit = np.minimum(19 - np.hypot(cone + 12, np.maximum(np.abs(y - 54) - 14, 0)), 22 - np.abs(y - 55))
        yield "muscle", _soft(np.maximum(nerve, np.minimum(straps, orbit)))
        yield "fat", _soft(np.minimum(orbit, skin - 3))
        nose = _ellipsoid(mirrored, (5, 62, -48), (9, 34, 22))
        swell = _soft(0.8 - np.abs(mirrored[0])) + _soft(2.2 - np.abs(mirrored[0] - 6.5) + 0.6 * texture)
        yield "skin", 0.8 * _soft(np.minimum(nose, skin - 4)) * np.clip(swell, 0, 1)
        antrum = np.maximum(
            _ellipsoid(mirrored, (27, 52, -60), (13, 16, 15)), _ellipsoid(mirrored, (8, 84, -14), (13, 5, 9))
        )
        mastoid = np.minimum(_ellipsoid(mirrored, (55, -24, -44), (11, 13, 14)), 1.5 * texture + 0.6)
        yield "air", _soft(np.minimum(np.maximum.reduce([nose, antrum, mastoid]), skin - 4))


def _shell(
    points: Floats, warped: Floats, depth: Floats, skin: Floats, texture: Floats, blotch: Floats
) -> Iterator[tuple[str, Floats]]:
    """Skull and scalp, and the flesh below the skull."""
    x, y, z = points
    thickness = 6.5 + 0.5 * blotch
    within = thickness + depth  # depth below the outer table
    diploe = np.minimum(-depth - 1.7, within - 1.7) + 0.5 * texture
    yield "marrow", 0.75 * _soft(diploe) * _step((z + 22) / 8)
    yield "marrow", 0.5 * _soft(within) * _soft(-depth - 2) * _step((-z - 18) / 6) * _step(texture * 1.4)
    yield "bone", _soft(within)
    yield "skin", _soft(1.8 - skin)
    temple = _bell(((y - 28) / 34) ** 2 + ((z + 18) / 30) ** 2) * _step((np.abs(x) - 38) / 12)
    yield "muscle", _soft(np.minimum(skin - 4.5, 10 * temple - 3.2 + 0.4 * texture))
    deep = np.minimum(skin - 9 - 2 * blotch, -24 - z)
    streaks: Floats = np.asarray(1.8 * texture + 1.2 * blotch - 1.5, np.float32)
    yield "fat", 0.65 * _soft(deep) * _step(streaks)
    yield "muscle", _soft(deep) * (0.93 + 0.05 * texture)
    yield "muscle", _soft(1.3 - np.abs(within + 1.0)) * 0.6
    yield "fat", 0.92 + 0.07 * texture


def _soft(depth_mm: Floats, edge_mm: float = EDGE_MM) -> Floats:
    """Cover from 0 to 1 across a surface, from the depth below it."""
    return np.asarray(np.clip(depth_mm * np.float32(1 / edge_mm) + np.float32(0.5), 0, 1), np.float32)


def _step(value: Floats) -> Floats:
    """Smooth step: 0 at -1 and below, 1 at 1 and above."""
    t = np.clip(value * np.float32(0.5) + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _bell(square: Floats) -> Floats:
    """1 at 0, falling as a Gaussian of the root of `square`."""
    return np.asarray(np.exp(-square), np.float32)


def _length(points: Floats, centre: Point) -> Floats:
    x, y, z = (axis - np.float32(at) for axis, at in zip(points, centre, strict=True))
    return np.asarray(np.sqrt(x * x + y * y + z * z), np.float32)


def _ellipsoid(points: Floats, centre: Point, radii: Point, *, narrowing: float = 0, below: float = 1) -> Floats:
    """Depth inside an ellipsoid, to first order exact near its surface.

    Args:
        narrowing: how much narrower it is at its front than at its middle, as a share.
        below: factor on z under the centre; less than 1 prolongs it downwards.
    """
    x, y, z = (axis - np.float32(at) for axis, at in zip(points, centre, strict=True))
    a, b, c = (np.float32(radius) for radius in radii)
    if narrowing:
        x = x / (1 - np.float32(narrowing) * np.clip(y / b, -0.6, 1))
    if below != 1:
        z = np.where(z < 0, z * np.float32(below), z)
    x, y, z = x / a, y / b, z / c
    radius = np.sqrt(x * x + y * y + z * z)
    steep = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + np.float32(1e-6)
    depth = np.minimum(radius, 1) * (1 - radius) / steep
    return np.asarray(np.where(radius > 1, radius * (1 - radius) / steep, np.minimum(depth, min(radii))), np.float32)


def _tube(points: Floats, path: Sequence[tuple[float, float, float, float]], *, flat: float = 1) -> Floats:
    """Depth inside a chain of cones from joint to joint (x, y, z, radius), `flat` times as wide as high."""
    stretch = np.array([1 / flat, 1, 1], np.float32)[:, None]
    here = points * stretch
    depth = np.full(points.shape[1], -60, np.float32)
    for first, second in pairwise(path):
        start = np.array(first[:3], np.float32)[:, None] * stretch
        along = np.array(second[:3], np.float32)[:, None] * stretch - start
        away = here - start
        share = np.clip((along[:, 0] / np.float32((along**2).sum())) @ away, 0, 1)
        x, y, z = away - along * share
        distance = np.sqrt(x * x + y * y + z * z)
        depth = np.maximum(depth, np.float32(first[3]) + np.float32(second[3] - first[3]) * share - distance)
    return np.asarray(depth * np.float32(min(flat, 1)), np.float32)
