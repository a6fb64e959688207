"""What brainseg opens, and what it refuses to open."""

from __future__ import annotations

import errno
import io
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from brainseg import bundle as bundle_module
from brainseg.bundle import WEIGHTS, describe, export_torchscript, locate, open_bundle, shipped, ships_weights
from brainseg.errors import MachineError, UntrustedBundleError, UsageError
from brainseg.weights import file_sha256

NAME = "residual_unet"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of a shipped bundle that can be spoiled."""
    return shutil.copytree(shipped()[NAME], tmp_path / "copy")


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


TRAINED = ["attention_unet", "basic_unet", "residual_unet"]
UNTRAINED = ["resnet34_unet", "resnet50_attention_unet", "resnet50_unet"]


def test_six_bundles_are_shipped_and_three_of_them_trained() -> None:
    assert sorted(shipped()) == sorted(TRAINED + UNTRAINED)
    assert [name for name in shipped() if ships_weights(name)] == TRAINED


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_bundle_without_weights_is_refused_with_the_fix(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: no weights shipped; train it .*brainseg train --bundle {name}"):
        open_bundle(name)


def test_a_trained_bundle_whose_weights_were_lost_is_not_taken_for_an_untrained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(shipped()[NAME], tmp_path / NAME)
    (copy / WEIGHTS).unlink()
    monkeypatch.setattr(bundle_module, "shipped", lambda: {NAME: copy})
    assert describe(NAME)["weights"] == "missing"
    with pytest.raises(UntrustedBundleError, match="no weights there"):
        open_bundle(NAME)


@pytest.mark.parametrize("name", TRAINED)
def test_a_shipped_bundle_opens_with_the_weights_that_it_records(name: str) -> None:
    bundle = open_bundle(name, device="cpu")
    recorded = (shipped()[name] / "models" / "model.pt.sha256").read_text().split()[0]
    assert bundle.weights_sha256 == recorded
    assert not bundle.network.training
    assert (bundle.threshold, bundle.pixel_mm) == (0.3 if name == "residual_unet" else 0.5, 0.9375)
    with torch.inference_mode():
        assert bundle.network(torch.zeros(2, 3, 64, 96)).shape == (2, 1, 64, 96)


def test_a_copy_of_a_shipped_bundle_is_known_by_its_configs(copy: Path) -> None:
    assert locate(str(copy)) == (NAME, copy)


def test_a_threshold_replaces_the_bundles_own() -> None:
    assert open_bundle(NAME, device="cpu", threshold=0.3).threshold == 0.3


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="choose one of attention_unet, basic_unet, residual_unet, resnet34_unet"):
        open_bundle("no_such_net")


def test_a_device_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--device"):
        open_bundle(NAME, device="cuda:63")
    with pytest.raises(UsageError, match="not a device"):
        open_bundle(NAME, device="gpu please")
    with pytest.raises(UsageError, match="not supported"):
        open_bundle(NAME, device="meta")


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 1.5])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(UsageError, match="give a probability"):
        open_bundle(NAME, device="cpu", threshold=threshold)


def test_how_a_network_is_used_has_a_hash_of_its_own(copy: Path) -> None:
    assert open_bundle(str(copy), device="cpu").configs_sha256 == open_bundle(NAME, device="cpu").configs_sha256
    run = {"bundle": NAME, "settings": {"smallest_lesion_voxels": 1000}}
    (copy / "run.json").write_text(json.dumps(run))
    assert open_bundle(str(copy), device="cpu").configs_sha256 != open_bundle(NAME, device="cpu").configs_sha256


def test_a_gpu_without_memory_for_the_network_is_left_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = torch.nn.Module.to

    def full_once(module: torch.nn.Module, *args: object) -> torch.nn.Module:
        monkeypatch.setattr(torch.nn.Module, "to", original)
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(torch.nn.Module, "to", full_once)
    monkeypatch.setattr(logging.getLogger("brainseg"), "propagate", True)
    assert open_bundle(NAME, device="cpu").device.type == "cpu"
    assert "no memory left for the network" in caplog.text


def test_a_torchscript_that_the_disk_does_not_take_is_a_fault_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MachineError, match="the disk is full"):
        export_torchscript(NAME, tmp_path / "network.ts")
    assert list(tmp_path.iterdir()) == []


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "damaged"),
        (b"not weights", "more than tensors|damaged"),
        (saved({"network": torch.zeros(1)}), "another network"),
        (saved([torch.zeros(1)]), "plain state_dict"),
        (saved({}), "another network"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(copy: Path, content: bytes, cause: str) -> None:
    (copy / WEIGHTS).write_bytes(content)
    (copy / "models" / "model.pt.sha256").unlink()
    with pytest.raises(UntrustedBundleError, match=cause):
        open_bundle(str(copy))


def test_a_run_gives_its_weights_and_nothing_else(copy: Path) -> None:
    (copy / "configs" / "inference.json").write_text("{}")
    digest = file_sha256(copy / WEIGHTS)
    (copy / "run.json").write_text(json.dumps({"bundle": NAME, "weights_sha256": digest}))
    bundle = open_bundle(str(copy), device="cpu")
    assert (bundle.name, bundle.weights_sha256) == (NAME, digest)
