#!/usr/bin/env python3
"""How fast brainseg is beside its peers on the same patients, as ratios measured in one run, in a Markdown table.

    python scripts/benchmark.py --data kaggle_3m --peers peers
    python scripts/benchmark.py --data kaggle_3m --peers peers --part ratios --bundle basic_unet --rounds 3
    python scripts/benchmark.py --data kaggle_3m --peers peers --gpu
    python scripts/benchmark.py --data kaggle_3m --quick              one round, two patients, MONAI alone

Every engine is a process of its own (scripts/peers/), and they take turns. --peers is a folder that gets a virtual
environment with what MONAI alone does not have (nnunetv2, segmentation_models_pytorch); it is kept from run to run, and
without it those rows are left out. docs/speed.md says what is measured and how. Exit code 1: masks that should be alike
are not, or an engine failed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmark_engines import (
    DEFAULT,
    SHIPPED,
    TRAINED_BY_NOBODY,
    Engine,
    Machine,
    Run,
    backends,
    engines_of,
    networks_of,
    peers_python,
    pin,
    trainings_of,
)
from benchmark_tables import (
    agreement,
    alone_table,
    disagreements,
    growth_table,
    machine_lines,
    memory_table,
    ratio_table,
    training_table,
)

PARTS = ("ratios", "growth", "memory", "network", "training")
RUNNERS = ("ours_lean", "ours_full", "plain_monai", "monai_bundle", "nnunet", "buda_unet", "smp_unet")
GROWTH = (20, 40, 80, 160)
VOLUME = (512, 512, 180)
MAKE_VOLUME = """
import sys
from pathlib import Path
from brainseg.phantom import make_phantom, write_phantom_nifti
x, y, z = (int(word) for word in sys.argv[2:])
write_phantom_nifti(make_phantom(shape=(x, y, z), spacing_mm=(240 / x, 240 / y, 150 / z)), Path(sys.argv[1]))
"""


def main(arguments: list[str] | None = None) -> int:
    given = parsed(arguments)
    pin(given.threads)
    with ExitStack() as stack:
        out = given.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="brainseg-benchmark-")))
        peers = peers_python(given.peers) if given.peers and not given.quick else None
        machine = Machine(out / "runs", given.threads, "cuda:0" if given.gpu else "cpu", peers)
        data = chosen_patients(given.data, out / "data", given.patients)
        parts = ["ratios"] if given.quick else given.part or PARTS
        command = "python scripts/benchmark.py " + " ".join(sys.argv[1:] if arguments is None else arguments)
        print("\n".join(machine_lines(machine, command)), flush=True)
        failed: list[str] = []
        if "ratios" in parts:
            failed += ratios(machine, given, data, out)
        if "growth" in parts:
            failed += growth(machine, given.rounds, data, out)
        if "memory" in parts:
            failed += memory(machine, out)
        if "network" in parts:
            failed += network_alone(machine, given.bundle or SHIPPED, given.rounds, out)
        if "training" in parts:
            failed += training(machine, given, out)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of patients, each a folder of TIFF slices; part training needs their masks",
    )
    parser.add_argument("--peers", type=Path, help="folder for the peers' virtual environment")
    parser.add_argument("--out", type=Path, help="keep what the engines wrote here (a new folder)")
    parser.add_argument("--patients", type=int, default=8, help="how many, evenly spaced by name (default 8)")
    parser.add_argument("--bundle", action="append", choices=SHIPPED, help="again for more; all three without it")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one that warms up (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU, for every engine (default 2)")
    parser.add_argument("--part", action="append", choices=PARTS, help="again for more; all without it")
    parser.add_argument("--runner", action="append", choices=RUNNERS, help="of part ratios; again for more; else all")
    parser.add_argument("--gpu", action="store_true", help="on the first GPU")
    parser.add_argument("--quick", action="store_true", help="one round, two patients, one bundle, MONAI alone")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.patients, given.bundle = 1, 2, given.bundle or [DEFAULT]
    if given.out and given.out.exists():
        parser.error(f"--out: {given.out} exists; give a new folder")
    if not given.data.is_dir():
        parser.error(f"--data: {given.data} is no folder")
    return given


def chosen_patients(source: Path, target: Path, count: int, *, masks: bool = False) -> Path:
    """A folder with `count` of the patients in `source`, copied, so that they are in the cache and all alike."""
    patients = sorted(path for path in source.iterdir() if path.is_dir() and any(path.glob("*.tif")))
    if not patients:
        raise SystemExit(f"error: {source}: holds no folders of TIFF slices; give a folder of patients")
    count = min(count, len(patients))
    for number in range(count):
        patient = patients[number * len(patients) // count]
        left_out = None if masks else shutil.ignore_patterns("*_mask.tif")
        shutil.copytree(patient, target / patient.name, ignore=left_out)
    return target


Results = tuple[dict[Engine, list[Run]], list[str]]


def in_turns(machine: Machine, engines: Iterable[Engine], data: Path, rounds: int, warm_up: bool) -> Results:
    """The runs of each engine, one a round; an engine that fails is left out from there on, with what it said."""
    runs: dict[Engine, list[Run]] = {engine: [] for engine in engines}
    failed: dict[Engine, str] = {}
    for number in range(rounds + warm_up):
        for engine in [one for one in runs if one not in failed]:
            run = machine.run(engine, data)
            if run.error:
                failed[engine] = f"{engine.title}: {run.error}"
            elif number >= warm_up:
                runs[engine].append(run)
            print(f"round {number}/{rounds}  {engine.title}: {run.error or run.brief}", file=sys.stderr, flush=True)
    return {engine: found for engine, found in runs.items() if found and engine not in failed}, list(failed.values())


def ratios(machine: Machine, given: argparse.Namespace, data: Path, out: Path) -> list[str]:
    """Files in, mask files out: every engine on every bundle; what went wrong."""
    bundles = {name: machine.bundle(name) for name in given.bundle or SHIPPED}
    if machine.peers is not None:
        bundles[TRAINED_BY_NOBODY] = machine.untrained(TRAINED_BY_NOBODY, out)
    engines = [one for name, root in bundles.items() for one in engines_of(name, root, machine, quick=given.quick)]
    engines = [one for one in engines if not given.runner or one.runner in given.runner]
    runs, failed = in_turns(machine, engines, data, given.rounds, warm_up=not given.quick)
    slices = sum(1 for _ in data.rglob("*.tif"))
    for name in bundles:
        print(f"\n## {name}, {len(list(data.iterdir()))} patients, {slices} slices, rounds: {given.rounds}\n")
        print(ratio_table({one: found for one, found in runs.items() if one.bundle == name}, slices))
        dice = agreement({one: machine.masks(one) for one in runs if one.bundle == name})
        if dice.rows:
            print(f"\nDice with the masks of `brainseg` in Python, torch:\n\n{dice.text}", flush=True)
            failed += disagreements(name, dice)
    if not given.quick and machine.device == "cpu" and "openvino" not in backends(machine):
        print(
            "\nOpenVINO: this brainseg has no `--backend openvino`, or the package is missing; its rows are left out."
        )
    if machine.peers is None:
        print("\nnnU-Net and segmentation_models_pytorch: left out; `--peers DIR` installs them.")
    return failed


def growth(machine: Machine, rounds: int, data: Path, out: Path) -> list[str]:
    """Seconds for 20 to 160 slices: one patient's, again and again; the first case only warms up."""
    slices = sorted(next(iter(sorted(data.iterdir()))).glob("*.tif"))
    for count in (0, *GROWTH):
        name = f"case{count:03d}"
        (out / "growth" / name).mkdir(parents=True)
        for number in range(count or GROWTH[0]):
            shutil.copyfile(slices[number % len(slices)], out / "growth" / name / f"{name}_{number + 1}.tif")
    own = [one for one in engines_of(DEFAULT, machine.bundle(DEFAULT), machine) if one.runner == "ours_lean"]
    engines = [replace(one, words=("alone",)) for one in own]
    runs, failed = in_turns(machine, engines, out / "growth", rounds, warm_up=False)
    print(f"\n## Time against slices, {DEFAULT}\n\n{growth_table(runs, GROWTH)}", flush=True)
    return failed


def memory(machine: Machine, out: Path) -> list[str]:
    """The most memory that each engine takes for a large NIfTI volume of a phantom."""
    folder = out / "volume"
    machine.python(["-c", MAKE_VOLUME, str(folder), *map(str, VOLUME)])
    runners = ("ours_lean", "ours_full", "plain_monai")
    engines = [one for one in engines_of(DEFAULT, machine.bundle(DEFAULT), machine) if one.runner in runners]
    runs, failed = in_turns(machine, engines, folder, 1, warm_up=False)
    size = " x ".join(map(str, VOLUME))
    print(f"\n## Peak memory, a NIfTI volume of {size} with pre- and post-contrast, {DEFAULT}\n")
    print(memory_table(runs), flush=True)
    return failed


def network_alone(machine: Machine, bundles: Iterable[str], rounds: int, out: Path) -> list[str]:
    """Each network on slices in memory, beside what its arithmetic must take on this machine."""
    roots = {name: machine.bundle(name) for name in bundles}
    if machine.peers is not None and not (out / TRAINED_BY_NOBODY).exists():
        roots[TRAINED_BY_NOBODY] = machine.untrained(TRAINED_BY_NOBODY, out)
    elif machine.peers is not None:
        roots[TRAINED_BY_NOBODY] = out / TRAINED_BY_NOBODY
    runs, failed = in_turns(machine, networks_of(roots, machine), out / "data", rounds, warm_up=False)
    print(f"\n## The network alone, slices of 256x256 in memory\n\n{alone_table(runs)}", flush=True)
    return failed


def training(machine: Machine, given: argparse.Namespace, out: Path) -> list[str]:
    """Each network trained by its bundle and by a loop as MONAI's tutorials have it."""
    data = chosen_patients(given.data, out / "training", given.patients, masks=True)
    engines = trainings_of(given.bundle or SHIPPED, machine)
    runs, failed = in_turns(machine, engines, data, given.rounds, warm_up=False)
    print(f"\n## Training, batches of 16 slices of 160x192\n\n{training_table(runs)}", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
