"""What the folder of a case's results is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from brainseg.record import Record, read_record


def mask_is(results: Path, expected: NDArray[Any], affine: NDArray[Any]) -> None:
    """The mask is this (X, Y, Z), and lies there."""
    mask = nibabel.load(results / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), expected)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-4)


def record_of(results: Path) -> Record:
    record = read_record(results)
    assert record is not None
    return record
