"""`brainseg train`: a run is a bundle that segments, resumes and shows itself in TensorBoard."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import brainseg

from brainseg.bundle import open_bundle, shipped, with_threshold
from brainseg.phantom import make_phantom, write_phantom_tiff
from brainseg.study import find_patients
from brainseg.train import prepare, warn_of_emulation

SHIP = Path(__file__).resolve().parents[1] / "scripts" / "ship_weights.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for number in range(3):
        phantom = make_phantom(shape=(64, 64, 6), spacing_mm=(3.6, 3.6, 24.0), seed=number)
        write_phantom_tiff(phantom, folder, f"p{number}")
    (folder / "folds.json").write_text(json.dumps({"folds": [["p0"], ["p1", "p2"]]}))
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of the residual network from its shipped weights."""
    out = tmp_path_factory.mktemp("runs") / "run"
    code = brainseg(
        "train", "--bundle", "residual_unet", "--data", data, "--out", out, "--folds", data / "folds.json",
        "--epochs", 1, "--weights", "shipped", "batch_size=1", "num_workers=0", "window=[64, 64]", "-q",
    )  # fmt: skip
    assert code == 0
    return out


def test_a_run_is_a_bundle_that_opens_with_its_own_weights(run: Path) -> None:
    opened = open_bundle(str(run), device="cpu")
    assert opened.name == "residual_unet"
    assert opened.root == run
    assert opened.weights_sha256 == json.loads((run / "run.json").read_text())["weights_sha256"]


def test_a_run_records_which_patients_trained_it(run: Path) -> None:
    record = json.loads((run / "models" / "training.json").read_text())
    assert (record["trained_on"], record["validated_on"]) == (["p1", "p2"], ["p0"])
    assert record["chosen_by"] == []  # one epoch, the last
    shipped_record = json.loads((shipped()["residual_unet"] / "models" / "training.json").read_text())
    assert record["began_with"] == {"before": sorted(shipped_record["trained_on"]), "unknown": []}
    assert json.loads((run / "run.json").read_text())["began_with"] == record["began_with"]


def test_tensorboard_shows_curves_contours_precision_recall_and_settings(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {
        "train_loss",
        "learning_rate",
        "val_dice_mean",
        "val_dice_median",
        "review/dice_mean",
        "patients/p0",
    } <= set(tags["scalars"])
    assert {"contours/best", "contours/median", "contours/worst"} <= set(tags["images"])
    assert "review/precision_recall" in tags["tensors"]
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_a_start_share_keeps_that_much_of_the_weights_that_training_began_with(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "train", "--bundle", "residual_unet", "--data", data, "--folds", data / "folds.json", "--epochs", 1,
        "batch_size=1", "num_workers=0", "window=[64, 64]", "start_share=0.75", "-q",
    )  # fmt: skip
    assert brainseg(*command, "--out", tmp_path / "none") == 2
    assert "start_share: is a share of weights to begin with; give them by --weights" in capsys.readouterr().err
    assert brainseg(*command, "--out", tmp_path / "mixed", "--weights", "shipped") == 0
    begun, alone, mixed = (
        torch.load(root / "models" / "model.pt", weights_only=True)
        for root in (shipped()["residual_unet"], run, tmp_path / "mixed")
    )
    moved = {key: value for key, value in alone.items() if value.is_floating_point()}
    assert any(not torch.equal(value, begun[key].float()) for key, value in moved.items())
    for key, value in moved.items():
        assert torch.allclose(mixed[key], 0.75 * begun[key].float() + 0.25 * value, atol=1e-6)


def test_a_folder_with_a_run_is_not_overwritten(run: Path, data: Path) -> None:
    before = (run / "run.json").read_bytes()
    assert brainseg("train", "--bundle", "residual_unet", "--data", data, "--out", run) == 2
    assert (run / "run.json").read_bytes() == before


def test_a_run_is_used_with_what_it_was_trained_with(run: Path, data: Path, tmp_path: Path) -> None:
    """By brainseg, by MONAI alone, and where the threshold is another; and it is not shipped without it."""
    root = tmp_path / "fresh"
    patients = find_patients(data)
    prepare("residual_unet", patients, [["p0"], ["p1", "p2"]], data, root, settings={"pixel_mm": 1.875, "seed": 3})
    for kind in ("train", "evaluate", "inference"):
        assert json.loads((root / "configs" / f"{kind}.json").read_text())["pixel_mm"] == 1.875
    copy = shutil.copytree(run, tmp_path / "run")
    record = json.loads((copy / "run.json").read_text())
    record["settings"] |= {"pixel_mm": 1.875, "threshold": 0.4, "temperature": "__import__('os')"}
    (copy / "run.json").write_text(json.dumps(record))
    opened, usual = open_bundle(str(copy), device="cpu"), open_bundle(str(run), device="cpu")
    assert (opened.pixel_mm, opened.threshold, opened.temperature) == (1.875, 0.4, usual.temperature)
    assert open_bundle(str(copy), device="cpu", threshold=0.7).threshold == 0.7
    assert with_threshold(opened, 0.6).threshold == 0.6


@pytest.mark.parametrize(
    ("spoil", "bundle", "says"),
    [
        (lambda root: None, "basic_unet", "these are weights of residual_unet, not of basic_unet"),
        (lambda root: (root / "models" / "training.json").unlink(), "residual_unet", "which says who trained"),
        (
            lambda root: (root / "run.json").write_text('{"settings": {"pixel_mm": 1.875}}'),
            "residual_unet",
            "trained with pixel_mm of its own",
        ),
    ],
)
def test_weights_are_not_shipped_for_what_they_are_not(
    spoil: Callable[[Path], object],
    bundle: str,
    says: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    spoil(copy)
    monkeypatch.setattr(sys, "argv", ["ship_weights.py", str(copy), bundle])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SHIP), run_name="__main__")
    assert says in capsys.readouterr().err


def test_resume_keeps_the_best_weights_until_they_are_beaten(run: Path, data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "models" / "state_checkpoint_epoch=1.pt"
    state = torch.load(path, weights_only=True)
    state["best"]["_saved"] = [(0.999, "model.pt")]
    torch.save(state, path)
    best = (copy / "models" / "model.pt").read_bytes()
    code = brainseg(
        "train", "--bundle", "residual_unet", "--data", data, "--out", copy, "--folds", data / "folds.json",
        "--epochs", 2, "--resume", "batch_size=1", "num_workers=0", "window=[64, 64]", "val_interval=1", "-q",
    )  # fmt: skip
    assert code == 0
    assert (copy / "models" / "model.pt").read_bytes() == best
    record = json.loads((copy / "models" / "training.json").read_text())
    assert record["chosen_by"] == ["p0"]
    assert record["began_with"]["before"]


def test_a_run_that_goes_on_ends_with_the_bytes_of_one_that_never_stopped(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stopped at the end of the coarse epochs, in the middle of the order of patients, slices and augmentation."""
    command = (
        "train", "--bundle", "residual_unet", "--data", data, "--epochs", 3, "batch_size=1", "num_workers=1",
        "window=[64, 64]", "val_interval=1", "coarse_share=0.5",
    )  # fmt: skip
    folds = ("--folds", data / "folds.json")
    assert brainseg(*command, *folds, "--out", tmp_path / "whole") == 0
    told = capfd.readouterr().out
    assert re.search(r"^train 1/3  epoch 1, loss \d\.\d+, validation Dice 0\.\d+$", told, re.MULTILINE)
    assert "train 3/3  epoch 3, loss " in told
    stopped = shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    newest = stopped / "models" / "state_checkpoint_epoch=3.pt"
    newest.rename(stopped / "models" / ".part-state_checkpoint_epoch=3.pt")
    assert brainseg(*command, *folds, "--out", stopped, "--resume", "--fold", 1) == 2
    assert "other patients validate than when the run began" in capfd.readouterr().err
    assert brainseg(*command, *folds, "--out", stopped, "--resume") == 0
    told, warned = capfd.readouterr()
    assert "train 1/1  epoch 3, loss " in told
    assert "goes on with another" not in warned
    assert folder_bytes(stopped / "models") == folder_bytes(tmp_path / "whole" / "models")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_killed_before_its_first_state_begins_again(
    run: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "models" / "state_checkpoint_epoch=1.pt").unlink()
    (copy / "models" / "model.pt").write_bytes(b"")
    code = brainseg(
        "train", "--bundle", "residual_unet", "--data", data, "--out", copy, "--folds", data / "folds.json",
        "--epochs", 1, "--weights", "shipped", "--resume", "batch_size=1", "num_workers=0", "window=[64, 64]",
    )  # fmt: skip
    assert code == 0
    assert "holds no training state yet; beginning again" in capfd.readouterr().err
    assert (copy / "models" / "model.pt").read_bytes() == (run / "models" / "model.pt").read_bytes()


def test_chance_is_another_in_every_epoch_and_the_same_in_every_run() -> None:
    from types import SimpleNamespace

    from brainseg.bundle import read_config, shipped

    def draws(seed: int) -> torch.Tensor:
        parser = read_config(shipped()["residual_unet"], "train")
        parser["seed"] = seed
        reseed = parser.get_parsed_content("reseed")
        drawn = []
        for epoch in range(1, 201):
            reseed(SimpleNamespace(state=SimpleNamespace(epoch=epoch)))
            drawn.append(torch.rand(50))
        return torch.stack(drawn)

    first = draws(0)
    assert torch.equal(first, draws(0))
    together = torch.cat([first, draws(1)])
    assert len(together.flatten().unique()) > 19_980  # of 20,000, with the ties of float32
    assert together.mean(0).sub(0.5).abs().max() < 4 * (1 / 12 / 400) ** 0.5  # evenly, whichever draw of an epoch it is
    assert torch.corrcoef(together[:, :2].T)[0, 1].abs() < 0.2


@pytest.mark.parametrize(("gpu", "bfloat16", "told"), [(False, False, 1), (False, True, 0), (True, False, 0)])
def test_amp_on_a_cpu_without_bfloat16_is_warned_of(
    gpu: bool, bfloat16: bool, told: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("brainseg.backends.has_bfloat16", lambda: bfloat16)
    warn_of_emulation()
    assert [record.message.startswith("amp: this CPU") for record in caplog.records] == [True] * told


def test_a_setting_that_does_not_exist_is_a_usage_error(data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, "--out", tmp_path / "run", "--folds", data / "folds.json", "learnig_rate=0.1")
    assert brainseg("train", "--bundle", "residual_unet", *arguments) == 2


@pytest.mark.parametrize("wrong", ["max_epochs=many", "batch_size=-3", "val_interval=0", "learning_rate=NaN"])
def test_a_setting_that_is_no_such_number_is_a_usage_error(
    wrong: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert brainseg("train", "--bundle", "residual_unet", "--data", data, "--out", tmp_path / "run", wrong) == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong.partition('=')[0]}: is ")
    assert not (tmp_path / "run").exists()


def test_fold_minus_one_trains_on_everybody_and_keeps_the_last_epoch(data: Path, tmp_path: Path) -> None:
    code = brainseg(
        "train", "--bundle", "residual_unet", "--data", data, "--out", tmp_path / "run", "--folds", data / "folds.json",
        "--fold", -1, "--epochs", 2, "batch_size=1", "num_workers=0", "window=[64, 64]", "-q",
    )  # fmt: skip
    assert code == 0
    record = json.loads((tmp_path / "run" / "models" / "training.json").read_text())
    assert (sorted(record["trained_on"]), record["validated_on"]) == (["p0", "p1", "p2"], [])
    newest = torch.load(tmp_path / "run" / "models" / "state_checkpoint_epoch=2.pt", weights_only=True)
    kept = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(kept[key], newest["ema"][f"module.{key}"]) for key in kept)


def test_split_by_slice_trains_on_its_training_slices_and_is_never_shipped(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, run = tmp_path / "slices.json", tmp_path / "run"
    assert brainseg("data", "split", data, "--by", "slice", "--out", split) == 0
    training = json.loads(split.read_text())["training"]
    code = brainseg(
        "train", "--bundle", "residual_unet", "--data", data, "--out", run, "--split", split,
        "--epochs", 1, "--weights", "shipped", "batch_size=1", "num_workers=0", "window=[64, 64]", "-q",
    )  # fmt: skip
    assert code == 0
    assert "figures from it are inflated; never ship this network" in capsys.readouterr().err
    listed = json.loads((run / "datalist.json").read_text())["training"]
    assert sorted(image for item in listed for image in item["image"]) == training
    record = json.loads((run / "models" / "training.json").read_text())
    assert (record["trained_on"], record["validated_on"], record["by_slice"]) == (["p0", "p1", "p2"], [], True)
    again = ("--data", data, "--out", run, "--folds", data / "folds.json", "--fold", -1, "--resume")
    assert brainseg("train", "--bundle", "residual_unet", *again) == 2  # would forget that its slices were held out
    assert "resume with the options that it began with" in capsys.readouterr().err
    code = brainseg(
        "evaluate", "--data", data, "--protocol", "A", "--split", split, "--bundle", run, "--out", tmp_path / "scores",
        "--device", "cpu", "-q",
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    assert "| soft Dice | residual_unet, all sequences | " in said
    assert "test slices trained" not in said
    other = json.loads(split.read_text())
    other["training"], other["test"] = [*other["training"][1:], *other["test"]], other["training"][:1]
    (tmp_path / "other.json").write_text(json.dumps(other))
    code = brainseg(
        "evaluate", "--data", data, "--protocol", "A", "--split", tmp_path / "other.json", "--bundle", run,
        "--out", tmp_path / "scores", "--device", "cpu", "-q",
    )  # fmt: skip
    assert code == 0
    assert "Caution: 1 of the 1 test slices trained run; give the --split of that run." in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["ship_weights.py", str(run), "residual_unet"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SHIP), run_name="__main__")
    assert "never shipped" in capsys.readouterr().err


def test_split_by_slice_has_no_folds(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brainseg("data", "split", data, "--by", "slice", "--out", tmp_path / "slices.json") == 0
    arguments = ("--bundle", "residual_unet", "--data", data, "--out", tmp_path / "run")
    assert brainseg("train", *arguments, "--split", tmp_path / "slices.json", "--fold", 0) == 2
    assert "leave --folds and --fold out" in capsys.readouterr().err
