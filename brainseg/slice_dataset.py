"""Slices that a bundle does not read (PNG, JPEG, MATLAB, slices that stand alone) as NIfTI volumes that it does.

A bundle takes a stack of TIFF slices as it is. These are read by the program's own readers, once, and written to a
folder of the run, each slice as a volume by itself: uint8, or as the slices have it, with the pixel size that `segment`
takes them to have. So training and segmentation see the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import CHANNELS, FLAIR
from brainseg.errors import InputError
from brainseg.study import Patient
from brainseg.study.names import safe_name


def needs_volumes(patients: Sequence[Patient]) -> bool:
    """Whether bundles do not read these patients' files themselves."""
    return any(patient.alone or patient.flair.layout in ("picture", "matlab") for patient in patients)


def write_volumes(
    datalist: Mapping[str, Any], patients: Sequence[Patient], data: Path, folder: Path, *, pixel_mm: float
) -> dict[str, Any]:
    """Writes `folder/<case>/<slice>/flair.nii.gz` and `flair_mask.nii.gz`, and gives the datalist of these.

    Args:
        datalist: of lists of slices (`datalist.monai_datalist`), some of which may have been left out.
        patients: those that it was made of.
        data: what its paths are relative to; those of the new one are relative to `folder`.
        pixel_mm: size of the bundle's pixels.

    Raises:
        InputError: a slice or a mask cannot be read.
        MachineError: `folder` cannot be written.
    """
    by_name = {patient.name: patient for patient in patients}
    items = []
    for item in datalist["training"]:
        for image, label in zip(item["image"], item["label"], strict=True):
            whole = by_name[item["case"]]
            alone = replace(whole, flair=replace(whole.flair, files=(data / image,)), masks=(data / label,))
            names = _write(alone, folder, f"{whole.name}/{safe_name(Path(image).stem)}", pixel_mm)
            case = whole.name if len(item["image"]) == 1 else f"{whole.name}_{safe_name(Path(image).stem)}"
            items.append({**item, "image": names[:-1], "label": names[-1], "case": case})
    return {**datalist, "training": items}


def _write(patient: Patient, folder: Path, below: str, pixel_mm: float) -> list[str]:
    """Writes the volumes of a slice to `folder/below`: their paths, of CHANNELS in order and of the mask."""
    from brainseg.readers import read_ground_truth, read_patient
    from brainseg.writers.nifti import write_image, write_mask

    case = read_patient(patient)
    mask = read_ground_truth(patient)
    if mask is None:
        raise InputError(patient.path, "has no mask", "train on slices with masks")
    affine = case.affine @ np.diag([pixel_mm / case.finer, pixel_mm / case.finer, 1.0, 1.0])
    names = [f"{below}/{name}.nii.gz" for name in ("t1", "flair", "t1c", "flair_mask")]
    for channel, sequence in enumerate(CHANNELS):
        if sequence in case.missing:
            names[channel] = names[FLAIR]
        else:
            write_image(folder / names[channel], _smallest(case.image[channel]), affine)
    write_mask(folder / names[-1], mask, affine)
    return names


def _smallest(array: NDArray[np.float32]) -> NDArray[Any]:
    """`array` in the smallest of uint8 and int16 that holds its values, else itself."""
    for kind in (np.uint8, np.int16):
        span = np.iinfo(kind)
        if span.min <= array.min() and array.max() <= span.max and np.array_equal(array, np.rint(array)):
            return array.astype(kind)
    return array
