#!/usr/bin/env python3
"""Train every bundle on every fold, score them patient by patient, and print the table.

    python scripts/train_all.py --data kaggle_3m --out runs
    python scripts/train_all.py --data kaggle_3m --out runs --minutes 25 --jobs 2 amp=true    (two cores with bfloat16)
    python scripts/train_all.py --data kaggle_3m --out runs --bundle residual_unet --fold 0 --fold 1
    python scripts/train_all.py --data kaggle_3m --out runs --fold -1                (final weights, on all patients)
    python scripts/train_all.py --data kaggle_3m --out more --weights runs max_epochs=30     (each goes on from its own)

Each fold is a run of `brainseg train` in OUT/<bundle>/fold_<k>, with its checkpoints and TensorBoard events. Started
again, it goes on where it stopped. The weights of a run are those of its last epoch: no patient of the fold that scores
them had a say. KEY=VALUE goes to `brainseg train`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from brainseg.train import tunables

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.stem for path in (ROOT / "bundles" / "source" / "networks").glob("*.yaml"))
# glibc gives the memory of every large tensor back and asks for it again; a CPU step is a tenth faster if it does not.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 2**32, "MALLOC_TRIM_THRESHOLD_": 2**32, "MALLOC_TOP_PAD_": 2**28}
PROBE = ["max_epochs=4", "coarse_share=0.5", "val_interval=4", "start_share=0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of patients with masks")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--folds", type=Path, default=ROOT / "scripts" / "lgg_folds.json", help="fold file")
    parser.add_argument("--bundle", action="append", choices=BUNDLES, help="again for more; all without it")
    parser.add_argument(
        "--fold", action="append", type=int, help="again for more; all without it; -1 trains on all patients"
    )
    parser.add_argument(
        "--minutes", type=float, help="time for a run, which then has as many epochs as fit (no fewer than 10)"
    )
    parser.add_argument("--weights", type=Path, help="folder of such runs: each begins with the weights of its like")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; on a CPU each gets its share of the cores")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    folds = args.fold if args.fold is not None else range(len(json.loads(args.folds.read_text())["folds"]))
    bundles = args.bundle or BUNDLES
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // args.jobs)))
    for name, size in KEPT_MEMORY.items():
        os.environ.setdefault(name, str(size))

    common = ["--data", str(args.data), "--folds", str(args.folds)]
    epochs = {}
    for name in bundles if args.minutes else ():
        epochs[name] = epochs_in(args.minutes, name, common, args.settings, goes_on=args.weights is not None)
        print(f"{name}: {epochs[name]} epochs in {args.minutes:g} minutes", flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = [
            pool.submit(train, name, fold, args.out, args.weights, common, epochs.get(name), args.settings)
            for fold in folds
            for name in bundles
        ]
        failed = [message for run in runs if (message := run.result())]
    for message in failed:
        print(message, file=sys.stderr)
    print(table(args.data, args.out, bundles, args.jobs))
    sys.exit(bool(failed))


def train(
    name: str,
    fold: int,
    out: Path,
    weights: Path | None,
    common: list[str],
    epochs: int | None,
    settings: list[str],
) -> str:
    """One run, from its start or from where it stopped; what went wrong, or nothing."""
    part = Path(name, "all" if fold == -1 else f"fold_{fold}")
    root = out / part
    if (root / "models" / "training.json").is_file():
        print(f"{root}: done before", flush=True)
        return ""
    resume = []
    if list((root / "models").glob("state_checkpoint_epoch=*.pt")):
        resume = ["--resume"]
        paths = [one for one in settings if Path(one.partition("=")[2]).is_absolute()]  # a run keeps their names only
        recorded = json.loads((root / "run.json").read_text())["settings"]
        settings = [*(f"{key}={json.dumps(value)}" for key, value in recorded.items()), *paths]
    else:
        shutil.rmtree(root, ignore_errors=True)
        epochs = epochs or int(given(settings, "max_epochs", tunables(name)["max_epochs"]))
        settings = [f"max_epochs={epochs}", f"val_interval={epochs}", *settings]
    root.parent.mkdir(parents=True, exist_ok=True)
    begin = ["--weights", str(weights / part / "models" / "model.pt")] if weights else []
    command = ["train", "--bundle", name, *common, "--fold", str(fold), "--out", str(root), *begin, *resume, *settings]
    with root.with_suffix(".log").open("a") as log:
        code = brainseg(command, stdout=log, stderr=subprocess.STDOUT).returncode
    print(f"{root}: {'trained' if code == 0 else 'failed'}", flush=True)
    return f"{root}: failed; see {root.with_suffix('.log')}" if code else ""


def given(settings: list[str], key: str, otherwise: float) -> float:
    """The number that the last of `settings`, KEY=VALUE each, sets `key` to."""
    found = [value for name, _, value in (one.partition("=") for one in settings) if name == key]
    return float(found[-1]) if found else otherwise


def epochs_in(minutes: float, name: str, common: list[str], settings: list[str], *, goes_on: bool) -> int:
    """How many epochs of the bundle fit, from four that are timed; one that goes on has no coarse ones unless told."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    coarse = given(settings, "coarse_share", 0 if goes_on else tunables(name)["coarse_share"])
    with tempfile.TemporaryDirectory() as folder:
        probe = ["train", "--bundle", name, *common, "--out", f"{folder}/run", *settings, *PROBE]
        brainseg(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        events = EventAccumulator(f"{folder}/run")
        events.Reload()
        ends = [event.wall_time for event in events.Scalars("learning_rate")]
    seconds = coarse * (ends[1] - ends[0]) + (1 - coarse) * (ends[3] - ends[2])
    return max(10, int(60 * minutes / seconds))


def table(data: Path, out: Path, bundles: list[str], jobs: int) -> str:
    """Protocol E of what is trained: every bundle, FLAIR alone, and all of them together; written to OUT/table.md."""
    finished = [name for name in bundles if list((out / name).glob("fold_*/models/training.json"))]
    rows = [
        "| network | sequences | mean Dice | 95% interval | median | patients |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    groups = [[name] for name in finished] + ([finished] if len(finished) > 1 else [])
    with ThreadPoolExecutor(jobs) as pool:
        rows += pool.map(
            lambda wanted: scored(data, out, *wanted), [(g, alone) for g in groups for alone in (False, True)]
        )
    text = "\n".join(rows)
    (out / "table.md").write_text(text + "\n")
    return text


def scored(data: Path, out: Path, names: list[str], flair_alone: bool) -> str:
    """A row of the table: the mean of the probabilities of these networks' cross-validations."""
    folder = out / "scores" / "+".join(names) / ("flair_alone" if flair_alone else "all_sequences")
    members = [part for name in names for part in ("--bundle", str(out / name))]
    looks = ["--flair-alone"] if flair_alone else []
    brainseg(["evaluate", "--data", str(data), *members, *looks, "--out", str(folder), "-q"], stdout=subprocess.DEVNULL)
    dice = next(f for f in json.loads((folder / "summary.json").read_text())["figures"] if f["metric"] == "Dice")
    cells = [" + ".join(names), "FLAIR alone" if flair_alone else "all three", f"{dice['value']:.3f}"]
    interval = "-" if dice["low"] is None else f"{dice['low']:.3f} to {dice['high']:.3f}"  # one patient has none
    cells += [interval, f"{dice['median']:.3f}", str(dice["n"])]
    return f"| {' | '.join(cells)} |"


def brainseg(arguments: list[str], **streams: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from brainseg.cli import main; main()", *arguments], check=False, **streams
    )


if __name__ == "__main__":
    main()
