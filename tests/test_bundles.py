"""Every bundle, by the same tests: copied elsewhere, with brainseg not importable, it must do all its work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiff_set import write_tiff_set

from brainseg.bundle import WEIGHTS, read_config, shipped, ships_weights

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = Path(__file__).parent / "meta_schema.json"
NAMES = sorted(path.stem for path in (ROOT / "bundles" / "source" / "networks").glob("*.yaml"))
ALONE = (
    "import sys, runpy; sys.modules['brainseg'] = None; sys.argv[0] = 'monai.bundle'; "
    "runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"
)


def monai_bundle(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m monai.bundle ARGUMENTS` in `cwd`, where `import brainseg` fails."""
    command = [sys.executable, "-c", ALONE, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiff_set(tmp_path_factory.mktemp("set"), ["TCGA_AA_1", "TCGA_AA_2"])


@pytest.fixture(scope="module", params=NAMES)
def trained(request: pytest.FixtureRequest, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of a bundle in another folder, after an epoch of training from another working directory."""
    place = tmp_path_factory.mktemp(request.param)
    bundle = shutil.copytree(shipped()[request.param], place / "copy")
    monai_bundle(
        place, "run", "--config_file", str(bundle / "configs/train.json"), "--bundle_root", str(bundle),
        "--dataset_dir", str(dataset), "--output_dir", str(place / "run"), "--folds", "2", "--max_epochs", "1",
        "--val_interval", "1", "--batch_size", "1", "--num_workers", "0", "--window", "[96, 96]",
    )  # fmt: skip
    yield bundle
    shutil.rmtree(place)  # a state of the largest network is half a gigabyte


def test_training_writes_weights_a_state_and_tensorboard_events(trained: Path) -> None:
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained.parent / "run"
    state = torch.load(run / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert set(torch.load(run / "models" / "state_checkpoint_epoch=1.pt", weights_only=True)) == {
        "network", "trained", "ema", "optimizer", "lr_scheduler", "best", "trainer",
    }  # fmt: skip
    events = EventAccumulator(str(run))
    events.Reload()
    assert {"train_loss", "learning_rate", "val_dice_mean", "val_dice_median"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"]


def test_a_stopped_training_goes_on_at_the_next_epoch(trained: Path, dataset: Path) -> None:
    run = trained.parent / "run"
    done = monai_bundle(
        trained.parent, "run", "--config_file", str(trained / "configs/train.json"), "--bundle_root", str(trained),
        "--dataset_dir", str(dataset), "--output_dir", str(trained.parent / "resumed"), "--folds", "2",
        "--checkpoint", str(run / "models" / "state_checkpoint_epoch=1.pt"), "--max_epochs", "2",
        "--val_interval", "1", "--batch_size", "1", "--num_workers", "0", "--window", "[96, 96]",
    )  # fmt: skip
    assert "Epoch: 2/2" in done.stdout
    assert "Epoch: 1/2" not in done.stdout


def test_evaluation_writes_a_row_a_patient(trained: Path, dataset: Path) -> None:
    out = trained.parent / "evaluated"
    monai_bundle(
        trained.parent, "run", "--config_file", str(trained / "configs/evaluate.json"), "--bundle_root", str(trained),
        "--dataset_dir", str(dataset), "--output_dir", str(out), "--fold", "-1", "--num_workers", "0",
        "--checkpoint", str(trained.parent / "run" / "models" / "model.pt"),
    )  # fmt: skip
    rows = (out / "metrics" / "val_dice_mean_raw.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["TCGA_AA_1.nii.gz", "TCGA_AA_2.nii.gz"]


def test_inference_writes_masks_under_the_patients_names_on_their_grids(trained: Path, dataset: Path) -> None:
    import nibabel

    out = trained.parent / "inferred"
    monai_bundle(
        trained.parent, "run", "--config_file", str(trained / "configs/inference.json"), "--bundle_root", str(trained),
        "--dataset_dir", str(dataset), "--output_dir", str(out),
        "--checkpoint", str(trained.parent / "run" / "models" / "model.pt"),
    )  # fmt: skip
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz"))
    assert found == [f"TCGA_AA_{n}/TCGA_AA_{n}_mask.nii.gz" for n in (1, 2)]
    mask = nibabel.load(out / found[0])
    assert mask.shape == (80, 96, 3)
    assert mask.get_data_dtype() == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_no_property_of_a_workflow_is_missing(name: str, dataset: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigWorkflow

    root = shipped()[name]
    for kind, workflow_type in (("train", "train"), ("evaluate", "infer"), ("inference", "infer")):
        workflow = ConfigWorkflow(
            config_file=str(root / "configs" / f"{kind}.json"), workflow_type=workflow_type, logging_file=False,
            bundle_root=str(root), dataset_dir=str(dataset), output_dir=str(tmp_path), folds=2, num_workers=0,
        )  # fmt: skip
        workflow.initialize()
        assert workflow.check_properties() == []


@pytest.mark.parametrize("name", NAMES)
def test_metadata_and_network_agree_with_each_other_and_the_specification(name: str) -> None:
    from monai.bundle import verify_metadata, verify_net_in_out

    root = shipped()[name]
    verify_metadata(meta_file=str(root / "configs" / "metadata.json"), filepath=str(SCHEMA))
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
        bundle_root=str(root),
        n=2,
    )
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_torchscript_from_monai_agrees_with_the_network(name: str, tmp_path: Path) -> None:
    import torch

    root = shipped()[name]
    network = read_config(root, "inference").get_parsed_content("network_def").eval()
    weights = root / WEIGHTS
    if ships_weights(name):
        network.load_state_dict(torch.load(weights, weights_only=True))
    else:
        weights = tmp_path / "fresh.pt"
        torch.save(network.state_dict(), weights)
    script = tmp_path / "model.ts"
    monai_bundle(
        tmp_path, "ckpt_export", "network_def", "--filepath", str(script), "--ckpt_file", str(weights),
        "--meta_file", str(root / "configs" / "metadata.json"),
        "--config_file", str(root / "configs" / "inference.json"), "--bundle_root", str(root),
    )  # fmt: skip
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image)
        assert torch.allclose(torch.jit.load(str(script))(image), expected, atol=1e-5)


def test_committed_bundles_are_what_their_source_renders_to() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "render_bundles.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
