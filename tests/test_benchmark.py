"""scripts/benchmark.py: that it runs and prints its table, and that it does not pass over masks that differ."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainseg.phantom import make_phantom, write_phantom_tiff

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SHAPE = (4, 4, 2)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients of four slices."""
    folder = tmp_path_factory.mktemp("patients")
    for seed, name in enumerate(("one", "two", "three")):
        phantom = make_phantom(shape=(128, 128, 4), spacing_mm=(1.8, 1.8, 36.0), seed=seed)
        write_phantom_tiff(phantom, folder, name)
    return folder


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> object:
    """The script as a module; the test's own process keeps its cores."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import benchmark

    monkeypatch.setattr(benchmark, "pin", lambda threads: None)
    return benchmark


def row(text: str, title: str) -> list[str]:
    """The cells of the first row of a Markdown table with that title."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_quick_run_prints_the_table_of_ratios_and_how_far_the_masks_agree(patients: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--data", str(patients), "--quick", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert ran.returncode == bool(errors), ran.stderr
    assert all("masks of plain MONAI script" in line for line in errors)  # on a phantom a lesion hangs by a thread
    assert "## residual_unet, 2 patients, 8 slices, rounds: 1" in ran.stdout
    assert row(ran.stdout, "brainseg in Python, torch")[2] == "1.00"
    assert float(row(ran.stdout, "plain MONAI script")[2]) > 0
    assert row(ran.stdout, "one")[2] == "1.0000"  # `monai.bundle run`
    assert "- machine: " in ran.stdout
    assert "- command: `python scripts/benchmark.py --data " in ran.stdout


def pretend(benchmark: object, monkeypatch: pytest.MonkeyPatch, marked: dict[str, int]) -> None:
    """Engines that take no time: each marks as many voxels as `marked` says for its runner, else 16."""
    from benchmark_engines import Engine, Machine, Run

    def run(machine: Machine, engine: Engine, data: Path) -> Run:
        for patient in data.iterdir():
            mask = np.zeros(SHAPE, np.uint8)
            mask.reshape(-1)[: marked.get(engine.runner, 16)] = 1
            folder = machine.runs / engine.slug / patient.name
            folder.mkdir(parents=True)
            nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / "mask.nii.gz")
        return Run(seconds=3.0 if engine.runner == "plain_monai" else 2.0, whole=8.0, peak_mb=500.0)

    monkeypatch.setattr(Machine, "run", run)


def test_equal_masks_end_with_code_0_and_ratios_are_the_peers_time_over_ours(
    benchmark: object, patients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(benchmark, monkeypatch, {})
    assert benchmark.main(["--data", str(patients), "--quick"]) == 0  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert row(said, "plain MONAI script") == ["plain MONAI script", "375.0", "1.50", "8.0", "1.00", "500"]
    assert row(said, "one") == ["one", "1.0000", "1.0000"]


@pytest.mark.parametrize(
    ("runner", "voxels", "message"),
    [
        ("monai_bundle", 15, "residual_unet, one: the masks of `monai.bundle run` have a Dice of 0.9677, under 0.999"),
        ("plain_monai", 12, "residual_unet, median: the masks of plain MONAI script have a Dice of 0.8571, under 0.95"),
    ],
)
def test_masks_that_differ_end_with_code_1_and_name_engine_and_patient(
    benchmark: object,
    patients: Path,
    runner: str,
    voxels: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretend(benchmark, monkeypatch, {runner: voxels})
    assert benchmark.main(["--data", str(patients), "--quick"]) == 1  # type: ignore[attr-defined]
    assert f"error: {message}" in capsys.readouterr().err


def test_a_missing_mask_is_no_agreement_and_two_empty_ones_are(benchmark: object, tmp_path: Path) -> None:
    from benchmark_tables import dice

    empty = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), empty)
    assert dice(empty, empty) == 1.0
    assert np.isnan(dice(empty, None))


def test_an_engine_that_fails_is_named_with_what_it_said_and_costs_no_further_round(
    benchmark: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark_engines import Engine, Machine, Run

    asked = []

    def run(machine: Machine, engine: Engine, data: Path) -> Run:
        asked.append(engine.runner)
        return Run(error="ImportError: no such thing") if engine.runner == "bad" else Run(1.0, 2.0, 3.0)

    monkeypatch.setattr(Machine, "run", run)
    good = Engine("good", "good", "basic_unet", tmp_path)
    engines = [good, replace(good, title="bad", runner="bad")]
    machine = Machine(tmp_path, 1, "cpu", None)
    runs, failed = benchmark.in_turns(machine, engines, tmp_path, 2, warm_up=True)  # type: ignore[attr-defined]
    assert failed == ["bad: ImportError: no such thing"]
    assert {engine.title: len(found) for engine, found in runs.items()} == {"good": 2}
    assert asked == ["good", "bad", "good", "good"]


def test_cost_that_grows_with_the_square_is_not_called_linear(benchmark: object, tmp_path: Path) -> None:
    from benchmark_engines import Engine, Run
    from benchmark_tables import growth_table

    def said(power: int) -> str:
        each = {f"case{count:03d}": 0.5 + (0.1 * count) ** power for count in (20, 40, 80, 160)}
        return growth_table({Engine("ours", "ours_lean", "", tmp_path): [Run(found={"each": each})]}, (20, 40, 80, 160))

    assert "100.0 ms a slice and 0.50 s a case; linear to within 10%." in said(1)
    assert "not linear to within 10%." in said(2)


def test_floor_of_a_network_is_its_arithmetic_at_the_rate_of_the_fastest_convolution(
    benchmark: object, tmp_path: Path
) -> None:
    from benchmark_engines import Engine, Run
    from benchmark_tables import alone_table

    network = Engine("brainseg, torch", "network_alone", "basic_unet", tmp_path, words=("brainseg",))
    peak = replace(network, title="peak", bundle="", words=("peak",))
    runs = {
        peak: [Run(found={"fp32": 1e11, "bf16": 3e11}), Run(found={"fp32": 2e11, "bf16": 4e11})],
        network: [Run(0.1, 1.0, 1.0, {"flop": 2e10})],
    }
    line = row(alone_table(runs), "basic_unet")
    assert line == ["basic_unet", "brainseg, torch", "20.0", "100.0", "100.0", "50.0", "2.00", "1.00"]
