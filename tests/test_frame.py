"""A large volume goes through a bundle's frame in slabs; the result is that of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from brainseg import frame
from brainseg.bundle import Bundle, open_bundle
from brainseg.frame import framed
from brainseg.phantom import make_phantom


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("residual_unet", device="cpu")


def there_and_back(bundle: Bundle, image: MetaTensor) -> tuple[Any, torch.Tensor]:
    one = framed(image, bundle)
    return one, one.back(one.image.as_tensor()[1:2] * 4 - 3)


@pytest.mark.parametrize(
    ("axes", "rotation"), [("LPS", None), ("RAS", None), ("SAR", None), ("IPR", None), ("RAS", (12, -8, 15))]
)
@pytest.mark.parametrize("slab", [64 * 60, 64 * 60 * 3, 64 * 60 * 7])
def test_slabs_give_what_the_whole_volume_gives(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, axes: str, rotation: Any, slab: int
) -> None:
    phantom = make_phantom(
        shape=(64, 60, 9), spacing_mm=(3.4, 3.7, 14.0), axes=axes, rotation_deg=rotation or (0, 0, 0)
    )
    image = MetaTensor(torch.from_numpy(phantom.image), affine=torch.from_numpy(phantom.affine))
    whole, expected = there_and_back(bundle, image)
    monkeypatch.setattr(frame, "LARGE_VOXELS", 0)
    monkeypatch.setattr(frame, "SLAB_VOXELS", slab)
    slabs, result = there_and_back(bundle, image)
    assert type(slabs) is not type(whole)
    assert float(np.ptp(expected)) > 0.3
    torch.testing.assert_close(slabs.image.as_tensor(), whole.image.as_tensor(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.as_tensor(slabs.image.affine), torch.as_tensor(whole.image.affine))
    torch.testing.assert_close(result.as_tensor(), expected.as_tensor(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.as_tensor(result.affine), torch.as_tensor(expected.affine))


def test_a_bundle_whose_preprocessing_is_no_list_of_steps_takes_the_volume_whole(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(frame, "LARGE_VOXELS", 0)
    foreign = replace(bundle, preprocessing=lambda data: data)
    image = MetaTensor(torch.rand(3, 32, 32, 4), affine=torch.eye(4))
    assert framed(image, foreign).image is image
