"""The shipped weights on real patients, through the command line, and the bundle by itself beside it."""

from __future__ import annotations

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from brainseg.backends import has_bfloat16, has_openvino
from brainseg.backends.openvino import OpenVinoEngine
from brainseg.backends.torch_cpu import RewrittenEngine
from brainseg.bundle import DEFAULT, open_bundle, shipped
from brainseg.cli import main
from brainseg.inference import segment as segment_case
from brainseg.measures import dice
from brainseg.readers import read_case, read_ground_truth, read_patient
from brainseg.study import find_patients

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FLAIR = DATA / "volumes" / "TCGA-FG-6692" / "flair.nii.gz"
BRAIN = DATA / "volumes" / "TCGA-DU-7294"

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not FLAIR.is_file(), reason="the real data set (../shared/data) is not here"),
]


def segment(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["segment", *map(str, arguments), "-q", "--device", "cpu", "--backend", "torch"])
    return int(ended.value.code or 0)


def only_row(out: Path) -> dict[str, str]:
    with (out / "cohort.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    return row


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TIFF slices of five patients of fold 0, which trained residual_unet's shipped weights and not basic_unet's."""
    pytest.importorskip("imagecodecs")
    folds = json.loads((DATA / "folds.json").read_text())["folds"]
    target = tmp_path_factory.mktemp("kaggle_3m")
    unpack = runpy.run_path(str(DATA / "unpack.py"))["unpack"]
    for name in [*folds[0][:4], "TCGA_DU_7294_19890104"]:
        unpack(DATA / "lgg" / f"{name}.zip", target)
    return target


@pytest.fixture(scope="module")
def masks(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("masks")
    assert segment(patients, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def right_frontal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fg6692")
    assert segment(FLAIR, "--out", out) == 0
    return out


def test_an_oblique_flair_gives_a_mask_on_its_own_grid_with_the_lesion_in_the_right_frontal_lobe(
    right_frontal: Path,
) -> None:
    scan = nibabel.load(FLAIR)
    mask = nibabel.load(right_frontal / "flair" / "mask.nii.gz")
    assert mask.shape == scan.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-6)
    voxels = np.argwhere(np.asarray(mask.dataobj) > 0)
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    assert float(only_row(right_frontal)["volume_ml"]) == pytest.approx(len(voxels) * voxel_ml, rel=1e-3)
    head = np.argwhere(scan.get_fdata() > scan.get_fdata().mean())
    to_world = nibabel.affines.apply_affine
    right, front, _ = to_world(scan.affine, voxels).mean(0) - to_world(scan.affine, head).mean(0)
    assert right > 10
    assert front > 10


def test_tiff_masks_have_the_data_sets_own_names_and_sizes(patients: Path, masks: Path) -> None:
    for patient in sorted(path for path in patients.iterdir() if path.is_dir()):
        written = sorted(path.name for path in (masks / patient.name).glob("*.tif"))
        assert written == sorted(path.name for path in patient.glob("*_mask.tif"))
        mask = tifffile.imread(masks / patient.name / written[0])
        assert (mask.shape, mask.dtype) == ((256, 256), np.uint8)
        assert set(np.unique(mask)) <= {0, 255}


def test_patients_that_did_not_train_the_weights_are_segmented_well(patients: Path, tmp_path: Path) -> None:
    record = json.loads((shipped()["basic_unet"] / "models" / "training.json").read_text())
    assert not {patient.name for patient in find_patients(patients)} & set(record["trained_on"])
    assert segment(patients, "--bundle", "basic_unet", "--out", tmp_path) == 0
    scores = []
    for patient in find_patients(patients):
        truth = read_ground_truth(patient)
        assert truth is not None
        predicted = np.asarray(nibabel.load(tmp_path / patient.name / "mask.nii.gz").dataobj)
        scores.append(dice(predicted, truth))
    assert np.median(scores) > 0.7


def test_a_volume_agrees_with_the_masks_of_the_same_patients_slices(patients: Path, tmp_path: Path) -> None:
    # The volume is skull-stripped, the slices are not.
    assert segment(BRAIN, "--out", tmp_path) == 0
    volume = nibabel.as_closest_canonical(nibabel.load(tmp_path / "TCGA-DU-7294" / "mask.nii.gz"))
    lps = np.asarray(volume.dataobj)[::-1, ::-1, ::2]  # TIFF slice n is slice 2(n-1) of the volume
    (patient,) = [one for one in find_patients(patients) if one.name == "TCGA_DU_7294_19890104"]
    truth = read_ground_truth(patient)
    assert truth is not None
    shared = min(lps.shape[2], truth.shape[2])
    score = dice(lps[..., :shared], truth[..., :shared])
    print(f"Dice of TCGA-DU-7294's volume with its slices' masks: {score:.3f}")
    assert score > 0.6
    assert score > 10 * dice(lps[::-1, :, :shared], truth[..., :shared])


def bundle_alone(data: Path, out: Path, *extra: str) -> None:
    root = shipped()[DEFAULT]
    command = [
        sys.executable, "-m", "monai.bundle", "run", "--config_file", str(root / "configs" / "inference.json"),
        "--bundle_root", str(root), "--dataset_dir", str(data), "--output_dir", str(out), *extra,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=600)


def test_command_line_and_bundle_give_the_same_tiff_masks_voxel_for_voxel(
    patients: Path, masks: Path, tmp_path: Path
) -> None:
    bundle_alone(patients, tmp_path)
    for patient in sorted(path.name for path in patients.iterdir() if path.is_dir()):
        alone = np.asarray(nibabel.load(tmp_path / patient / f"{patient}_mask.nii.gz").dataobj)
        ours = np.asarray(nibabel.load(masks / patient / "mask.nii.gz").dataobj)
        np.testing.assert_array_equal(ours, alone)


def test_command_line_and_bundle_give_the_same_nifti_mask_voxel_for_voxel(right_frontal: Path, tmp_path: Path) -> None:
    listed = {"training": [{"image": [FLAIR.name] * 3, "case": "flair"}]}
    (tmp_path / "datalist.json").write_text(json.dumps(listed))
    bundle_alone(FLAIR.parent, tmp_path, "--datalist", str(tmp_path / "datalist.json"))
    alone = nibabel.load(tmp_path / "flair" / "flair_mask.nii.gz")
    ours = nibabel.load(right_frontal / "flair" / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(alone.dataobj))
    np.testing.assert_allclose(ours.affine, alone.affine, atol=1e-6)


@pytest.mark.parametrize("kind", ["openvino-bf16", "torch-rewritten-bf16", "openvino-fp32", "torch-rewritten-fp32"])
def test_every_engine_agrees_with_the_reference_on_real_patients(kind: str, patients: Path, masks: Path) -> None:
    if "openvino" in kind and not has_openvino():
        pytest.skip("openvino is not installed")
    if "bf16" in kind and not has_bfloat16():
        pytest.skip("this CPU does not compute in bfloat16")
    made = OpenVinoEngine if "openvino" in kind else RewrittenEngine
    bundle = open_bundle(device="cpu")
    bundle.__dict__["engine"] = made(bundle, bf16="bf16" in kind)
    assert bundle.engine.name == kind
    for patient in find_patients(patients):
        reference = np.asarray(nibabel.load(masks / patient.name / "mask.nii.gz").dataobj)
        assert dice(segment_case(read_patient(patient), bundle).mask, reference) >= 0.999, patient.name


def test_the_three_sequences_of_a_patient_are_read_onto_the_flairs_grid() -> None:
    case = read_case(FLAIR.parent)
    assert case.missing == ()
    assert case.shape == nibabel.load(FLAIR).shape
