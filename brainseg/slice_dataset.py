"""Slices that a bundle does not read (PNG, JPEG, MATLAB, slices that stand alone) as NIfTI volumes that it does.

A bundle takes TIFF slices as they are. These are brought by the program's own readers, once, into a folder of the run:
uint8, or as the slices have it, with the pixel size that `brainseg segment` takes them to have, so that training and
segmentation see the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import CHANNELS, FLAIR
from brainseg.errors import InputError
from brainseg.study import Patient


def needs_volumes(patients: Sequence[Patient]) -> bool:
    """Whether bundles do not read these patients' files themselves."""
    return any(patient.alone or patient.flair.layout in ("picture", "matlab") for patient in patients)


def write_volumes(
    datalist: Mapping[str, Any], patients: Sequence[Patient], data: Path, folder: Path, *, pixel_mm: float
) -> dict[str, Any]:
    """Writes `folder/<case>/flair.nii.gz` and `flair_mask.nii.gz` for every item, and gives the datalist of these.

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
        images, labels = ([data / one for one in item[key]] for key in ("image", "label"))
        patient = by_name[item["case"]]
        patient = replace(patient, flair=replace(patient.flair, files=tuple(images)), masks=tuple(labels))
        image, label = _write(patient, folder / patient.name, pixel_mm)
        names = [os.fspath(Path(patient.name) / name) for name in image]
        items.append({**item, "image": names, "label": os.fspath(Path(patient.name) / label)})
    return {**datalist, "training": items}


def _write(patient: Patient, folder: Path, pixel_mm: float) -> tuple[list[str], str]:
    """Writes one patient's volumes and gives their names: pre-contrast, FLAIR, post-contrast; and the mask's."""
    from brainseg.readers import read_ground_truth, read_patient
    from brainseg.writers.nifti import write_image, write_mask

    case = read_patient(patient)
    mask = read_ground_truth(patient)
    if mask is None:
        raise InputError(patient.path, "has no mask", "train on slices with masks")
    pixel_mm /= case.finer
    affine = case.affine @ np.diag([pixel_mm, pixel_mm, 1.0, 1.0])
    names = ["t1.nii.gz", "flair.nii.gz", "t1c.nii.gz"]  # in the order of CHANNELS
    for channel, sequence in enumerate(CHANNELS):
        if sequence in case.missing:
            names[channel] = names[FLAIR]
        else:
            write_image(folder / names[channel], _smallest(case.image[channel]), affine)
    write_mask(folder / "flair_mask.nii.gz", mask, affine)
    return names, "flair_mask.nii.gz"


def _smallest(array: NDArray[np.float32]) -> NDArray[Any]:
    """`array` in the smallest of uint8 and int16 that holds its values, else itself."""
    for kind in (np.uint8, np.int16):
        span = np.iinfo(kind)
        if span.min <= array.min() and array.max() <= span.max and np.array_equal(array, np.rint(array)):
            return array.astype(kind)
    return array
