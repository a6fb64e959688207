"""Every flag is raised by its planted fault, and none of a fault by a sound scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brainseg.appearance import Appearance, appearance
from brainseg.case import FLAIR, Case, Segmentation
from brainseg.measures import find_lesions
from brainseg.phantom import make_phantom
from brainseg.quality import FLAGS, flags_of

# What a synthetic head is may look strange to what was learned from real ones, so these two have tests of their own.
LOOKS = {"t1_likely", "unlike_training"}


@pytest.fixture(scope="module")
def sound() -> Case:
    phantom = make_phantom(shape=(128, 128, 24), spacing_mm=(1.8, 1.8, 6.0))
    return Case("phantom", phantom.image.astype(np.float32), phantom.affine, phantom.spacing_mm, "nifti")


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return make_phantom(shape=(128, 128, 24), spacing_mm=(1.8, 1.8, 6.0)).mask


def look_of(case: Case) -> Appearance | None:
    return appearance(case.image[FLAIR], case.affine)


def raised(case: Case, mask: np.ndarray, *, confidence: float = 0.95, certain: bool = True, **more: bool) -> set[str]:
    probability = mask.astype(np.float32)
    result = Segmentation(mask, probability, case.affine, case.spacing_mm, 0.5, "none", "0")
    lesions = find_lesions(mask, probability, case.affine, case.spacing_mm)
    return set(flags_of(case, result, lesions, confidence, look_of(case), certain=certain, **more)) - LOOKS


def test_a_sound_scan_raises_no_flag(sound: Case, mask: np.ndarray) -> None:
    assert raised(sound, mask) == set()


def test_what_the_source_lacks_is_flagged(sound: Case, mask: np.ndarray) -> None:
    assert raised(sound, mask, certain=False) == {"flair_unconfirmed"}
    assert raised(replace(sound, layout="dicom"), mask, certain=False) == {"not_flair"}
    assert raised(replace(sound, missing=("pre-contrast",)), mask) == {"sequences_missing"}
    assert raised(replace(sound, notes=("MONOCHROME1 inverted",)), mask) == {"reader_note"}
    assert raised(sound, mask, left_out=True) == {"format_left_out"}
    assert raised(sound, mask, confidence=0.69) == {"low_confidence"}
    assert raised(sound, mask, confidence=0.71) == set()


def test_slices_without_spacing_are_flagged(sound: Case, mask: np.ndarray) -> None:
    bare = replace(sound, affine=np.diag([-1.0, -1.0, 1.0, 1.0]), spacing_mm=None, layout="tiff")
    assert raised(bare, mask) == {"spacing_unknown"}


def test_few_slices_and_thick_slices_are_flagged(sound: Case, mask: np.ndarray) -> None:
    few = replace(sound, image=sound.image[..., 7:21])
    assert "few_or_thick_slices" in raised(few, mask[..., 7:21])
    thick = sound.affine @ np.diag([1, 1, 7.5 / 6, 1])
    assert raised(replace(sound, affine=thick, spacing_mm=(1.8, 1.8, 7.5)), mask) == {"few_or_thick_slices"}


def test_a_head_that_the_field_of_view_cuts_is_flagged(sound: Case, mask: np.ndarray) -> None:
    assert "cut_off" in raised(replace(sound, image=sound.image[:, 40:]), mask[40:])  # one side
    assert "cut_off" in raised(replace(sound, image=sound.image[..., :16]), mask[..., :16])  # the vertex


@pytest.mark.parametrize("slice_", [0, -1])
def test_a_mask_in_the_first_or_last_slice_is_flagged(slice_: int, sound: Case, mask: np.ndarray) -> None:
    marked = mask.copy()
    marked[60:66, 60:66, slice_] = 1
    assert raised(sound, marked) == {"cut_off"}


@pytest.mark.parametrize("shape", ["box", "noise", "nothing"])
def test_what_is_no_head_is_flagged(shape: str, sound: Case, mask: np.ndarray) -> None:
    image = np.zeros_like(sound.image)
    if shape == "box":
        image[:, 20:40, 5:120, 2:20] = 100
    elif shape == "noise":
        image += np.random.default_rng(0).uniform(0, 100, image.shape).astype(np.float32)
    assert "not_a_brain" in raised(replace(sound, image=image), mask)


def test_an_empty_mask_is_flagged_and_not_called_implausible(sound: Case, mask: np.ndarray) -> None:
    assert raised(sound, np.zeros_like(mask)) == {"empty_mask"}


def test_a_mask_of_a_fifth_of_the_head_and_one_of_a_crumb_are_flagged(sound: Case, mask: np.ndarray) -> None:
    huge, crumb = np.zeros_like(mask), np.zeros_like(mask)
    huge[40:90, 40:95, 4:20] = 1
    crumb[60:63, 60:63, 12] = 1
    assert raised(sound, huge) == {"implausible_volume"}
    assert raised(sound, crumb) == {"implausible_volume"}


def test_a_mask_in_more_than_three_pieces_is_flagged(sound: Case, mask: np.ndarray) -> None:
    pieces = np.zeros_like(mask)
    for corner in (40, 55, 70, 85):
        pieces[corner : corner + 8, 60:68, 10:14] = 1
    assert raised(sound, pieces) == {"scattered_mask"}
    pieces[85:93] = 0
    assert raised(sound, pieces) == set()


def test_grey_values_far_from_any_flair_are_flagged(sound: Case, mask: np.ndarray) -> None:
    saturated = np.where(sound.image > 20, 255.0, 0.0).astype(np.float32)
    result = Segmentation(mask, mask.astype(np.float32), sound.affine, sound.spacing_mm, 0.5, "none", "0")
    strange = replace(sound, image=saturated)
    assert "unlike_training" in flags_of(strange, result, [], 0.95, look_of(strange), certain=True)


def test_a_header_that_says_flair_is_believed_before_grey_values(sound: Case, mask: np.ndarray) -> None:
    t1 = replace(sound, image=np.repeat(sound.image[:1], 3, axis=0))
    result = Segmentation(mask, mask.astype(np.float32), sound.affine, sound.spacing_mm, 0.5, "none", "0")
    assert "t1_likely" not in flags_of(t1, result, [], 0.95, look_of(t1), certain=True)


def test_every_flag_has_a_sentence_without_a_separator() -> None:
    assert all(sentence and ";;" not in sentence for sentence in FLAGS.values())
    assert len(FLAGS) == 18
    assert FLAIR == 1
