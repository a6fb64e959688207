"""Occlusion saliency: networks made by hand look where they are told to, and the heat lies there on the scan's grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Bright, brainseg, open_bundles_with
from matplotlib import image as pictures

from brainseg.bundle import Bundle, open_bundle, read_config, shipped
from brainseg.case import TIFF_AFFINE, Case
from brainseg.errors import InputError, UsageError
from brainseg.inference import segment
from brainseg.phantom import make_phantom, write_phantom_nifti
from brainseg.readers import read_case
from brainseg.saliency import occlusion_saliency, show_saliency

TURNED = np.array([[0.0, 0, 1.0, 10], [-1.0, 0, 0, 20], [0, -4.0, 0, 30], [0, 0, 0, 1]])  # voxel axes: P, I, R


class Mirrored(Bright):
    """Marks the mirror image, left for right, of what is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.flip(image, (2,)))


class Blind(torch.nn.Module):
    """Marks nothing, whatever it sees."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :1] * 0 - 5


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return replace(open_bundle("residual_unet", device="cpu"), network=Bright())


def planted() -> Case:
    """A head of 96 x 128 x 4 voxels, LPS, with a lesion at the patient's right, in front, on slice 2 (from 0)."""
    image = np.zeros((3, 96, 128, 4), np.float32)
    image[:, 8:-8, 8:-8] = 100
    image[:, 16:32, 24:40, 2] = 250
    return Case("planted", image, TIFF_AFFINE, None, "tiff")


def peak(drop: np.ndarray) -> tuple[int, ...]:
    """The middle of the voxels with the largest drop."""
    return tuple(np.argwhere(drop > 0.99 * drop.max()).mean(axis=0).round().astype(int))


def test_saliency_peaks_at_the_planted_lesion_and_lies_in_its_slice_alone(bundle: Bundle) -> None:
    found = occlusion_saliency(planted(), bundle, 2)
    assert found.drop.shape == (96, 128, 4)
    assert found.marked
    x, y, z = peak(found.drop)
    assert (16 <= x < 32, 24 <= y < 40, z) == (True, True, 2)
    assert not found.drop[..., [0, 1, 3]].any()
    assert abs(found.drop[60:, 80:]).max() < 1e-3  # far away nothing matters


def test_saliency_shows_where_the_network_looks_and_not_what_it_marks(bundle: Bundle) -> None:
    x, y, _ = peak(occlusion_saliency(planted(), replace(bundle, network=Mirrored()), 2).drop)
    assert (16 <= x < 32, 24 <= y < 40) == (True, True)


def test_hiding_the_lesion_takes_most_of_its_brightness_and_never_more(bundle: Bundle) -> None:
    drop = occlusion_saliency(planted(), bundle, 2).drop.max()
    assert 15 < drop <= 20 * (250 / 100 - 1)  # on average over the squares that hide it, some but in part


def test_a_scan_of_any_orientation_has_its_heat_on_its_own_grid(bundle: Bundle) -> None:
    upright = planted()
    turned = upright.image.transpose(0, 2, 3, 1)[:, :, ::-1, ::-1]  # axes P, I, R
    case = Case("turned", turned.copy(), TURNED, (1.0, 4.0, 1.0), "nifti")
    found = occlusion_saliency(case, bundle, 2)
    assert found.square_mm == pytest.approx(30)
    assert found.drop.shape == (128, 4, 96)
    x, y, z = peak(found.drop)
    assert case.image[1, x, y, z] == 250


def test_a_network_that_marks_nothing_is_asked_about_the_whole_slice(bundle: Bundle) -> None:
    found = occlusion_saliency(planted(), replace(bundle, network=Blind()), 1)
    assert not found.marked
    assert not found.drop.any()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_network_can_be_asked_as_it_is(name: str, bundle: Bundle) -> None:
    torch.manual_seed(0)
    own = read_config(shipped()[name], "inference").get_parsed_content
    asked = replace(bundle, network=own("network_def").eval(), look=own("look"))
    case = planted()
    drop = occlusion_saliency(replace(case, image=case.image[:, 8:56, 8:56]), asked, 2).drop
    assert drop.shape == (48, 48, 4)
    assert np.isfinite(drop).all()
    assert drop[..., 2].any()


def test_slices_that_are_too_small_are_refused(bundle: Bundle) -> None:
    small = replace(planted(), image=np.ones((3, 5, 5, 2), np.float32))
    tiny = replace(bundle, preprocessing=lambda data: data)
    with pytest.raises(InputError, match="too small"):
        occlusion_saliency(small, tiny, 0)


def test_a_slice_that_is_not_there_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no slice 5; give 1 to 4"):
        show_saliency(planted(), bundle, tmp_path, number=5)


def test_the_command_draws_the_slice_with_most_mask(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phantom = make_phantom(shape=(64, 64, 8), spacing_mm=(3.6, 3.6, 16.0))
    write_phantom_nifti(phantom, tmp_path / "in", "one")
    open_bundles_with(Bright(), monkeypatch)
    assert brainseg("saliency", tmp_path / "in" / "one", "--out", tmp_path / "out", "--device", "cpu") == 0
    mask = segment(read_case(tmp_path / "in" / "one"), replace(bundle, network=Bright())).mask
    largest = int(np.count_nonzero(mask, axis=(0, 1)).argmax()) + 1
    (picture,) = (tmp_path / "out" / "one").iterdir()
    assert picture.name == f"saliency_{largest:03d}.png"
    assert str(picture) in capsys.readouterr().out
    assert pictures.imread(picture).shape[1] > 1000
    assert brainseg("saliency", tmp_path / "in" / "one", "--out", tmp_path / "out", "--slice", "99") == 2
