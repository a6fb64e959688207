"""The engines: which is chosen, and that each gives what the network gives."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Bright, brainseg, open_bundles_with
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.stats import binom
from small_networks import NAMES, small_image, small_network

from brainseg import backends
from brainseg.backends import BACKENDS, engine_for
from brainseg.backends.openvino import OpenVinoEngine
from brainseg.backends.rewrite import STEMS, divided, rewritten, stem_of
from brainseg.backends.slices import FLIPPED, LEAST_DICE, SliceEngine, may_be_near, unsure
from brainseg.backends.torch import TorchEngine
from brainseg.backends.torch_cpu import RewrittenEngine
from brainseg.bundle import Bundle, open_bundle, read_config, shipped
from brainseg.errors import UsageError
from brainseg.job import Options, fingerprint
from brainseg.phantom import make_phantom, write_phantom_nifti


@pytest.fixture(scope="module")
def shipped_bundle() -> Bundle:
    return replace(open_bundle("residual_unet", device="cpu"), look=lambda network: network)


@pytest.fixture(params=NAMES)
def bundle(request: pytest.FixtureRequest, shipped_bundle: Bundle) -> Bundle:
    return replace(shipped_bundle, network=small_network(request.param))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def needs_openvino() -> None:
    """Not `pytest.importorskip`, which would load OpenVINO with its telemetry."""
    if not backends.has_openvino():
        pytest.skip("openvino is not installed")


def of(bundle: Bundle, kind: str, *, bf16: bool) -> Any:
    if kind == "openvino":
        needs_openvino()
    return {"openvino": OpenVinoEngine, "rewritten": RewrittenEngine}[kind](bundle, bf16=bf16)


def test_torch_is_the_bundles_own_inferer_bit_for_bit(bundle: Bundle) -> None:
    image = small_image()
    with torch.inference_mode():
        expected = bundle.inferer(image[None], bundle.network)[0]
    assert torch.equal(TorchEngine(bundle).logits(image), expected)


@pytest.fixture
def looking_twice(bundle: Bundle) -> Bundle:
    return replace(bundle, look=config_that_looks_twice().get_parsed_content("look"))


def config_that_looks_twice() -> ConfigParser:
    parser = read_config(shipped()["residual_unet"], "inference")
    parser["half_too"] = True
    return parser


def test_a_bundle_that_looks_at_half_the_resolution_too_gives_the_mean_of_both_probabilities(bundle: Bundle) -> None:
    parser, image = config_that_looks_twice(), small_image()  # half of 80 pixels is no multiple of 16
    twice = replace(bundle, look=parser.get_parsed_content("look"))
    coarse = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(image.permute(3, 0, 1, 2), (0, 16)), 2)
    with torch.inference_mode():
        coarse = torch.nn.functional.interpolate(bundle.network(coarse), scale_factor=2, mode="bilinear")
        own = parser.get_parsed_content("looking")(image[None], bundle.network)[0]
    logits = TorchEngine(twice).logits(image)
    assert logits.shape == (2, *image.shape[1:])
    assert torch.equal(logits, own)
    assert torch.equal(logits[:1], TorchEngine(bundle).logits(image))
    torch.testing.assert_close(logits[1], coarse[:, 0, :, :-16].permute(1, 2, 0), atol=1e-4, rtol=1e-4)
    mean = Compose(parser.get_parsed_content("probability").transforms[:-1])  # all but the way back to the own grid
    apart = [mean({"pred": MetaTensor(one)})["pred"] for one in logits.split(1)]
    torch.testing.assert_close(mean({"pred": MetaTensor(logits)})["pred"], (apart[0] + apart[1]) / 2)


@pytest.mark.parametrize("kind", ["openvino", "rewritten"])
def test_an_engine_looks_at_half_the_resolution_as_torch_does(looking_twice: Bundle, kind: str) -> None:
    image = small_image()
    expected = TorchEngine(looking_twice).logits(image)
    for bf16, apart in ((False, 1e-3), (True, math.inf)):
        logits = of(looking_twice, kind, bf16=bf16).logits(image)
        assert logits.shape == expected.shape
        torch.testing.assert_close(logits, expected, atol=apart, rtol=1e-3)


@pytest.mark.parametrize("kind", ["openvino", "rewritten"])
def test_an_engine_in_fp32_gives_the_logits_of_torch_up_to_rounding(bundle: Bundle, kind: str) -> None:
    image = small_image()
    engine, expected = of(bundle, kind, bf16=False), TorchEngine(bundle).logits(image)
    assert engine.name.endswith("-fp32")
    torch.testing.assert_close(engine.logits(image), expected, atol=1e-3, rtol=1e-3)


def test_an_engine_averages_with_the_mirror_image_as_torch_does(shipped_bundle: Bundle) -> None:
    bundle, image = replace(shipped_bundle, network=small_network("residual_unet")), small_image()
    plain, both = (TorchEngine(bundle).logits(image, tta=tta) for tta in (False, True))
    assert float((plain - both).abs().max()) > 0.1
    torch.testing.assert_close(RewrittenEngine(bundle, bf16=False).logits(image, tta=True), both, atol=1e-3, rtol=1e-3)


@pytest.mark.skipif(not backends.has_bfloat16(), reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize("kind", ["openvino", "rewritten"])
def test_an_engine_in_bfloat16_is_off_by_a_few_hundredths_of_the_logits_spread(bundle: Bundle, kind: str) -> None:
    image = small_image()
    engine, expected = of(bundle, kind, bf16=True), TorchEngine(bundle).logits(image)
    engine._level = float("nan")  # no second look
    error = engine.logits(image) - expected
    assert engine.name.endswith("-bf16")
    assert 0 < float(error.std()) < 0.05 * float(expected.std())


def test_a_network_is_its_stem_and_its_rest(bundle: Bundle) -> None:
    image = small_image(1)[None, ..., 0]
    network = rewritten(bundle.network)
    stem, rest = divided(network)
    assert sum(one.numel() for one in stem.parameters()) < 0.2 * sum(one.numel() for one in network.parameters())
    with torch.inference_mode():
        torch.testing.assert_close(rest(stem(image)), bundle.network(image), atol=1e-3, rtol=1e-3)


def test_no_batch_norm_and_no_instance_norm_is_left_but_those_after_no_convolution(bundle: Bundle) -> None:
    kinds = {type(module).__name__ for module in rewritten(bundle.network).modules()}
    assert not kinds & {"BatchNorm2d", "InstanceNorm2d"}


def test_instance_norms_can_stay_as_they_are() -> None:
    image, network = small_image(1)[None, ..., 0], small_network("basic_unet")
    kept = rewritten(network, groups=False)
    kinds = {type(module).__name__ for module in kept.modules()}
    assert "InstanceNorm2d" in kinds
    assert "GroupNorm" not in kinds
    with torch.inference_mode():
        torch.testing.assert_close(kept(image), network(image), atol=1e-5, rtol=1e-5)


def test_sides_that_are_no_multiple_of_16_go_through_torch(shipped_bundle: Bundle) -> None:
    bundle = replace(shipped_bundle, network=small_network("basic_unet"))
    image = small_image()[:, :60]
    assert torch.equal(RewrittenEngine(bundle, bf16=False).logits(image), TorchEngine(bundle).logits(image))


class Counting(SliceEngine):
    """Gives a slice's FLAIR for its logits, and counts the slices; the second look is off by 100."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        super().__init__(bundle, name)
        self.seen, self.again = 0, 0

    def quick(self, slices: torch.Tensor) -> torch.Tensor:
        self.seen += len(slices)
        return slices[:, 1:2].clone()

    def exact(self, slices: torch.Tensor) -> torch.Tensor:
        self.again += len(slices)
        return slices[:, 1:2] + 100


def test_blank_slices_are_computed_once(shipped_bundle: Bundle) -> None:
    image = small_image(6)
    image[..., [0, 2, 5]] = 0
    engine = Counting(shipped_bundle, "fp32")
    assert torch.equal(engine.logits(image)[0], image[1])
    assert (engine.seen, engine.again) == (4, 0)


def test_a_volume_all_blank_is_one_slice_of_work(shipped_bundle: Bundle) -> None:
    engine = Counting(shipped_bundle, "fp32")
    assert torch.equal(engine.logits(torch.zeros(3, 32, 48, 7)), torch.zeros(1, 32, 48, 7))
    assert engine.seen == 1


def test_slices_with_voxels_near_the_threshold_are_computed_again_with_their_neighbours(shipped_bundle: Bundle) -> None:
    bundle = replace(shipped_bundle, threshold=0.5)
    image = torch.full((3, 32, 32, 5), 9.0)
    image[1, 5, :20, 1] = -8.99  # 20 of 5120 voxels that their neighbours bring to 0
    assert Counting(bundle, "bf16").logits(image)[0, 5, 5, 1] == pytest.approx(-8.99)
    image[1, 5:8, :20, 1] = -8.99  # 60, where 27 may be
    engine = Counting(bundle, "bf16")
    logits = engine.logits(image)[0]
    assert torch.equal(logits[..., 3:], image[1][..., 3:])
    assert torch.equal(logits[..., :3], image[1, ..., :3] + 100)
    assert (engine.seen, engine.again) == (5, 3)


def test_what_may_stay_unsure_follows_from_the_size_of_the_mask() -> None:
    logits = torch.full((10, 1, 20, 50), -5.0)
    logits[0] = 5.0  # 1000 voxels of mask, of which 2 may be unsure
    for number, count in ((3, 1), (5, 2), (8, 9)):
        logits[number, 0, number, :count] = 5.0  # alone in its slice: its neighbours bring it to 0
    assert unsure(logits, 0.0, 1.5).tolist() == [4, 5, 6, 7, 8, 9]
    assert unsure(logits, 20.0, 1.5).tolist() == []
    logits[0, :, :10] = -5.0  # 500, where 1 may be, and 12 that are no part of it
    assert unsure(logits, 0.0, 1.5).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    logits[0] = -5.0  # 12 of mask, of which none may be
    assert unsure(logits, 0.0, 1.5).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert unsure(torch.cat([logits, logits], 1), 0.0, 1.5).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert unsure(torch.cat([logits, logits - 3], 1), 0.0, 1.5).tolist() == []


@pytest.mark.parametrize("marked", [300, 1000, 4000, 20_000, 100_000])
def test_what_may_stay_unsure_brings_dice_below_the_bound_less_than_once_in_a_hundred(marked: int) -> None:
    most = math.floor(2 * marked * (1 - LEAST_DICE))  # so many voxels on the other side keep the bound
    assert binom.sf(most, math.floor(may_be_near(marked)), FLIPPED) < 0.01
    assert binom.sf(most, 3 * math.ceil(may_be_near(marked)), FLIPPED) > 0.05


@pytest.mark.parametrize("name", ["attention_unet", "basic_unet"])
def test_the_first_convolution_of_halves_is_in_bfloat16_what_it_was_in_fp32(name: str) -> None:
    network = small_network(name)
    image, path = small_image(1)[None, ..., 0], STEMS[type(network).__name__]
    stem, rest = divided(network)
    before, after = network.get_submodule(path), rest.get_submodule(path)

    def rounded(layer: Any, given: torch.Tensor) -> torch.Tensor:
        weight = layer.weight.bfloat16().double()
        return torch.nn.functional.conv2d(given.bfloat16().double(), weight, layer.bias.double(), padding=1)

    with torch.inference_mode():
        exact = torch.nn.functional.conv2d(image.double(), before.weight.double(), before.bias.double(), padding=1)
        lost, kept = (rounded(layer, given) - exact for layer, given in ((before, image), (after, stem(image))))
    assert float(kept.abs().max()) < float(lost.abs().max()) / 100


@pytest.mark.parametrize(
    ("backend", "installed", "bfloat16", "name"),
    [
        ("auto", True, True, "openvino-bf16"),
        ("auto", True, False, "openvino-fp32"),
        ("auto", False, True, "torch-rewritten-bf16"),
        ("auto", False, False, "torch-rewritten-fp32"),
        ("torch", True, True, "torch-fp32"),
        ("openvino", True, True, "openvino-bf16"),
        ("openvino", True, False, "openvino-fp32"),
    ],
)
def test_the_engine_follows_what_is_installed_and_what_the_cpu_can(
    shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, backend: str, installed: bool, bfloat16: bool, name: str
) -> None:
    monkeypatch.setattr(backends, "has_openvino", lambda: installed)
    monkeypatch.setattr(backends, "has_bfloat16", lambda: bfloat16)
    assert replace(shipped_bundle, backend=backend).engine.name == name


def test_a_network_that_was_never_measured_stays_with_torch_and_has_no_bfloat16(shipped_bundle: Bundle) -> None:
    unknown = replace(shipped_bundle, network=Bright())
    assert stem_of(unknown.network) is None
    assert unknown.engine.name == "torch-fp32"
    assert OpenVinoEngine(unknown, bf16=True).name == "openvino-fp32"


def test_a_gpu_keeps_torch_and_openvino_is_refused_there(shipped_bundle: Bundle) -> None:
    on_gpu = replace(shipped_bundle, device=torch.device("cuda"))
    assert on_gpu.engine.name == "torch-fp16"
    with pytest.raises(UsageError, match=r"openvino runs on the CPU; pass --device cpu"):
        engine_for(replace(on_gpu, backend="openvino"))


def test_a_backend_that_does_not_exist_is_refused_by_name() -> None:
    assert BACKENDS == ("auto", "torch", "openvino")
    with pytest.raises(UsageError, match="--backend: onnx is not a backend; give auto, torch, openvino"):
        open_bundle("residual_unet", backend="onnx")


def test_openvino_that_is_not_installed_is_one_line_with_the_extras_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "has_openvino", lambda: False)
    write_phantom_nifti(make_phantom(shape=(32, 32, 4), spacing_mm=(7, 7, 30)), tmp_path / "p")
    assert brainseg("segment", tmp_path / "p", "--out", tmp_path / "out", "--backend", "openvino") == 2
    assert capsys.readouterr().err == 'error: --backend: openvino is not installed; pip install "brainseg[openvino]"\n'
    assert not (tmp_path / "out" / "cohort.csv").exists()


def test_a_network_that_openvino_cannot_convert_is_one_line(shipped_bundle: Bundle) -> None:
    needs_openvino()

    class Odd(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.fft.ifft2(torch.linalg.eigvals(image[..., :16, :16])[..., None]).real

    odd = OpenVinoEngine(replace(shipped_bundle, network=Odd()), bf16=False)
    with pytest.raises(UsageError, match=r"--backend: openvino cannot convert this network .*; pass --backend torch"):
        odd.logits(small_image(1))


def test_openvinos_reports_to_its_makers_are_not_loaded(shipped_bundle: Bundle) -> None:
    needs_openvino()
    bundle = replace(shipped_bundle, network=small_network("basic_unet"))
    OpenVinoEngine(bundle, bf16=False).logits(small_image(1))
    assert sys.modules["openvino_telemetry"] is None
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_a_case_made_by_another_engine_is_another_result(shipped_bundle: Bundle) -> None:
    same = [
        fingerprint({"flair.nii.gz": "0"}, [replace(shipped_bundle, backend=backend)], Options(backend=backend))
        for backend in ("torch", "torch", "auto")
    ]
    assert same[0] == same[1] != same[2]


def test_run_json_names_the_engine_and_a_rerun_with_it_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    write_phantom_nifti(make_phantom(shape=(64, 64, 6), spacing_mm=(3.6, 3.6, 20)), tmp_path / "p")
    for _ in range(2):
        assert brainseg("segment", tmp_path / "p", "--out", tmp_path / "out", "--backend", "torch") == 0
    assert "(unchanged)" in capsys.readouterr().out
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["bundles"][0]["engine"] == "torch-fp32"
    assert run["settings"]["backend"] == "torch"


def test_an_oblique_volume_has_the_same_probability_by_either_way_through_torch(shipped_bundle: Bundle) -> None:
    from brainseg.case import Case
    from brainseg.inference import segment

    phantom = make_phantom(shape=(64, 64, 6), spacing_mm=(3.6, 3.6, 20.0), axes="RAS", rotation_deg=(12, -8, 15))
    case = Case("phantom", phantom.image, phantom.affine, phantom.spacing_mm, "nifti")
    bundle = replace(shipped_bundle, network=small_network("residual_unet"), backend="torch")
    reference = segment(case, bundle).probability
    rewritten_one = replace(bundle)
    rewritten_one.__dict__["engine"] = RewrittenEngine(rewritten_one, bf16=False)
    assert float(np.ptp(reference)) > 0.01
    np.testing.assert_allclose(segment(case, rewritten_one).probability, reference, atol=1e-5)
