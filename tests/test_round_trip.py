"""A lesion stays where it is: written, read and written again, on oblique, flipped, anisotropic grids."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainseg.phantom import Phantom, make_phantom, write_phantom_dicom, write_phantom_nifti
from brainseg.readers import read_case
from brainseg.writers.nifti import write_mask

GRIDS = {
    "oblique": ("LPS", (3.6, 3.1, 9.0), (14.0, -9.0, 21.0)),
    "flipped": ("RAI", (3.1, 3.6, 9.0), (0.0, 0.0, 0.0)),
    "oblique and sagittal": ("PIL", (3.1, 3.6, 7.0), (-11.0, 6.0, 8.0)),
}


def lesion_mm(affine: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Centre of mass in RAS mm of the brightest twentieth, which is the same voxels on every copy of a grid."""
    bright = np.argwhere(array >= np.quantile(array, 0.95))
    return np.asarray(nibabel.affines.apply_affine(affine, bright).mean(0))


@pytest.fixture(params=GRIDS)
def phantom(request: pytest.FixtureRequest) -> Phantom:
    axes, spacing_mm, rotation_deg = GRIDS[request.param]
    shape = tuple(24 if spacing > 5 else 64 for spacing in spacing_mm)
    return make_phantom(shape=shape, spacing_mm=spacing_mm, axes=axes, rotation_deg=rotation_deg)  # type: ignore[arg-type]


@pytest.mark.parametrize("write", [write_phantom_nifti, write_phantom_dicom])
def test_world_position_survives_reading_and_writing_within_a_micrometre(
    phantom: Phantom, write: object, tmp_path: Path
) -> None:
    write(phantom, tmp_path)  # type: ignore[operator]
    case = read_case(tmp_path / "phantom")
    expected = lesion_mm(phantom.affine, phantom.image[1])
    np.testing.assert_allclose(lesion_mm(case.affine, case.image[1]), expected, atol=1e-3)
    np.testing.assert_allclose(sorted(case.spacing_mm or ()), sorted(phantom.spacing_mm), atol=1e-3)
    mask = (case.image[1] >= np.quantile(case.image[1], 0.95)).astype(np.uint8)
    write_mask(tmp_path / "mask.nii.gz", mask, case.affine)
    back = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(lesion_mm(back.affine, np.asarray(back.dataobj)), expected, atol=1e-3)
