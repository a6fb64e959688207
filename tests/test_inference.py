"""segment: from a Case to a mask on the Case's own grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from brainseg.bundle import Bundle, open_bundle
from brainseg.case import TIFF_AFFINE, Case
from brainseg.errors import InputError
from brainseg.inference import segment, segment_cases
from brainseg.phantom import make_phantom


class Bright(torch.nn.Module):
    """Stands in for a network: abnormal is where FLAIR is 1.3 times the head's mean or brighter."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sign(image[:, 1:2] - 1.3) * 20  # a slice outvotes its neighbours


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return replace(open_bundle("residual_unet", device="cpu"), network=Bright(), look=lambda network: network)


def marked(shape: tuple[int, int, int], affine: np.ndarray, spacing: tuple[float, float, float] | None) -> Case:
    """A box of a head with a brighter box in one corner."""
    image = np.zeros((3, *shape), np.float32)
    x, y, z = (size // 8 for size in shape)
    image[:, x:-x, y:-y] = 100
    image[:, 2 * x : 4 * x, 2 * y : 3 * y, z : z + 3] = 250
    return Case("box", image, affine, spacing, "nifti" if spacing else "tiff")


@pytest.mark.parametrize("shape", [(40, 48, 5), (256, 256, 4), (300, 400, 4)])
def test_the_mask_covers_the_bright_box_whether_smaller_or_larger_than_the_window(
    bundle: Bundle, shape: tuple[int, int, int]
) -> None:
    case = marked(shape, TIFF_AFFINE, None)
    result = segment(case, replace(bundle, mask=_threshold_only))
    assert result.mask.shape == shape
    np.testing.assert_array_equal(result.mask, case.image[1] == 250)


def _threshold_only(data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**data, "pred": (data["pred"] >= 0.5).float()}


@pytest.mark.parametrize(
    ("axes", "rotation_deg"), [("LPS", (12, -8, 15)), ("RAS", (0, 0, 0)), ("PIR", (0, 0, 0)), ("SAL", (12, -8, 15))]
)
def test_the_mask_lies_on_the_lesion_in_world_millimetres(
    bundle: Bundle, axes: str, rotation_deg: tuple[float, float, float]
) -> None:
    spacing = tuple(5.0 if axis in "SI" else 2.0 for axis in axes)
    shape = tuple(32 if axis in "SI" else 110 for axis in axes)
    phantom = make_phantom(shape=shape, spacing_mm=spacing, axes=axes, rotation_deg=rotation_deg)
    case = Case("phantom", phantom.image, phantom.affine, phantom.spacing_mm, "nifti")
    result = segment(case, bundle)
    assert result.mask.shape == phantom.mask.shape
    centroid = phantom.affine[:3, :3] @ np.argwhere(phantom.mask).mean(0) + phantom.affine[:3, 3]
    inside = np.round(np.linalg.solve(phantom.affine, np.append(centroid, 1)))[:3].astype(int)
    assert result.mask[tuple(inside)] == 1
    both = np.count_nonzero(result.mask & phantom.mask)
    assert both > 0.8 * np.count_nonzero(phantom.mask)


def test_a_patient_of_one_slice_is_segmented(bundle: Bundle) -> None:
    case = marked((256, 256, 4), TIFF_AFFINE, None)
    one = replace(case, image=case.image[..., 1:2])
    assert segment(one, bundle).mask.shape == (256, 256, 1)


@pytest.mark.filterwarnings("ignore:Divide by zero")
def test_a_blank_sequence_gives_finite_probabilities(bundle: Bundle) -> None:
    case = marked((64, 64, 4), TIFF_AFFINE, None)
    case.image[0] = 0
    assert np.isfinite(segment(case, bundle).probability).all()


def test_the_mirror_image_alone_gives_the_mirrored_probability(bundle: Bundle) -> None:
    case = marked((64, 64, 4), TIFF_AFFINE, None)
    mirrored = replace(case, image=case.image[:, ::-1].copy())
    plain, turned = segment(case, bundle, tta=True), segment(mirrored, bundle, tta=True)
    np.testing.assert_allclose(plain.probability, turned.probability[::-1], atol=1e-6)


def test_an_ensemble_averages_probabilities(bundle: Bundle) -> None:
    case = marked((64, 64, 4), TIFF_AFFINE, None)
    dull = replace(bundle, network=torch.nn.Conv2d(3, 1, 1))
    torch.nn.init.zeros_(dull.network.weight)
    torch.nn.init.constant_(dull.network.bias, -100.0)
    both = segment(case, [bundle, dull])
    np.testing.assert_allclose(both.probability, segment(case, bundle).probability / 2, atol=1e-6)
    assert both.bundle == "residual_unet+residual_unet"


def test_probability_and_mask_are_reproducible_bit_for_bit(tmp_path: Path) -> None:
    phantom = make_phantom(shape=(96, 96, 4), spacing_mm=(2.4, 2.4, 20.0))
    case = Case("phantom", phantom.image, phantom.affine, phantom.spacing_mm, "nifti")
    opened = open_bundle("residual_unet", device="cpu")
    first, second = segment(case, opened), segment(case, opened)
    np.testing.assert_array_equal(first.probability, second.probability)
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        ((0.95, 0.7), [True, False]),
        ((0.95, 0.9), [True, True]),
        ((0.7, 0.6), [True, False]),
        ((0.45, 0.7), [False, True]),
        ((0.45, 0.4), [True, False]),
    ],
)
def test_an_unsure_lesion_is_dropped_but_never_the_one_with_most_voxels_of_a_half(
    bundle: Bundle, seen: tuple[float, float], kept: list[bool]
) -> None:
    probability = torch.zeros(1, 40, 40, 6)
    probability[:, 2:20, 2:20, 1:4], probability[:, 25:35, 25:35, 1:4] = seen
    mask = bundle.mask({"pred": MetaTensor(probability)})["pred"][0]
    assert [bool(mask[3, 3, 2]), bool(mask[30, 30, 2])] == kept
    assert int(mask.sum()) == 18 * 18 * 3 * kept[0] + 300 * kept[1]
    assert bundle.mask({"pred": MetaTensor(torch.zeros(1, 40, 40, 6))})["pred"].sum() == 0


def test_small_objects_go_and_those_that_touch_by_an_edge_alone_are_two(bundle: Bundle) -> None:
    probability = torch.zeros(1, 40, 40, 6)
    kept = torch.zeros(1, 40, 40, 6, dtype=torch.bool)
    kept[:, :5, :6, :5] = True  # 150 voxels
    kept[:, 5:10, 6:13, 1:6] = True  # 175, which touch those by an edge
    probability[kept] = 0.9
    probability[:, 10:15, 13:18, 1:6] = 0.9  # 125, which touch these so
    probability[:, 30:35, 30:35, :5] = 0.9  # 125 alone
    mask = bundle.mask({"pred": MetaTensor(probability)})["pred"]
    assert torch.equal(torch.as_tensor(mask) > 0, kept)


def test_a_slice_shares_with_its_neighbours_and_the_ends_with_themselves(bundle: Bundle) -> None:
    case = marked((64, 64, 4), TIFF_AFFINE, None)
    logits = torch.tensor([4.0, -8.0, 0.0, 2.0])
    data = bundle.preprocessing(
        {"image": MetaTensor(torch.from_numpy(case.image), affine=torch.from_numpy(case.affine))}
    )
    data["pred"] = logits.expand(1, *data["image"].shape[1:])
    expected = torch.sigmoid(torch.tensor([1.0, -3.0, -1.5, 1.5]) / bundle.temperature)
    torch.testing.assert_close(torch.as_tensor(bundle.probability(data)["pred"][0, 32, 32]), expected)


def test_a_head_on_few_of_many_slices_is_not_cut(bundle: Bundle) -> None:
    case = marked((96, 96, 60), TIFF_AFFINE, None)
    case.image[:] = 0
    case.image[:, 12:-12, 12:-12, 28:36] = 100
    case.image[:, 12:16, 12:-12, 28:36] = 250  # skin, which alone is bright through all slices
    case.image[:, 76:84, 14:80, 28:29] = 200  # a tumour at the other rim
    result = segment(case, replace(bundle, mask=_threshold_only))
    np.testing.assert_array_equal(result.mask, case.image[1] >= 200)


def test_many_cases_are_segmented_as_each_by_itself(bundle: Bundle) -> None:
    stack = marked((40, 48, 5), TIFF_AFFINE, None)
    cases = [stack, marked((64, 40, 4), TIFF_AFFINE, None), replace(stack, apart=True)]
    both = [bundle, replace(bundle, threshold=0.4)]
    for given in (bundle, both):
        results = list(segment_cases(iter(cases), given))
        assert len(results) == len(cases)
        for result, case in zip(results, cases, strict=True):
            alone = segment(case, given)
            np.testing.assert_array_equal(result.mask, alone.mask)
            np.testing.assert_array_equal(result.probability, alone.probability)
            assert (result.bundle, result.spacing_mm) == (alone.bundle, alone.spacing_mm)


def test_a_case_that_cannot_be_read_ends_the_cases_in_its_turn(bundle: Bundle) -> None:
    def cases() -> Iterator[Case]:
        yield marked((40, 48, 5), TIFF_AFFINE, None)
        raise InputError("second", "is damaged", "copy it again")

    results = segment_cases(cases(), bundle)
    assert next(results).mask.any()
    with pytest.raises(InputError, match="second"):
        next(results)
