"""Recipes: overlays on every config of a bundle, and a run of one takes the input that it was trained on."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import brainseg
from monai.data import MetaTensor
from test_bundles import monai_bundle
from test_resnet_bundles import published

from brainseg.bundle import open_bundle, read_config, recipes, shipped
from brainseg.errors import UntrustedBundleError
from brainseg.inference import segment
from brainseg.phantom import make_phantom, write_phantom_tiff
from brainseg.readers import read_case

SHIP = Path(__file__).resolve().parents[1] / "scripts" / "ship_weights.py"
RECIPES = ("bce_dice", "grayscale", "one_cycle")
QUICK = ("batch_size=1", "slices_per_patient=2", "num_workers=0", "window=[64, 64]", "-q")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for number in range(3):
        phantom = make_phantom(shape=(64, 64, 4), spacing_mm=(3.6, 3.6, 24.0), seed=number)
        write_phantom_tiff(phantom, folder, f"p{number}")
    (folder / "folds.json").write_text(json.dumps({"folds": [["p0"], ["p1", "p2"]]}))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "resnet34.pth"
    torch.save(published(34), path)
    return path


def train(data: Path, out: Path, *arguments: object, bundle: str = "residual_unet") -> int:
    folds = data / "folds.json"
    return brainseg("train", "--bundle", bundle, "--data", data, "--out", out, "--folds", folds, *arguments, *QUICK)


@pytest.fixture(scope="module")
def run_of(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Recipe -> an epoch of the residual network by it, made when first asked for."""
    made: dict[str, Path] = {}

    def run(recipe: str) -> Path:
        if recipe not in made:
            made[recipe] = tmp_path_factory.mktemp("runs") / recipe
            assert train(data, made[recipe], "--recipe", recipe, "--epochs", 1) == 0
        return made[recipe]

    return run


def parsed(recipe: str, *ids: str, bundle: str = "residual_unet", kind: str = "train", **settings: Any) -> list[Any]:
    parser = read_config(shipped()[bundle], kind, recipe)
    parser.update(settings)
    return [parser.get_parsed_content(one) for one in ids]


def scan() -> dict[str, Any]:
    """32x48 pixels of 51, 102 and 204 in the three channels; only the last but one slice row is black."""
    image = torch.ones(3, 32, 48, 2) * torch.tensor([51.0, 102.0, 204.0])[:, None, None, None]
    image[:, 0] = 0
    return {"image": MetaTensor(image, affine=torch.diag(torch.tensor([-0.9375, -0.9375, 1.0, 1.0])))}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_bundle_has_the_three_recipes(name: str) -> None:
    assert tuple(recipes(name)) == RECIPES


@pytest.mark.parametrize("kind", ["train", "evaluate", "inference"])
def test_one_cycle_gives_the_network_imagenets_statistics(kind: str) -> None:
    (preprocessing,) = parsed("one_cycle", "preprocessing", kind=kind)
    image = preprocessing(scan())["image"]
    assert image.shape == (3, 32, 64, 2)  # sides filled up to multiples of 32, in black
    for channel, value in enumerate((0.2, 0.4, 0.8)):
        assert float(image[channel, 5, 30, 0]) == pytest.approx((value - MEAN[channel]) / STD[channel], abs=1e-5)
        assert float(image[channel, 5, 0, 0]) == pytest.approx(-MEAN[channel] / STD[channel], abs=1e-5)


@pytest.mark.parametrize("kind", ["train", "evaluate", "inference"])
def test_grayscale_gives_the_network_flair_over_255_in_every_channel(kind: str) -> None:
    (preprocessing,) = parsed("grayscale", "preprocessing", kind=kind)
    image = preprocessing(scan())["image"]
    assert image[:, 5, 30, 0].tolist() == pytest.approx([0.4, 0.4, 0.4])


def test_a_scan_that_is_not_of_8_bits_is_brought_between_0_and_1() -> None:
    (preprocessing,) = parsed("grayscale", "preprocessing", kind="inference")
    data = scan()
    data["image"] *= 20
    image = preprocessing(data)["image"]
    assert (float(image.min()), float(image.max())) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("recipe", "optimizer", "scheduler", "loss"),
    [
        ("bce_dice", "Adam", "ReduceLROnPlateau", "DiceCELoss"),
        ("grayscale", "AdamW", "WarmupCosineSchedule", "DiceCELoss"),
        ("one_cycle", "Adam", "OneCycleLR", "BCEWithLogitsLoss"),
    ],
)
def test_optimizer_schedule_and_loss_are_the_recipes(
    recipe: str, optimizer: str, scheduler: str, loss: str, data: Path
) -> None:
    made = parsed(recipe, "optimizer", "lr_scheduler", "loss_function", dataset_dir=str(data), num_workers=0)
    assert [type(one).__name__ for one in made] == [optimizer, scheduler, loss]


def test_bce_dice_is_binary_cross_entropy_and_the_soft_dice_of_the_batch() -> None:
    (loss,) = parsed("bce_dice", "loss_function")
    logits = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    truth = (torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    p = logits.sigmoid()
    dice = (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    expected = torch.nn.functional.binary_cross_entropy(p, truth) + 1 - dice
    assert float(loss(logits, truth)) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("recipe", ["grayscale", "one_cycle"])
def test_the_label_goes_where_the_tumour_goes(recipe: str) -> None:
    torch.manual_seed(0)
    label = torch.zeros(8, 1, 96, 96)
    label[..., 24:44, 30:60] = 1
    image = 0.3 + 0.6 * label.expand(-1, 3, -1, -1)
    augment, unit = parsed(recipe, "augmentation", "canvas", window=[96, 96], coarse="$lambda: False")
    after = augment({"image": image, "label": label})
    assert after["image"].shape == (8, 3, 96, 96)
    bright = after["image"][:, :1] > (0.6 - MEAN[0]) / STD[0] if recipe == "one_cycle" else after["image"][:, :1] > 0.6
    assert (bright == (after["label"] > 0)).float().mean() > 0.98
    assert not torch.equal(after["label"][0], after["label"][1])
    assert unit == [256, 256]


def test_one_cycle_leaves_black_black_whatever_the_light() -> None:
    torch.manual_seed(0)
    (augment,) = parsed("one_cycle", "augmentation", window=[32, 32])
    image = augment({"image": torch.zeros(16, 3, 32, 32), "label": torch.zeros(16, 1, 32, 32)})["image"]
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    assert torch.allclose(image, black[:, None, None].expand_as(image), atol=1e-3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_segments_with_its_recipes_input_and_monai_alone_gives_the_same_mask(
    recipe: str, run_of: Any, data: Path, tmp_path: Path
) -> None:
    import nibabel
    from monai.bundle import ConfigWorkflow

    run = run_of(recipe)
    case = read_case(data / "p0")
    opened = open_bundle(str(run), device="cpu", backend="torch")
    assert opened.title == f"residual_unet ({recipe})"
    probability = segment(case, opened).probability
    forgetful = shutil.copytree(run, tmp_path / "forgetful", ignore=shutil.ignore_patterns("state*"))
    record = json.loads((run / "run.json").read_text())
    (forgetful / "run.json").write_text(json.dumps(record | {"recipe": ""}))
    apart = np.abs(
        segment(case, open_bundle(str(forgetful), device="cpu", backend="torch")).probability - probability
    ).max()
    assert apart == 0 if recipe == "bce_dice" else apart > 0.01  # the house's input is another one
    threshold = float(np.quantile(probability, 0.3))
    mask = segment(case, open_bundle(str(run), device="cpu", backend="torch", threshold=threshold)).mask
    workflow = ConfigWorkflow(
        config_file=str(run / "configs" / "inference.json"), workflow_type="infer", logging_file=False,
        bundle_root=str(run), dataset_dir=str(data), output_dir=str(tmp_path / "masks"), threshold=threshold,
        device="$torch.device('cpu')", dataloader={**read_config(run, "inference")["dataloader"], "num_workers": 0},
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    alone = nibabel.load(tmp_path / "masks" / "p0" / "p0_mask.nii.gz").get_fdata()
    assert mask.sum() > 150
    assert np.array_equal(mask, alone)


def test_validation_in_training_scores_the_same_input_as_evaluate_json(run_of: Any, data: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigWorkflow

    run = run_of("one_cycle")
    workflow = ConfigWorkflow(
        config_file=str(run / "configs" / "evaluate.json"), workflow_type="infer", logging_file=False,
        bundle_root=str(run), dataset_dir=str(data), output_dir=str(tmp_path), num_workers=0, fold=-1,
    )  # fmt: skip
    workflow.initialize()
    scored = next(iter(workflow.parser.get_parsed_content("validate#dataloader")))["image"]
    overrides = {"dataset_dir": str(data), "output_dir": str(tmp_path), "num_workers": 0, "folds": 1}
    (loader,) = parsed("one_cycle", "validate#dataloader", **overrides)
    assert torch.equal(scored, next(iter(loader))["image"])
    assert float(scored.min()) == pytest.approx(-MEAN[0] / STD[0], abs=0.2)


@pytest.mark.parametrize(("recipe", "bundle"), [("grayscale", "residual_unet"), ("one_cycle", "resnet34_unet")])
def test_a_recipe_trains_and_evaluates_with_monai_alone(
    recipe: str, bundle: str, data: Path, encoder: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(shipped()[bundle], tmp_path / "copy", ignore=shutil.ignore_patterns("models"))

    def run(kind: str, *arguments: str) -> str:
        files = f"['{root}/configs/{kind}.json','{root}/configs/recipes/{recipe}.json']"
        return monai_bundle(
            tmp_path, "run", "--config_file", files, "--bundle_root", str(root), "--dataset_dir", str(data),
            "--output_dir", str(tmp_path / "run"), "--fold", "0", "--folds", "3", "--num_workers", "0", *arguments,
        ).stdout  # fmt: skip

    pretrained = ("--pretrained_encoder", str(encoder)) if "resnet" in bundle else ()
    small = ("--batch_size", "1", "--window", "[64, 64]", "--slices_per_patient", "2")
    assert "Epoch: 1/1" in run("train", "--max_epochs", "1", "--val_interval", "1", *small, *pretrained)
    run("evaluate", "--checkpoint", str(tmp_path / "run" / "models" / "model.pt"))
    assert len((tmp_path / "run" / "metrics" / "val_dice_mean_raw.csv").read_text().splitlines()) == 2
    shutil.rmtree(tmp_path)  # a state is half a gigabyte


def test_one_cycle_freezes_a_pretrained_encoder_for_the_first_epoch(data: Path, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("--recipe", "one_cycle", "--epochs", 2, f"pretrained_encoder={encoder}", "val_interval=1")
    assert train(data, out, *arguments, bundle="resnet34_unet") == 0
    start = published(34)
    weights = [key for key in start if key.endswith((".weight", ".bias")) and not key.startswith("fc.")]
    after = [
        torch.load(out / "models" / f"state_checkpoint_epoch={n}.pt", weights_only=True)["network"] for n in (1, 2)
    ]
    assert all(torch.equal(after[0][f"encoder.{key}"], start[key]) for key in weights)
    assert not torch.equal(after[0]["segmentation_head.0.weight"], after[1]["segmentation_head.0.weight"])
    assert not any(torch.equal(after[1][f"encoder.{key}"], start[key]) for key in weights)
    shutil.rmtree(out)


@pytest.mark.parametrize(("bundle", "pretrained", "frozen"), [
    ("residual_unet", False, 0), ("resnet34_unet", False, 0), ("resnet34_unet", True, 108),
])  # fmt: skip
def test_only_an_encoder_that_was_given_weights_is_frozen(
    bundle: str, pretrained: bool, frozen: int, encoder: Path
) -> None:
    settings = {"pretrained_encoder": str(encoder)} if pretrained else {}
    (part,) = parsed("one_cycle", "encoder", bundle=bundle, **settings)
    assert len(list(part.parameters())) == frozen


def test_training_ends_early_and_the_rate_falls_when_the_dice_stands_still(data: Path, tmp_path: Path) -> None:
    arguments = ("--recipe", "bce_dice", "--epochs", 9, "learning_rate=0", "patience=2", "lr_scheduler::patience=0")
    assert train(data, tmp_path / "run", *arguments) == 0
    states = sorted((tmp_path / "run" / "models").glob("state*.pt"))
    assert [path.name for path in states] == [f"state_checkpoint_epoch={n}.pt" for n in (2, 3)]
    schedule = torch.load(states[-1], weights_only=True)["lr_scheduler"]
    assert (schedule["last_epoch"], schedule["num_bad_epochs"], schedule["best"]) == (3, 0, 0.0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_goes_on_ends_as_one_that_never_stopped(recipe: str, data: Path, tmp_path: Path) -> None:
    arguments = ("--epochs", 3, "val_interval=1", *(["lr_scheduler::patience=0"] if recipe == "bce_dice" else []))
    assert train(data, tmp_path / "whole", "--recipe", recipe, *arguments) == 0
    stopped = shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    (stopped / "models" / "state_checkpoint_epoch=3.pt").unlink()
    assert train(data, stopped, "--resume", *arguments) == 0
    whole, again = (tmp_path / run / "models" for run in ("whole", "stopped"))
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert (again / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
    newest = "state_checkpoint_epoch=3.pt"
    assert plain(torch.load(again / newest, weights_only=True)) == plain(torch.load(whole / newest, weights_only=True))


def plain(state: Any) -> Any:
    """`state` with the bytes of its tensors in their place."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


def test_a_training_that_had_ended_early_ends_at_once_when_it_is_told_to_go_on(data: Path, tmp_path: Path) -> None:
    arguments = ("--epochs", 9, "learning_rate=0", "patience=2")
    assert train(data, tmp_path / "run", "--recipe", "bce_dice", *arguments) == 0
    assert train(data, tmp_path / "run", "--resume", *arguments) == 0
    states = sorted((tmp_path / "run" / "models").glob("state*.pt"))
    assert [path.name for path in states] == [f"state_checkpoint_epoch={n}.pt" for n in (2, 3)]
    assert torch.load(states[-1], weights_only=True)["early_stop"]["counter"] == 2


def test_what_is_validated_and_kept_is_the_network_itself(run_of: Any) -> None:
    for recipe in RECIPES:
        models = run_of(recipe) / "models"
        trained = torch.load(models / "state_checkpoint_epoch=1.pt", weights_only=True)["network"]
        kept = torch.load(models / "model.pt", weights_only=True)
        assert all(torch.equal(kept[key], trained[key]) for key in kept)


def test_resume_goes_on_with_the_recipe_and_its_cycle_spans_the_new_epochs(
    run_of: Any, data: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(run_of("one_cycle"), tmp_path / "run")
    assert train(data, run, "--epochs", 2, "--resume", "val_interval=1") == 0
    assert json.loads((run / "run.json").read_text())["recipe"] == "one_cycle"
    first, second = (
        torch.load(run / "models" / f"state_checkpoint_epoch={n}.pt", weights_only=True)["lr_scheduler"] for n in (1, 2)
    )
    assert (first["total_steps"], first["last_epoch"]) == (2, 2)
    assert (second["total_steps"], second["last_epoch"]) == (4, 4)


def test_resume_with_another_recipe_is_refused(run_of: Any, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, run_of("one_cycle"), "--recipe", "grayscale", "--resume") == 2
    assert "the run began with one_cycle" in capsys.readouterr().err


def test_an_unknown_recipe_is_refused_with_those_there_are(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path / "run", "--recipe", "two_cycle") == 2
    assert "no recipe is called two_cycle; choose one of bce_dice, grayscale, one_cycle" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["two_cycle", "../inference", ["one_cycle"], {"scale": "$1"}])
def test_a_run_that_names_an_unknown_recipe_is_refused(recipe: object, tmp_path: Path) -> None:
    record = {"bundle": "residual_unet", "recipe": recipe}
    shutil.copytree(shipped()["residual_unet"] / "models", tmp_path / "models")
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UntrustedBundleError, match=r"unknown recipe .*only bce_dice, grayscale, one_cycle are known"):
        open_bundle(str(tmp_path), device="cpu")


def test_a_run_of_a_recipe_is_not_shipped(
    run_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ship_weights.py", str(run_of("grayscale")), "residual_unet"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SHIP), run_name="__main__")
    assert "trained by the recipe grayscale" in capsys.readouterr().err


def test_help_names_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert brainseg("train", "--help") == 0
    assert "bce_dice, grayscale, one_cycle" in " ".join(capsys.readouterr().out.split())
