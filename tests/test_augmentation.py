"""The bundles' own augmentation of a training batch: image and label stay together, and sequences go missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg.bundle import shipped

STILL = {  # what keeps every slice where and as it is
    "spread": "$lambda x, most, *shape: torch.zeros(len(x), *shape)",
    "chance": "$lambda x, share: torch.full((len(x), 1, 1, 1), share > 0.5)",
    "augment::mirrored": "$lambda x: torch.ones(len(x), 2, 1)",
    "coarse": "$lambda: False",
    "missing": [1.0, 0.0, 0.0, 0.0],
}


def augmented(batch: dict[str, torch.Tensor], **overrides: Any) -> dict[str, torch.Tensor]:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(Path(shipped()["residual_unet"]) / "configs" / "train.json"))
    parser.update({"window": [32, 48], **overrides})
    return parser.get_parsed_content("augment#batch")(batch)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Eight slices: three sequences of different brightness, a deep head, and a tumour off the middle."""
    image = torch.ones(8, 4, 64, 80) * torch.tensor([1.0, 2.0, 3.0, 100.0])[:, None, None]
    label = torch.zeros(8, 1, 64, 80)
    label[..., 24:34, 30:50] = 1
    image[:, :3] += 4 * label
    return {"image": image, "label": label}


def test_a_still_window_is_the_middle_of_the_slice(batch: dict[str, torch.Tensor]) -> None:
    after = augmented(batch, **STILL)
    assert torch.allclose(after["image"], batch["image"][:, :3, 16:48, 16:64], atol=1e-4)
    assert torch.equal(after["label"], batch["label"][:, :, 16:48, 16:64])


def test_coarse_training_sees_the_same_field_at_half_the_resolution(batch: dict[str, torch.Tensor]) -> None:
    after = augmented(batch, **{**STILL, "coarse": "$lambda: True"})
    middle = batch["image"][:, :3, 16:48, 16:64]
    assert torch.allclose(after["image"], torch.nn.functional.avg_pool2d(middle, 2), atol=1e-4)
    assert after["label"].sum() * 4 == batch["label"].sum()


def test_the_label_goes_where_the_tumour_goes(batch: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    moving = {key: value for key, value in STILL.items() if key in ("coarse", "missing")}
    still_intensities = {"augment::intensities": {"_target_": "Compose", "transforms": []}}
    after = augmented(batch, **moving, **still_intensities)
    bright = after["image"][:, :1] > 3
    agree = (bright == (after["label"] > 0)).float().mean()
    assert agree > 0.99
    assert not torch.equal(after["label"][0], after["label"][1])


def test_mirrored_slices_exchange_left_and_right_only(batch: dict[str, torch.Tensor]) -> None:
    mirrored = "$lambda x: torch.stack([torch.ones(len(x)), -torch.ones(len(x))], -1)[:, :, None]"
    after = augmented(batch, **{**STILL, "augment::mirrored": mirrored})
    assert torch.equal(after["label"], batch["label"][:, :, 16:48, 16:64].flip(2))


@pytest.mark.parametrize(("seen", "sources"), [(0, (1, 2, 3)), (1, (2, 2, 3)), (2, (1, 2, 2)), (3, (2, 2, 2))])
def test_a_missing_sequence_is_a_copy_of_flair(
    batch: dict[str, torch.Tensor], seen: int, sources: tuple[int, int, int]
) -> None:
    missing = [float(k == seen) for k in range(4)]
    after = augmented(batch, **{**STILL, "missing": missing})
    assert after["image"][0, :, 0, 0].tolist() == pytest.approx(sources, abs=1e-3)


def test_stripping_takes_what_lies_under_the_skin_but_never_tumour(batch: dict[str, torch.Tensor]) -> None:
    batch["image"][:, 3] = 0
    after = augmented(batch, **{**STILL, "chance": "$lambda x, share: torch.full((len(x), 1, 1, 1), False)"})
    tumour = after["label"].expand(-1, 3, -1, -1) > 0
    assert (after["image"][~tumour] == 0).all()
    assert (after["image"][tumour] > 0).all()


def test_a_cyst_darkens_a_part_well_inside_the_tumour(batch: dict[str, torch.Tensor]) -> None:
    all_dark = {"cysts": 1, "augment::waves": "$lambda x: torch.ones(len(x), 1, *x.shape[2:])"}
    before = augmented(batch, **STILL)
    after = augmented(batch, **STILL, **all_dark)
    assert torch.equal(after["label"], before["label"])
    share = after["image"] / before["image"]
    # The tumour is in rows 8 to 17, columns 14 to 33 of the window; a cyst keeps two pixels off and is smoothed by one.
    assert torch.allclose(share[:, :, 11:15, 17:31], torch.tensor(0.4), atol=1e-4)
    share[:, :, 9:17, 15:33] = 1
    assert torch.allclose(share, torch.tensor(1.0), atol=1e-4)
