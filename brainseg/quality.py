"""Flags: what about a case or its result a person should look at before using the number.

What a FLAIR is expected to look like is fitted on the patients that the networks were trained on and kept in
`expected.json`; docs/quality.md says how often each flag is raised there, and by which command.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.appearance import Appearance
from brainseg.case import Case, Segmentation
from brainseg.measures import Lesion, axial_axis

FLAGS = {
    "not_flair": "its header does not say that it is a FLAIR, --force took it; unless it is one, nothing counts",
    "flair_unconfirmed": "the file cannot say that it is a FLAIR; make sure that it is",
    "t1_likely": "its grey values are those of a T1 rather than of a FLAIR; make sure which sequence it is",
    "unlike_training": "its grey values are distributed unlike those of the scans that the network learned from",
    "not_a_brain": "its outline is not that of a head or brain; make sure what was scanned",
    "cut_off": "head or mask reach the edge of the scan, so that some of the abnormality may lie outside",
    "few_or_thick_slices": "slices are few or thick, so that small lesions fall between them and volumes are coarse",
    "sequences_missing": "a sequence was not given and FLAIR was used in its place",
    "spacing_unknown": "the slices carry no spacing, so nothing is in mm or mL; give --spacing",
    "reader_note": "the reader changed or noticed something; see the notes below the lesions",
    "empty_mask": "no abnormality was found; look at the scan before believing a volume of zero",
    "implausible_volume": "so large or small a part of the head is marked as in no patient the network learned from",
    "scattered_mask": "the mask is in more pieces than any true one the network learned from",
    "format_left_out": "a file that was asked for or due could not be written; see the notes below the lesions",
    "low_confidence": "the network is unsure of much of what it marked",
    "mask_edited": "the mask was changed after the network made it; the figures are of the mask as it is now, without "
    "a range of true volumes, for that stands on the network's errors",
    "other_masks_earlier": "TIFF masks and DICOM SEG are still of the mask before; mask.nii.gz is the one that counts",
    "picture_earlier": "the picture shows the mask before it was changed, for slices.webp is gone",
}
EXPECTED = Path(__file__).with_name("expected.json")
# Of the training set's 90 patients: width / length 0.71 to 0.97, fill 0.78 to 1.08, top slice up to 0.47 of the
# largest, at no side's edge, true masks of 0.3% to 10% of the head and of up to 3 pieces, 20 slices and more.
ASPECT, FILL, LEAST_SHARE = (0.6, 1.15), (0.7, 1.15), 0.05
MOST_TOP, MOST_SIDE = 0.6, 0.1
FEWEST_SLICES, THICKEST_MM = 15, 7.0
HEAD_SHARE = (0.001, 0.15)
MOST_PIECES = 3
LOW_CONFIDENCE = 0.7  # 8 of the cross-validation's 90 patients lie below, four of five of a Dice under 0.65 among them

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """What of the head a mask is judged by, also one that is corrected later.

    Attributes:
        voxels: that it has; 0 where nothing stands out from the air.
        cut_off: it reaches the edge of the scan.
    """

    voxels: float
    cut_off: bool


def head_of(look: Appearance | None, voxels: int) -> Head:
    """The head in a scan of so many `voxels`."""
    if look is None:
        return Head(0.0, False)
    return Head(look.share * voxels, look.sides > MOST_SIDE or look.top > MOST_TOP)


def flags_of(
    case: Case,
    segmentation: Segmentation,
    lesions: Collection[Lesion],
    confidence: float,
    look: Appearance | None,
    *,
    certain: bool,
    left_out: bool = False,
) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold.

    Args:
        case: as read.
        segmentation: its result.
        lesions: of its mask.
        confidence: of the case, in [0, 1].
        look: `appearance` of its FLAIR.
        certain: whether the source itself says that it is a FLAIR.
        left_out: whether a format does not suit the input, or the input it.
    """
    mask = segmentation.mask
    holds = {
        **_of_mask(mask, case.affine, len(lesions), confidence, head_of(look, mask.size)),
        "not_flair": not certain and case.layout == "dicom",
        "flair_unconfirmed": not certain and case.layout != "dicom",
        "t1_likely": look is not None and not certain and looks_like_t1(look),
        "unlike_training": look is not None and is_strange(look),
        "not_a_brain": look is None or not has_outline_of_head(look),
        "few_or_thick_slices": _few_or_thick(case),
        "sequences_missing": bool(case.missing),
        "spacing_unknown": case.spacing_mm is None,
        "reader_note": bool(case.notes),
        "format_left_out": left_out,
    }
    return tuple(flag for flag in FLAGS if holds.get(flag))


def flags_of_correction(
    before: Collection[str],
    mask: NDArray[Any],
    affine: Array,
    pieces: int,
    confidence: float | None,
    head: Head | None,
    *,
    edited: bool,
    others: bool,
    picture: bool,
) -> tuple[str, ...]:
    """The keys of `FLAGS` that hold of a mask measured again: what was known of the scan, and what is of the mask.

    Args:
        before: flags of the case as it was segmented.
        mask: as it is now, (X, Y, Z).
        affine: its 4x4.
        pieces: that it is in.
        confidence: None where it is unknown.
        head: None where it was not recorded; what is judged by it then stays as it was.
        edited: the mask is not the one that the network made.
        others: the same mask in other formats is the earlier one.
        picture: so is the one in the picture.
    """
    holds = _of_mask(mask, affine, pieces, confidence, head or Head(0.0, False))
    if head is None:
        holds["cut_off"] = "cut_off" in before
        holds["implausible_volume"] = not edited and "implausible_volume" in before
    holds |= {
        "mask_edited": edited,
        "other_masks_earlier": others,
        "picture_earlier": picture,
    }
    return tuple(flag for flag in FLAGS if holds.get(flag, flag in before))


def _of_mask(mask: NDArray[Any], affine: Array, pieces: int, confidence: float | None, head: Head) -> dict[str, bool]:
    marked = int(np.count_nonzero(mask))
    return {
        "cut_off": head.cut_off or reaches_edge(mask, axial_axis(affine)),
        "empty_mask": not marked,
        "implausible_volume": bool(marked) and not HEAD_SHARE[0] <= marked / max(1.0, head.voxels) <= HEAD_SHARE[1],
        "scattered_mask": pieces > MOST_PIECES,
        "low_confidence": confidence is not None and confidence < LOW_CONFIDENCE,
    }


def has_outline_of_head(look: Appearance) -> bool:
    """Whether what stands out from the air has the outline of a head or a stripped brain, seen from above."""
    return ASPECT[0] <= look.aspect <= ASPECT[1] and FILL[0] <= look.fill <= FILL[1] and look.share >= LEAST_SHARE


def reaches_edge(mask: NDArray[Any], axial: int) -> bool:
    """Whether `mask` (X, Y, Z) has a voxel in the first or last slice across the axis `axial`."""
    return bool(np.any(np.take(mask, (0, -1), axial)))


def _few_or_thick(case: Case) -> bool:
    axis = axial_axis(case.affine)
    thick = case.spacing_mm is not None and max(case.spacing_mm) > THICKEST_MM  # also of a sagittal or coronal stack
    return not case.apart and case.layout != "picture" and (thick or case.shape[axis] < FEWEST_SLICES)


def looks_like_t1(look: Appearance) -> bool:
    """Whether grey values from skin to centre lie farther on the side of the T1 than any fitted FLAIR's, with room.

    Never of what is farther from all the scans that were fitted than any of them: there the line says nothing.
    """
    fitted, features = _expected()["t1"], ring_features(look)
    apart = (features - np.array(fitted["mean"])) / np.array(fitted["deviation"])
    if float(np.sqrt((apart**2).mean())) > float(fitted["farthest"]):
        return False
    return float(t1_score(features[None], fitted)[0]) > float(fitted["limit"])


def is_strange(look: Appearance) -> bool:
    """Whether its grey values are farther from those of the training set's FLAIR than any of these is."""
    fitted = _expected()["greys"]
    return float(strangeness(grey_features(look)[None], fitted)[0]) > float(fitted["limit"])


def ring_features(look: Appearance) -> Array:
    """What `t1_score` looks at."""
    return look.rings.ravel()


def grey_features(look: Appearance) -> Array:
    """What `strangeness` looks at."""
    features: Array = np.log(np.maximum(look.quantiles, 1e-3))
    return features


def t1_score(features: Array, fitted: Mapping[str, Any]) -> Array:
    """For each row of `features` (n, f) how much it is a T1 (positive) rather than a FLAIR (negative)."""
    scaled = (features - np.array(fitted["mean"])) / np.array(fitted["deviation"])
    score: Array = scaled @ np.array(fitted["weights"]) + fitted["bias"]
    return score


def strangeness(features: Array, fitted: Mapping[str, Any]) -> Array:
    """Mahalanobis distance of each row of `features` (n, f)."""
    apart = features - np.array(fitted["mean"])
    distance: Array = np.sqrt(np.einsum("ni,ij,nj->n", apart, np.array(fitted["precision"]), apart))
    return distance


@lru_cache(maxsize=1)
def _expected() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return content
