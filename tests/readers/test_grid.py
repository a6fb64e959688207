"""One grid to another, with ITK as the judge."""

from __future__ import annotations

from pathlib import Path

import itk
import numpy as np
import pytest

from brainseg.readers.grid import Grid, resample_onto, same_grid
from brainseg.readers.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(
    angles: tuple[float, float, float], spacing: tuple[float, float, float], origin: list[float]
) -> np.ndarray:
    a, b, c = angles
    turns = [
        [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]],
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]],
        [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]],
    ]
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.multi_dot([np.array(turn) for turn in turns]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def itk_image(array: np.ndarray, affine: np.ndarray) -> itk.Image:
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(v) for v in lps[:3, 3]])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image


@pytest.mark.parametrize(
    ("angles", "spacing", "origin"),
    [
        ((0.0, 0.0, 0.0), (1.5, 1.0, 4.0), [-15.2, -16.1, -19.3]),
        ((0.2, -0.1, 0.3), (1.0, 1.1, 3.0), [-14.0, -20.0, -15.0]),
        ((0.0, np.pi, 0.0), (1.0, 1.0, 2.5), [17.0, -15.0, 16.0]),
    ],
)
def test_itk_resamples_to_the_same_values(
    angles: tuple[float, float, float], spacing: tuple[float, float, float], origin: list[float]
) -> None:
    rng = np.random.default_rng(0)
    moving = Volume(
        rng.uniform(10, 100, (30, 32, 11)).astype(np.float32), affine_of(angles, spacing, origin), spacing, (Path("m"),)
    )
    fixed = affine_of((0.05, 0.1, -0.2), (0.9, 0.9, 2.7), [-14.0, -13.0, -12.0])
    shape = (28, 31, 12)
    resampler = itk.ResampleImageFilter.New(
        itk_image(moving.array, moving.affine),
        reference_image=itk_image(np.zeros(shape, np.float32), fixed),
        use_reference_image=True,
        default_pixel_value=0,
    )
    resampler.Update()
    theirs = itk.array_from_image(resampler.GetOutput()).transpose(2, 1, 0)
    ours = resample_onto(moving, fixed, shape)
    assert 0.3 < ours.inside.mean() < 1
    np.testing.assert_array_equal(ours.inside, theirs > 0)
    np.testing.assert_allclose(ours.array, theirs, atol=1e-3)


def test_half_a_voxel_along_x_is_the_mean_of_two_neighbours() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    moved = resample_onto(Volume(array, np.eye(4), (1, 1, 1), ()), shifted, (4, 3, 2))
    np.testing.assert_allclose(moved.array[:3], (array[:3] + array[1:]) / 2)
    assert not moved.inside[3].any()
    assert (moved.array[3] == 0).all()


def test_volume_elsewhere_covers_nothing() -> None:
    affine = np.eye(4)
    affine[:3, 3] = 1000
    moved = resample_onto(Volume(np.ones((4, 4, 4), np.float32), affine, (1, 1, 1), ()), np.eye(4), (4, 4, 4))
    assert not moved.inside.any()
    assert not moved.array.any()


def test_grids_are_the_same_within_the_tolerance_at_every_corner() -> None:
    turned = np.eye(4)
    turned[0, 1] = 1e-4  # 0.0099 mm at the far corner of 100 voxels
    one, other = Grid((100, 100, 10), np.eye(4)), Grid((100, 100, 10), turned)
    assert same_grid(one, other, 0.01)
    assert not same_grid(one, other, 0.001)
    assert not same_grid(one, Grid((100, 100, 9), np.eye(4)), 0.01)
