"""A case measured again from the mask in its folder, which a person may have corrected; mask.nii.gz is what counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.errors import InputError
from brainseg.measures import case_confidence, find_lesions, volume_ml
from brainseg.presence import counted
from brainseg.quality import flags_of_correction
from brainseg.record import MASK, Record, hashes_of, write_record
from brainseg.volume_error import known_error, volume_interval

SAME_GRID_MM = 0.1  # editors keep a position in single precision, or as a quaternion
REMEDY = "save the corrected mask on the scan's own grid, or put back the one that was there"


def remeasured(folder: Path, record: Record) -> Record:
    """Measures mask.nii.gz, writes the record anew, and what lesions.csv, slices.csv, overlay.png have not of it yet.

    The mask itself is never written. Confidence is that of the network's probability where it was saved; without it,
    that of an edited mask is unknown. TIFF masks and DICOM SEG stay as they were, which is flagged.

    Raises:
        InputError: if the mask is damaged, on another grid than the scan, or holds more than 0 and 1.
        MachineError: if the folder cannot be written.
    """
    from brainseg.readers.grid import Grid
    from brainseg.readers.nifti import read_nifti_mask, refuse_other_grid
    from brainseg.writers.tables import read_presence, write_lesions, write_slices

    path = folder / MASK
    if not path.is_file():
        raise InputError(path, "is not there", "run segment again")
    grid, in_mm = Grid(record.shape, record.affine), record.spacing_mm is not None
    refuse_other_grid(path, grid, in_mm=in_mm, tolerance_mm=SAME_GRID_MM, remedy=REMEDY)
    mask = read_nifti_mask(path, only_0_and_1=True)
    probability = _probability(folder, record)
    edited = record.edited(folder)
    confidence = record.made.confidence
    if edited:
        confidence = None if probability is None else round(case_confidence(probability, mask), 4)
    lesions = find_lesions(mask, probability, record.affine, record.spacing_mm, record.midline)
    there = hashes_of(folder)

    def stands(name: str) -> bool:
        return all(there.get(one) == record.files.get(one, "") for one in (MASK, name))

    if not stands("lesions.csv"):
        write_lesions(folder / "lesions.csv", lesions)
    table = folder / "slices.csv"
    if table.is_file() and not stands(table.name):
        write_slices(table, counted(mask, record.affine, record.spacing_mm, read_presence(table)))
    earlier = "picture_earlier" in record.row.flags
    drawn = (stands("overlay.png") and not earlier) or _draw(folder, record, mask)
    files = record.files | hashes_of(folder)  # what is gone stays missed
    volume = None if record.spacing_mm is None else volume_ml(mask, record.spacing_mm)
    error = None if edited else known_error(record.made.errors_of)  # the network's, not of who edits
    low, high = volume_interval(volume, error)
    row = replace(
        record.row,
        volume_ml=volume,
        volume_voxels=int(mask.sum()),
        volume_low_ml=low,
        volume_high_ml=high,
        lesions=len(lesions),
        confidence=confidence,
        flags=flags_of_correction(
            record.made.flags,
            mask,
            record.affine,
            len(lesions),
            confidence,
            record.made.head,
            edited=edited,
            others=edited and any(name.endswith("_mask.tif") or name == "seg.dcm" for name in files),
            picture=not drawn and "overlay.png" in there,
        ),
    )
    record = replace(record, row=row, files=files)
    write_record(folder, record)
    return record


def _probability(folder: Path, record: Record) -> NDArray[np.float32] | None:
    from brainseg.readers.nifti import read_nifti

    path = folder / "probability.nii.gz"
    if not path.is_file():
        return None
    array = read_nifti(path).array
    if array.shape != record.shape:
        raise InputError(path, "is not of this scan", "remove it, or run segment again")
    return array


def _draw(folder: Path, record: Record, mask: NDArray[Any]) -> bool:
    """Draws overlay.png again from slices.webp; False where that is gone."""
    from brainseg.writers.atomic import replacing

    content = overlay_of(folder, record, mask, folder.name)
    if content is None:
        return False
    with replacing(folder / "overlay.png") as partial:
        partial.write_bytes(content)
    return True


def overlay_of(folder: Path, record: Record, mask: NDArray[Any], name: str) -> bytes | None:
    """The overlay (PNG) of `mask` (X, Y, Z) under `name`, drawn from slices.webp; None where that is gone.

    Raises:
        InputError: if slices.webp cannot be read.
    """
    from brainseg.axial import axial_view, slices_of_view
    from brainseg.writers.overlay import overlay_png, volume_words
    from brainseg.writers.slices import SLICES, flair_of, read_slices

    if not (folder / SLICES).is_file():
        return None
    shape = axial_view(mask, record.affine).shape
    tiles, _ = read_slices(folder / SLICES, *shape)
    flair = flair_of(tiles, *shape[1:])
    slices = list(slices_of_view(flair, mask, record.affine, record.spacing_mm))
    words = volume_words(mask, record.spacing_mm) + (", mask edited" if record.edited(folder) else "")
    return overlay_png(slices, name, words)
