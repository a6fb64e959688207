"""Rigid registration of two scans of one patient, for looking at them side by side; nothing is measured after it.

Mattes' mutual information over all voxels, two resolutions, one thread: equal scans give equal results.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import LPS_TO_RAS, spacing_of
from brainseg.readers.grid import Resampled, resample_onto
from brainseg.readers.volume import Volume

Affine = NDArray[np.float64]

BINS = 32
LEVELS_MM = (6.0, 3.0)  # size of a voxel at each resolution, where the scan's own is finer
LONGEST_STEP_MM = (4.0, 1.0)
SHORTEST_STEP_MM = 0.01
STEPS = 150
LEAST_COVERAGE = 0.5  # of the first scan's head
LEAST_CORRELATION = 0.3  # of grey values in the head; two heads laid beside each other have none


@dataclass(frozen=True)
class Registered:
    """Where one scan's points lie in another.

    Attributes:
        transform: rigid 4x4, from RAS+ mm of the fixed scan to RAS+ mm of the moving one.
        coverage: part of the fixed scan's head that the moving scan shows.
        correlation: of the grey values there, -1 to 1.
    """

    transform: Affine
    coverage: float
    correlation: float

    @property
    def sound(self) -> bool:
        """Whether the two heads lie upon each other at all."""
        return self.coverage >= LEAST_COVERAGE and self.correlation >= LEAST_CORRELATION


def register(fixed: Volume, moving: Volume) -> Registered:
    """The rigid motion between two scans with a spacing, of the same kind (both FLAIR).

    Raises:
        RuntimeError: if the optimiser gives up; ITK's own words are not kept.
    """
    transform = _optimised(fixed, moving)
    moved = carried(moving, transform, fixed)
    head = fixed.array > fixed.array.mean()
    both = head & moved.inside
    correlation = float(np.corrcoef(fixed.array[both], moved.array[both])[0, 1]) if both.sum() > 1 else 0.0
    return Registered(transform, float(moved.inside[head].mean()), float(np.nan_to_num(correlation)))


def carried(moving: Volume, transform: Affine, fixed: Volume) -> Resampled:
    """`moving` at the voxels of `fixed`, interpolated linearly, through a `transform` that `register` gave."""
    x, y, z = fixed.array.shape
    placed = Volume(moving.array, np.linalg.inv(transform) @ moving.affine, moving.spacing_mm, moving.files)
    return resample_onto(placed, fixed.affine, (x, y, z))


def _optimised(fixed: Volume, moving: Volume) -> Affine:
    """The transform of highest mutual information, found coarse first."""
    with warnings.catch_warnings():  # ITK's import warns about its own types
        warnings.simplefilter("ignore")
        import itk

        transform = itk.VersorRigid3DTransform[itk.D].New()
        for number, (size_mm, longest_mm) in enumerate(zip(LEVELS_MM, LONGEST_STEP_MM, strict=True)):
            images = [_itk_image(itk, _coarse(volume, size_mm)) for volume in (fixed, moving)]
            kind = type(images[0])
            if number == 0:
                start = itk.CenteredTransformInitializer[type(transform), kind, kind].New(
                    Transform=transform, FixedImage=images[0], MovingImage=images[1]
                )
                start.MomentsOn()
                start.InitializeTransform()
            metric = itk.MattesMutualInformationImageToImageMetricv4[kind, kind].New(NumberOfHistogramBins=BINS)
            metric.SetMaximumNumberOfWorkUnits(1)
            optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
                LearningRate=longest_mm, MinimumStepLength=SHORTEST_STEP_MM, NumberOfIterations=STEPS
            )
            optimizer.SetNumberOfWorkUnits(1)
            scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New()
            scales.SetMetric(metric)
            optimizer.SetScalesEstimator(scales)
            method = itk.ImageRegistrationMethodv4[kind, kind].New(
                FixedImage=images[0], MovingImage=images[1], Metric=metric, Optimizer=optimizer
            )
            method.SetNumberOfWorkUnits(1)
            method.SetInitialTransform(transform)
            method.InPlaceOn()
            method.SetNumberOfLevels(1)
            method.SetShrinkFactorsPerLevel([1])
            method.SetSmoothingSigmasPerLevel([0])
            method.Update()
        turn = itk.array_from_matrix(transform.GetMatrix())
        shift = np.array(transform.GetOffset(), float)
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = turn, shift
    return np.asarray(LPS_TO_RAS @ lps @ LPS_TO_RAS, np.float64)  # diag(-1, -1, 1, 1) is its own inverse


def _coarse(volume: Volume, size_mm: float) -> Volume:
    """Every n-th voxel along each axis after a blur, so that none is much larger than `size_mm` who was not."""
    from scipy.ndimage import gaussian_filter

    factors = np.maximum(1, np.floor(size_mm / np.array(spacing_of(volume.affine)))).astype(int)
    blurred = gaussian_filter(volume.array, np.where(factors > 1, factors / 2, 0))
    array = blurred[tuple(slice(None, None, factor) for factor in factors)]
    return Volume(array, volume.affine @ np.diag([*factors, 1.0]), volume.spacing_mm, volume.files)


def _itk_image(itk: Any, volume: Volume) -> Any:
    """The volume as ITK has it: arrays Z, Y, X; LPS+ mm."""
    lps = LPS_TO_RAS @ volume.affine  # diag(-1, -1, 1, 1) is its own inverse
    spacing = np.array(spacing_of(lps))
    image = itk.image_from_array(np.ascontiguousarray(volume.array.T, np.float32))
    image.SetOrigin([float(mm) for mm in lps[:3, 3]])
    image.SetSpacing([float(mm) for mm in spacing])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image
