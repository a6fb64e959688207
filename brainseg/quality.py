"""Flags: what about a case or its result a person should look at before using the number."""

from __future__ import annotations

from collections.abc import Collection

from brainseg.case import Case, Segmentation

FLAGS = {
    "flair_unconfirmed": "the file cannot say that it is a FLAIR; make sure that it is",
    "sequences_missing": "a sequence was not given and FLAIR was used in its place",
    "spacing_unknown": "the slices carry no spacing, so nothing is in mm or mL; give --spacing",
    "reader_note": "the reader changed or noticed something; see the notes below the lesions",
    "empty_mask": "no abnormality was found; look at the scan before believing a volume of zero",
    "low_confidence": "the network is unsure of much of what it marked",
    "mask_edited": "the mask was changed after the network made it; the figures are of the mask as it is now",
    "other_masks_earlier": "TIFF masks and DICOM SEG are still of the mask before; mask.nii.gz is the one that counts",
    "picture_earlier": "the picture shows the mask before it was changed, for slices.webp is gone",
}
LOW_CONFIDENCE = 0.85  # a tenth of the cross-validation's patients lie below


def flags_of(case: Case, segmentation: Segmentation, confidence: float, *, certain: bool) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold.

    Args:
        case: as read.
        segmentation: its result.
        confidence: of the case, in [0, 1].
        certain: whether the source itself says that it is a FLAIR.
    """
    holds = {
        "flair_unconfirmed": not certain,
        "sequences_missing": bool(case.missing),
        "spacing_unknown": case.spacing_mm is None,
        "reader_note": bool(case.notes),
        "empty_mask": not segmentation.mask.any(),
        "low_confidence": confidence < LOW_CONFIDENCE,
    }
    return tuple(flag for flag in FLAGS if holds.get(flag))


def flags_of_correction(
    before: Collection[str], *, edited: bool, others: bool, picture: bool, empty: bool, confidence: float | None
) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold of a mask measured again: what was known of the scan, and what is of the mask.

    Args:
        before: flags of the case as it was segmented.
        edited: the mask is not the one that the network made.
        others: the same mask in other formats is the earlier one.
        picture: so is the one in the picture.
        empty: nothing is marked.
        confidence: None where it is unknown.
    """
    holds = {
        "empty_mask": empty,
        "low_confidence": confidence is not None and confidence < LOW_CONFIDENCE,
        "mask_edited": edited,
        "other_masks_earlier": others,
        "picture_earlier": picture,
    }
    return tuple(flag for flag in FLAGS if holds.get(flag, flag in before))
