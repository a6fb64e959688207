"""What the configs of every bundle share, tried on one of them: what a setting does, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import Compose
from tiff_set import write_tiff_set

from brainseg import read_case
from brainseg.bundle import read_config, shipped
from brainseg.phantom import make_phantom, write_phantom_nifti

ROOT = shipped()["residual_unet"]
SEVERAL = [str(ROOT / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]
QUICK = {"batch_size": 1, "num_workers": 0, "window": [96, 96]}


def workflow(kind: str, data: Path, out: Path, **settings: Any) -> ConfigWorkflow:
    """A config of the bundle, initialised and not yet run."""
    made = ConfigWorkflow(
        config_file=str(ROOT / "configs" / f"{kind}.json"), workflow_type="train" if kind == "train" else "infer",
        logging_file=False, bundle_root=str(ROOT), dataset_dir=str(data), output_dir=str(out), **settings,
    )  # fmt: skip
    made.initialize()
    return made


def refusal(made: ConfigWorkflow) -> str:
    """What running it ends with, below what MONAI says of the expression."""
    with pytest.raises(RuntimeError) as caught:
        made.run()
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiff_set(tmp_path_factory.mktemp("set"), [f"TCGA_AA_{n}" for n in range(4)])


@pytest.fixture(scope="module")
def run(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, which `val_interval` does not divide."""
    out = tmp_path_factory.mktemp("run")
    workflow("train", slices, out, folds=2, max_epochs=2, save_interval=1, device="cpu", **QUICK).run()
    return out


def test_a_blank_channel_is_the_flair_as_it_is_for_brainseg(tmp_path: Path) -> None:
    folder = write_tiff_set(tmp_path, ["TCGA_AA_1"]) / "TCGA_AA_1"
    for path in folder.glob("*_10*.tif"):
        path.unlink()  # brainseg does not read a stack with a gap
    for path in folder.glob("*[0-9].tif"):
        tifffile.imwrite(path, tifffile.imread(path) * np.array([0, 1, 1], np.uint8), photometric="rgb")
    parser = read_config(ROOT, "inference")
    parser["dataset_dir"] = str(tmp_path)
    data = Compose(parser.get_parsed_content("load"))(parser.get_parsed_content("cases")[0])
    assert np.array_equal(data["image"], read_case(folder).image)
    assert np.array_equal(data["image"][0], data["image"][1])


def test_the_last_epoch_is_validated_so_that_weights_are_kept(run: Path) -> None:
    assert (run / "models" / "model.pt").is_file()


def test_a_state_holds_under_the_networks_name_what_is_scored(run: Path) -> None:
    kept = torch.load(run / "models" / "model.pt", weights_only=True)
    state = torch.load(run / "models" / "state_checkpoint_epoch=2.pt", weights_only=True)
    assert all(torch.equal(state["network"][name], value) for name, value in kept.items())
    assert any(not torch.equal(state["trained"][name], value) for name, value in kept.items())


def test_the_learning_rate_shown_is_that_of_the_epoch(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    first, second = events.Scalars("learning_rate")
    assert (first.step, second.step) == (1, 2)
    assert first.value == pytest.approx(0.0001)  # a tenth, with which the warm-up begins
    assert second.value > first.value


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_fold_without_patients_is_refused_with_those_that_there_are(kind: str, slices: Path, tmp_path: Path) -> None:
    made = workflow(kind, slices, tmp_path, folds=2, fold=7, **QUICK)
    assert refusal(made) == "no patient is in fold 7, there are folds [0, 1]"


def test_a_data_set_without_patients_is_refused(tmp_path: Path) -> None:
    assert refusal(workflow("inference", tmp_path, tmp_path / "out")) == f"no patients in {tmp_path}"


def test_a_folder_may_be_called_anything(slices: Path, tmp_path: Path) -> None:
    shutil.copytree(slices, tmp_path / "set [1]")
    made = workflow("inference", tmp_path / "set [1]", tmp_path / "out")
    assert len(made.parser.get_parsed_content("cases")) == 4


def test_masks_of_slices_claim_no_spacing(slices: Path, tmp_path: Path) -> None:
    workflow("inference", slices, tmp_path, device="cpu").run()
    image = nibabel.load(tmp_path / "TCGA_AA_1" / "TCGA_AA_1_mask.nii.gz")
    assert np.array_equal(image.affine, np.diag([-1, -1, 1, 1]))


@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_the_network_can_be_had_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.bundle import load

    shutil.copytree(ROOT, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    network = load("copy", bundle_dir=str(tmp_path))
    assert isinstance(network, torch.nn.Module)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three NIfTI patients, and a datalist each for masks of 0 and 1 and of 0 and 255, with folds as text."""
    folder = tmp_path_factory.mktemp("volumes")
    items: dict[str, list[dict[str, Any]]] = {"ones": [], "white": []}
    for number in range(3):
        name = f"p{number}"
        write_phantom_nifti(make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), seed=number), folder, name)
        mask = nibabel.load(folder / name / "flair_mask.nii.gz")
        nibabel.save(nibabel.Nifti1Image(np.asarray(mask.dataobj) * 255, mask.affine), folder / name / "white.nii.gz")
        for kind, label in (("ones", "flair_mask"), ("white", "white")):
            image = [f"{name}/{one}.nii.gz" for one in ("t1", "flair", "t1c")]
            items[kind].append({"image": image, "label": f"{name}/{label}.nii.gz", "fold": str(number), "case": name})
    for kind, listed in items.items():
        (folder / f"{kind}.json").write_text(json.dumps({"training": listed}))
    unnamed = [{key: value for key, value in item.items() if key != "case"} for item in items["ones"]]
    (folder / "unnamed.json").write_text(json.dumps({"training": unnamed}))
    return folder


def test_labels_of_any_number_are_tumour_and_the_median_is_the_middle(volumes: Path, tmp_path: Path) -> None:
    found = []
    for kind, fold in (("ones", -1), ("white", -1), ("ones", 1)):
        made = workflow("evaluate", volumes, tmp_path, datalist=str(volumes / f"{kind}.json"), fold=fold, device="cpu")
        made.run()
        found.append(made.parser.get_parsed_content("evaluator").state.metrics)
    assert found[0]["val_dice_mean"] > 0.5
    assert found[1] == found[0]
    details = [found[2]["val_dice_mean"]]
    for fold in (0, 2):
        made = workflow("evaluate", volumes, tmp_path, datalist=str(volumes / "ones.json"), fold=fold, device="cpu")
        made.run()
        details.append(made.parser.get_parsed_content("evaluator").state.metrics["val_dice_mean"])
    assert found[0]["val_dice_median"] == pytest.approx(np.median(details), abs=1e-5)


def test_masks_that_would_overwrite_each_other_are_refused(volumes: Path, tmp_path: Path) -> None:
    made = workflow("inference", volumes, tmp_path, datalist=str(volumes / "unnamed.json"))
    assert refusal(made) == "two patients have one name: give each item of the datalist a case"


def test_a_case_that_happens_to_be_a_folder_keeps_its_name(volumes: Path, tmp_path: Path) -> None:
    made = workflow("inference", volumes, tmp_path, datalist=str(volumes / "ones.json"))
    assert [case["case"] for case in made.parser.get_parsed_content("cases")] == ["p0", "p1", "p2"]


def test_every_process_draws_its_own_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "5")
    parser = ConfigParser()
    parser.read_config(SEVERAL)
    assert parser.get_parsed_content("seeds") == [0, 5]


def test_several_processes_write_one_event_file_and_stop_when_the_loss_is_no_number(
    slices: Path, tmp_path: Path
) -> None:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run"]
    command = [
        sys.executable, "-m", *torchrun, "--config_file", str(SEVERAL),
        "--bundle_root", str(ROOT), "--dataset_dir", str(slices),
        "--output_dir", str(tmp_path), "--folds", "2", "--max_epochs", "3", "--val_interval", "1", "--batch_size", "4",
        "--num_workers", "0", "--window", "[96, 96]", "--learning_rate", "1e30", "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "Epoch: 1/3" in said  # four patients, two processes, batches of four: a batch need not be full
    assert "Epoch: 3/3" not in said
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
