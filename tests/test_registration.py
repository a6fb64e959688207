"""Rigid registration: a known displacement is found, twice the same; what is no head is not sound."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from brainseg.phantom import Phantom, make_phantom
from brainseg.readers.volume import Volume
from brainseg.registration import carried, register

SHAPE, SPACING_MM = (96, 96, 24), (2.4, 2.4, 6.5)


def rigid(degrees: tuple[float, float, float], mm: tuple[float, float, float]) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = mm
    return motion


def flair(phantom: Phantom, motion: np.ndarray | None = None) -> Volume:
    affine = phantom.affine if motion is None else motion @ phantom.affine
    return Volume(phantom.image[1], affine, phantom.spacing_mm, ())


@pytest.fixture(scope="module")
def baseline() -> Phantom:
    return make_phantom(shape=SHAPE, spacing_mm=SPACING_MM)


@pytest.fixture(scope="module")
def grown() -> Phantom:
    return make_phantom(shape=SHAPE, spacing_mm=SPACING_MM, rotation_deg=(4, -3, 6), growth=2)


@pytest.mark.parametrize("mm", [(5.0, -8.0, 4.0), (-12.0, 20.0, -15.0)])
def test_a_known_displacement_is_found_within_a_millimetre_and_a_degree(
    baseline: Phantom, grown: Phantom, mm: tuple[float, float, float]
) -> None:
    motion = rigid((-10, 5, 8), mm)
    found = register(flair(baseline), flair(grown, motion))
    rest = np.linalg.inv(motion) @ found.transform
    assert np.degrees(Rotation.from_matrix(rest[:3, :3]).magnitude()) < 1
    for point in ([0, 0, 0, 1], [60, 0, 0, 1], [0, -70, 0, 1], [31, 27, 22, 1]):  # the last in the lesion
        assert np.linalg.norm((found.transform - motion) @ point) < 1
    assert found.sound
    assert found.coverage > 0.95
    assert found.correlation > 0.85


def test_equal_scans_give_equal_results(baseline: Phantom, grown: Phantom) -> None:
    one, other = (register(flair(baseline), flair(grown)) for _ in range(2))
    np.testing.assert_array_equal(one.transform, other.transform)


def test_a_mask_is_carried_to_where_the_lesion_lies(baseline: Phantom, grown: Phantom) -> None:
    """Twice the volume about nearly the same centre, once the motion is undone."""
    motion = rigid((-10, 5, 8), (5, -8, 4))
    fixed, moving = flair(baseline), flair(grown, motion)
    mask = Volume(grown.mask.astype(np.float32), moving.affine, moving.spacing_mm, ())
    moved = carried(mask, register(fixed, moving).transform, fixed).array >= 0.5
    assert moved.sum() / baseline.mask.sum() == pytest.approx(2, abs=0.1)
    assert (moved & (baseline.mask > 0)).sum() / baseline.mask.sum() > 0.95


def test_what_is_no_head_is_not_sound(baseline: Phantom) -> None:
    noise = np.random.default_rng(0).uniform(0, 200, SHAPE).astype(np.float32)
    assert not register(flair(baseline), Volume(noise, baseline.affine, SPACING_MM, ())).sound
