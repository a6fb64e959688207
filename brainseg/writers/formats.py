"""What a mask is written as beside mask.nii.gz: by what the input is, or by what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainseg.case import SLICES, Case, Segmentation
from brainseg.errors import InputError
from brainseg.writers.animation import write_animation
from brainseg.writers.dicom_seg import write_dicom_seg
from brainseg.writers.tiff import write_tiff_masks

SUITS = {"tiff": tuple(SLICES), "dicom-seg": ("dicom",)}  # the layouts that a format can be written for
SEG_NAME, ANIMATION_NAME = "seg.dcm", "overlay.gif"


def write_formats(
    folder: Path,
    case: Case,
    segmentation: Segmentation,
    formats: Sequence[str] | None,
    *,
    segment_per_lesion: bool = False,
) -> list[str]:
    """Writes `formats`, or where they are None what suits the case, and says in a sentence each what it left out.

    A format that does not fit the input is left out, so that one cohort may hold several; so is a DICOM SEG whose
    source lacks what it must carry over: mask.nii.gz holds the mask all the same. What an earlier run left of
    seg.dcm and overlay.gif goes.

    Raises:
        MachineError: if a file cannot be written.
    """
    suits = {name: case.layout in layouts for name, layouts in SUITS.items()}
    asked = [name for name in SUITS if (suits[name] if formats is None else name in formats)]
    left_out = [f"no {name}: the input is not {name.split('-')[0].upper()}" for name in asked if not suits[name]]
    for stale in (SEG_NAME, ANIMATION_NAME):
        (folder / stale).unlink(missing_ok=True)
    if suits["tiff"] and "tiff" in asked:
        write_tiff_masks(folder, case, segmentation.mask)
    if suits["dicom-seg"] and "dicom-seg" in asked:
        try:
            write_dicom_seg(folder / SEG_NAME, case, segmentation, per_lesion=segment_per_lesion)
        except InputError as error:
            left_out.append(f"no dicom-seg: {error.cause}")
    if formats is not None and "gif" in formats:
        write_animation(folder / ANIMATION_NAME, case, segmentation.mask)
    return left_out
