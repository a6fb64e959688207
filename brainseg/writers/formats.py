"""What a mask is written as beside mask.nii.gz: by what the input is, or by what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainseg.case import Case, Layout, Segmentation
from brainseg.errors import InputError
from brainseg.writers.dicom_seg import write_dicom_seg
from brainseg.writers.tiff import write_tiff_masks

SUITS: dict[str, Layout] = {"tiff": "tiff", "dicom-seg": "dicom"}  # the input that a format can be written for
SEG_NAME = "seg.dcm"


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
    source lacks what it must carry over: mask.nii.gz holds the mask all the same. A seg.dcm of an earlier run goes.

    Raises:
        MachineError: if a file cannot be written.
    """
    asked = [name for name, layout in SUITS.items() if (layout == case.layout if formats is None else name in formats)]
    left_out = [f"no {name}: the input is not {SUITS[name].upper()}" for name in asked if SUITS[name] != case.layout]
    (folder / SEG_NAME).unlink(missing_ok=True)
    if case.layout == "tiff" and "tiff" in asked:
        write_tiff_masks(folder, case, segmentation.mask)
    if case.layout == "dicom" and "dicom-seg" in asked:
        try:
            write_dicom_seg(folder / SEG_NAME, case, segmentation, per_lesion=segment_per_lesion)
        except InputError as error:
            left_out.append(f"no dicom-seg: {error.cause}")
    return left_out
