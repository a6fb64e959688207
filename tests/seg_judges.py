"""A DICOM SEG read back by four readers, each on the grid of the case that it was written for: judges of geometry."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from strict_seg import read_dicom_seg

from brainseg.case import Case, Segmentation
from brainseg.writers.dicom_seg import write_dicom_seg

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
WITHIN_MM = 1e-3
needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed"
)


def marker(shape: tuple[int, ...]) -> np.ndarray:
    """A mask that no flip or swap of axes leaves as it is."""
    mask = np.zeros(shape, np.uint8)
    mask[0, 0, 0] = mask[1:3, 0, 0] = mask[0, 1, 0] = mask[0, 0, 1] = mask[1, 2, 3] = 1
    return mask


def written(case: Case, path: Path, mask: np.ndarray | None = None, **options: Any) -> np.ndarray:
    mask = marker(case.shape) if mask is None else mask
    result = Segmentation(mask, mask.astype(np.float32), case.affine, case.spacing_mm, 0.5, "residual_unet", "ab" * 32)
    write_dicom_seg(path, case, result, **options)
    return mask


def read_by_brainseg(path: Path, case: Case) -> np.ndarray:
    return read_dicom_seg(path, case)


def read_by_highdicom(path: Path, case: Case) -> np.ndarray:
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    return resliced(volume.array, volume.affine, case)


def read_by_itk(path: Path, case: Case) -> np.ndarray:
    array, affine = itk_volume(path)
    return resliced(array > 0, affine, case)


def itk_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels (X, Y, Z) of a file as ITK reads it, and the affine (LPS) from its origin, spacing and direction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import itk

        image = itk.imread(str(path), itk.UC)
    return np.asarray(image).transpose(2, 1, 0), itk_affine(image)


def itk_affine(image: Any) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
    affine[:3, 3] = list(image.GetOrigin())
    return affine


def farthest_corner_mm(shape: tuple[int, ...], one: np.ndarray, other: np.ndarray) -> float:
    """How far apart two affines put a corner of a grid at most."""
    corners = np.array([[*np.array(corner) * (np.array(shape) - 1), 1] for corner in np.ndindex(2, 2, 2)])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def read_by_tags(path: Path, case: Case) -> np.ndarray:
    """Each marked pixel on its own: PS3.3 C.7.6.2.1-1 with the tags of its frame."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float), (2, 3))
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    mask = np.zeros(case.shape, np.uint8)
    for frame, groups in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for j, i in np.argwhere(frame):
            point = LPS @ np.append(position + row * across * i + column * down * j, 1)
            mask[place(point, case)] = 1
    return mask


def resliced(array: np.ndarray, affine_lps: np.ndarray, case: Case) -> np.ndarray:
    """Another reader's voxels, put where it says that they are."""
    mask = np.zeros(case.shape, np.uint8)
    for voxel in np.argwhere(array):
        mask[place(LPS @ affine_lps @ [*voxel, 1], case)] = 1
    return mask


def place(point: np.ndarray, case: Case) -> tuple[int, ...]:
    """The voxel of the case at a point (RAS+ mm), which must be its middle."""
    whole = np.rint((np.linalg.inv(case.affine) @ point)[:3]).astype(int)
    assert np.linalg.norm((case.affine @ [*whole, 1] - point)[:3]) < WITHIN_MM
    return tuple(whole)


JUDGES: list[Callable[[Path, Case], np.ndarray]] = [read_by_brainseg, read_by_highdicom, read_by_itk, read_by_tags]


def errors_of(path: Path) -> set[str]:
    """The errors that dciodvfy finds in a file."""
    said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    assert any(line.strip() in ("Segmentation", "MRImage") for line in lines)
    return {line for line in lines if line.startswith("Error")}
