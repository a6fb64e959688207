"""Flags: what about a case or its result a person should look at before using the number."""

from __future__ import annotations

from brainseg.case import Case, Segmentation

FLAGS = {
    "flair_unconfirmed": "the file cannot say that it is a FLAIR; make sure that it is",
    "sequences_missing": "a sequence was not given and FLAIR was used in its place",
    "spacing_unknown": "the slices carry no spacing, so nothing is in mm or mL; give --spacing",
    "reader_note": "the reader changed or noticed something; see the notes below the lesions",
    "empty_mask": "no abnormality was found; look at the scan before believing a volume of zero",
    "format_left_out": "a file that was asked for or due could not be written; see the notes below the lesions",
    "low_confidence": "the network is unsure of much of what it marked",
}
LOW_CONFIDENCE = 0.85  # a tenth of the cross-validation's patients lie below


def flags_of(
    case: Case, segmentation: Segmentation, confidence: float, *, certain: bool, left_out: bool = False
) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold.

    Args:
        case: as read.
        segmentation: its result.
        confidence: of the case, in [0, 1].
        certain: whether the source itself says that it is a FLAIR.
        left_out: whether a format does not suit the input, or the input it.
    """
    holds = {
        "flair_unconfirmed": not certain,
        "sequences_missing": bool(case.missing),
        "spacing_unknown": case.spacing_mm is None,
        "reader_note": bool(case.notes),
        "empty_mask": not segmentation.mask.any(),
        "format_left_out": left_out,
        "low_confidence": confidence < LOW_CONFIDENCE,
    }
    return tuple(flag for flag in FLAGS if holds[flag])
