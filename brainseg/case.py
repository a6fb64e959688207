"""A patient's scan and its segmentation as plain arrays: the one home of the axis convention.

Arrays are indexed `(C, X, Y, Z)` or `(X, Y, Z)`; `affine` (4x4) maps voxel indices to RAS+ millimetres (x grows to the
patient's right, y to anterior, z to superior), as nibabel does. DICOM and ITK speak LPS+; `LPS_TO_RAS` converts, once,
in the readers.

A TIFF slice has row 0 anterior and column 0 at the patient's right; slice numbers grow towards the head. Read as
X = column, Y = row, Z = slice its affine is `TIFF_AFFINE`, in units of voxels, because a TIFF slice has no spacing:
`spacing_mm` is then None and nothing measured on it is in millimetres. A slice of a TIFF stack has pixels of the
training slices' size, whatever their number; a slice that stands alone (PNG, JPEG, MATLAB) shows a whole head, which
there has `HEAD_PIXELS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CHANNELS = ("pre-contrast", "FLAIR", "post-contrast")
FLAIR = CHANNELS.index("FLAIR")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
TIFF_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
HEAD_PIXELS = 256  # across a training slice, the longer side: 240 mm

Layout = Literal["tiff", "picture", "matlab", "nifti", "dicom", "itk"]
SLICES = {"tiff": "TIFF", "picture": "PNG or JPEG", "matlab": "MATLAB"}  # no spacing; masks are written slice by slice
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """One patient's scan, ready for a network.

    Attributes:
        name: safe, unique, from folder or file names; never from DICOM header attributes.
        image: float32 `(3, X, Y, Z)` in the order of `CHANNELS`; a missing sequence is a copy of FLAIR.
        affine: float64 `(4, 4)`, voxel index to RAS+ mm (voxels where `spacing_mm` is None).
        spacing_mm: size of a voxel along X, Y, Z; None where the source does not say.
        layout: what kind of file it came from.
        files: the FLAIR's files in order of Z (one per slice for TIFF and DICOM, else one).
        missing: the channels that were not given and are copies of FLAIR.
        notes: what the reader did or saw that the user should know ("MONOCHROME1 inverted").
        finer: where `spacing_mm` is None, how many pixels go to one of the training slices, along a side.
        apart: the slices do not lie one above the other (they may be of several planes); each is segmented by itself.
    """

    name: str
    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing_mm: Spacing | None
    layout: Layout
    files: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    finer: float = 1.0
    apart: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size of the scan's own grid, `(X, Y, Z)`."""
        x, y, z = self.image.shape[1:]
        return x, y, z


@dataclass(frozen=True)
class Segmentation:
    """A mask on the scan's own grid, and what made it.

    Attributes:
        mask: uint8 0/1 `(X, Y, Z)`.
        probability: float32 `(X, Y, Z)` in [0, 1], before threshold and clean-up.
        affine, spacing_mm: those of the case.
        threshold: probability at or above which a voxel was called abnormal.
        bundle: name of the bundle (of several, joined by "+").
        weights_sha256: hash of the weights file (of several, joined by "+").
        bundle_version: of the bundle, from its metadata (of several, joined by "+").
        seconds: wall-clock time of preprocessing, network and clean-up.
    """

    mask: NDArray[np.uint8]
    probability: NDArray[np.float32]
    affine: NDArray[np.float64]
    spacing_mm: Spacing | None
    threshold: float
    bundle: str
    weights_sha256: str
    bundle_version: str = ""
    seconds: float = 0.0


def spacing_of(affine: NDArray[np.float64]) -> Spacing:
    """Length in mm of a step along X, Y and Z of a 4x4 `affine`."""
    x, y, z = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z
