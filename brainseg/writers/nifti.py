"""Masks, probabilities and images as NIfTI-1 on the scan's own grid."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.writers.atomic import replacing

if TYPE_CHECKING:
    import nibabel as nib

QFORM_TOLERANCE_MM = 1e-3


def write_mask(path: Path, mask: NDArray[Any], affine: NDArray[np.float64], *, in_mm: bool = True) -> None:
    """Writes `mask` (X, Y, Z) as uint8 0/1 NIfTI; equal masks and affines give identical bytes.

    Args:
        path: ends in .nii or .nii.gz.
        affine: 4x4, voxel index to RAS+ mm; goes to the sform, and to the qform unless it has shear.
        in_mm: False where the spacing is unknown (TIFF): the header then declares no unit.
    """
    _write(path, (np.asarray(mask) != 0).astype(np.uint8), affine, in_mm, level=6)


def write_probability(
    path: Path, probability: NDArray[Any], affine: NDArray[np.float64], *, in_mm: bool = True
) -> None:
    """Writes `probability` (X, Y, Z) as float32 NIfTI; otherwise like `write_mask`."""
    _write(path, np.asarray(probability, np.float32), affine, in_mm, level=1)  # noise: more effort saves nothing


def write_image(path: Path, image: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Writes `image` (X, Y, Z) as NIfTI in its own kind of number; otherwise like `write_mask`."""
    _write(path, image, affine, in_mm=True, level=1)


def _write(path: Path, array: NDArray[Any], affine: NDArray[np.float64], in_mm: bool, level: int) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(xyz="mm" if in_mm else "unknown")
    _set_forms(image, affine)
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=level, mtime=0)  # neither time nor name, so bytes repeat
    with replacing(path) as partial:
        partial.write_bytes(content)


def _set_forms(image: nib.Nifti1Image, affine: NDArray[np.float64]) -> None:
    """Puts `affine` into the sform, and into the qform where a quaternion can say it; both "scanner" (code 1)."""
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.maximum(np.array(image.shape[:3]) - 1, 1)
    off_mm = np.abs(corners @ (image.get_qform() - affine).T).max()
    if off_mm > QFORM_TOLERANCE_MM:
        image.set_qform(None, code=0)
