#!/usr/bin/env python3
"""Kill `segment` and `train` at many moments, give the same command again, and compare with a run left in peace.

    python scripts/kill_harness.py                        20 moments of each: minutes, a Markdown table on stdout
    python scripts/kill_harness.py --points 3 train       3 moments of training alone

Works on phantoms that it makes. A run is a forked child, so that torch is imported once. Python's audit events show it
every file that is opened to write, renamed or removed under its output; half of the moments lie just before such an
event, evenly over their number and over the time by turns, the other half at even times. At the kill no file may stand
half-written under its final name; after the rerun everything must be as the undisturbed run left it, byte by byte but
for the seconds that it took. TensorBoard's event files, which grow line by line, are compared by the figures in them.
Exits 1 on any difference.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTIAL, EVENTS = ".part-", "events.out.tfevents."
EPOCHS = 3
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
Content = dict[str, str]  # path below the output -> digest


@dataclass(frozen=True)
class Moment:
    """When a run dies: before its event of this number (from 0), or these seconds after it began."""

    event: int | None = None
    seconds: float = 0.0


@dataclass
class Peace:
    """What the undisturbed run did and left.

    Attributes:
        events: when it did something to a file, in seconds after its first, in order.
        versions: path -> digests of all that ever had this final name.
        seconds: how long it took.
        code: its exit code.
        left: what it left.
        figures: of TensorBoard, by tag and step.
    """

    events: list[float] = field(default_factory=list)
    versions: dict[str, set[str]] = field(default_factory=dict)
    seconds: float = 0.0
    code: int | None = None
    left: Content = field(default_factory=dict)
    figures: dict[str, dict[int, float]] = field(default_factory=dict)


class Segment:
    """Three phantoms, one a format, and a patient whose file is empty."""

    def __init__(self, folder: Path) -> None:
        from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti, write_phantom_tiff

        self.set = folder / "patients"
        write_phantom_tiff(make_phantom(shape=(128, 128, 5), spacing_mm=(1.8, 1.8, 24.0)), self.set, "tiff")
        write_phantom_nifti(make_phantom(shape=(64, 64, 5), spacing_mm=(3.6, 3.6, 24.0), seed=2), self.set, "nifti")
        write_phantom_dicom(make_phantom(shape=(64, 64, 5), spacing_mm=(3.6, 3.6, 24.0), seed=2), self.set, "dicom")
        (self.set / "broken").mkdir()
        (self.set / "broken" / "flair.nii.gz").write_bytes(b"")

    def command(self, out: Path) -> list[str]:
        given = ["--out", str(out), "--bundle", "residual_unet", "--device", "cpu", "--save-probability", "-q"]
        return ["segment", str(self.set), *given]

    def done(self, out: Path) -> dict[str, int]:
        """Case -> when its mask was written, of those that are done."""
        return {path.parent.name: (path.parent / "mask.nii.gz").stat().st_mtime_ns for path in out.glob("*/case.json")}

    def progress(self, before: dict[str, int], after: dict[str, int]) -> tuple[str, str, list[str]]:
        """What was done at the kill, what the rerun computed, and what is wrong with that."""
        again = [case for case, when in before.items() if after.get(case) != when]
        fresh = sorted(after.keys() - before.keys())
        return f"{len(before)} of 3", ", ".join(fresh) or "nothing", [f"{case} computed twice" for case in again]


class Train:
    """Three epochs from the shipped weights on two small phantoms, validated on a third."""

    def __init__(self, folder: Path) -> None:
        from brainseg.phantom import make_phantom, write_phantom_tiff

        self.set = folder / "set"
        for number in range(3):
            phantom = make_phantom(shape=(128, 128, 4), spacing_mm=(1.8, 1.8, 28.0), seed=number)
            write_phantom_tiff(phantom, self.set, f"p{number}")
        self.folds = folder / "folds.json"
        self.folds.write_text(json.dumps({"folds": [["p0"], ["p1", "p2"]]}))

    def command(self, out: Path) -> list[str]:
        given = ["--data", str(self.set), "--folds", str(self.folds), "--out", str(out), "--epochs", str(EPOCHS)]
        small = ["batch_size=1", "slices_per_patient=2", "num_workers=0", "window=[96, 96]", "val_interval=1", "-q"]
        resume = ["--resume"] if (out / "run.json").is_file() else []
        return ["train", "--bundle", "residual_unet", "--weights", "shipped", *given, *small, *resume]

    def done(self, out: Path) -> dict[str, int]:
        states = (out / "models").glob("state_checkpoint_epoch=*.pt")
        return {"epochs": max((int(re.findall(r"\d+", path.stem)[-1]) for path in states), default=0)}

    def progress(self, before: dict[str, int], after: dict[str, int]) -> tuple[str, str, list[str]]:
        done, wrong = before["epochs"], [] if after["epochs"] == EPOCHS else ["not all epochs were trained"]
        left = f"epochs {done + 1} to {EPOCHS}" if EPOCHS - done > 1 else f"epoch {EPOCHS}"
        return f"{done} of {EPOCHS}", left if done < EPOCHS else "nothing", wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="segment|train", help="what to kill (default: both)")
    parser.add_argument("--points", type=int, default=20, help="moments of each (default: 20)")
    parser.add_argument("--work", type=Path, help="keep what the runs leave in this empty folder")
    args = parser.parse_args()
    known: dict[str, Callable[[Path], Segment | Train]] = {"segment": Segment, "train": Train}
    if unknown := [name for name in args.runs if name not in known]:
        parser.error(f"{unknown[0]!r} is neither segment nor train")
    preload()
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for name in args.runs or known:
            (work / name).mkdir(parents=True)
            wrong += harness(name, known[name](work / name), work / name, args.points)
    print(f"{wrong} moments with a difference")
    return int(wrong > 0)


def preload() -> None:
    """Imports what every run needs, but runs nothing: torch's threads do not outlive a fork."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import highdicom
    import matplotlib.pyplot
    import monai.bundle
    import torch._dynamo
    import torch.utils.tensorboard

    import brainseg.casework
    import brainseg.cli
    import brainseg.evaluation
    import brainseg.train

    del highdicom, matplotlib, monai, torch, brainseg


def harness(name: str, task: Segment | Train, work: Path, points: int) -> int:
    """Prints a row a moment; returns how many showed a difference."""
    peace = undisturbed(task, work)
    print(f"\n`{name}`: {len(peace.events)} events in {peace.seconds:.0f} s undisturbed\n")
    print("| point | died | done by then | computed on the rerun | identical |\n| --- | --- | --- | --- | --- |")
    wrong = 0
    for number, moment in enumerate(moments(points, peace), start=1):
        out = work / f"out_{number}"
        died = killed(task.command(out), out, moment, work)
        problems = half_written(out, peace) + (["was not killed"] if died.startswith("nowhere") else [])
        before = task.done(out)
        code = run(task.command(out), out, work / "rerun.log")
        done, computed, twice = task.progress(before, task.done(out))
        problems += [*twice, *differences(out, peace)]
        if code != peace.code:
            problems.append(f"exit code {code}, not {peace.code}: {(work / 'rerun.log').read_text()[-200:]!r}")
        print(f"| {number} | {died} | {done} | {computed} | {'; '.join(problems) or 'yes'} |", flush=True)
        wrong += bool(problems)
        if not problems:
            shutil.rmtree(out)
    return wrong


def moments(points: int, peace: Peace) -> list[Moment]:
    """The larger half before events, evenly by turns over their number and over the time; the other half by time."""
    chosen: set[int] = set()
    total, by_event = len(peace.events), points - points // 2
    for k in range(by_event):
        share = (k + 0.5) / by_event
        at = round(share * total) if k % 2 else bisect(peace.events, share * peace.events[-1])
        chosen.add(next(event for event in itertools.chain(range(at, total), range(at, -1, -1)) if event not in chosen))
    times = [(k + 0.5) / (points // 2) * peace.seconds for k in range(points // 2)]
    return [*(Moment(event=event) for event in sorted(chosen)), *(Moment(seconds=one) for one in times)]


def undisturbed(task: Segment | Train, work: Path) -> Peace:
    out, log = work / "undisturbed", work / "undisturbed.jsonl"
    began = time.monotonic()
    code = run(task.command(out), out, work / "undisturbed.log", lambda: watch(out, noting(out, log)))
    peace = Peace(seconds=time.monotonic() - began, code=code, left=content(out), figures=figures(out))
    for line in log.read_text().splitlines():
        event = json.loads(line)
        peace.events.append(event["seconds"])
        if event["final"]:
            peace.versions.setdefault(event["final"], set()).add(event["digest"])
    if not any(name.endswith((".pt", "mask.nii.gz")) for name in peace.left):
        sys.exit(f"the undisturbed run failed: {(work / 'undisturbed.log').read_text()[-2000:]}")
    return peace


def killed(command: Sequence[str], out: Path, moment: Moment, work: Path) -> str:
    """Runs `command` until `moment`; says where it died."""
    said = work / "died"
    said.unlink(missing_ok=True)
    if moment.event is not None:
        child = start(command, out, work / "killed.log", lambda: watch(out, dying(moment.event or 0, said)))
        child.join()
        return said.read_text() if child.exitcode == -signal.SIGKILL else "nowhere: it had ended"
    child = start(command, out, work / "killed.log", lambda: None)
    child.join(moment.seconds)
    child.kill()
    child.join()
    if child.exitcode == -signal.SIGKILL:
        return f"after {moment.seconds:.1f} s"
    shutil.rmtree(out)  # faster than the undisturbed run, and so alive no more
    return killed(command, out, Moment(seconds=moment.seconds * 0.8), work)


def run(command: Sequence[str], out: Path, log: Path, first: Callable[[], None] = lambda: None) -> int | None:
    child = start(command, out, log, first)
    child.join()
    return child.exitcode


def start(command: Sequence[str], out: Path, log: Path, first: Callable[[], None]) -> Any:
    """A forked child that does `first` and then `brainseg COMMAND`; what it says goes to `log`."""
    out.parent.mkdir(parents=True, exist_ok=True)

    def child() -> None:
        from brainseg.cli import main as brainseg

        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        first()
        brainseg(list(command))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def watch(out: Path, act: Callable[[str, str, str], None]) -> None:
    """From now on `act(what, path, target)` comes before every change to a file under `out`."""
    below = str(out)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir") or isinstance(given[0], int):
            return
        path = os.fsdecode(given[0])
        if not path.startswith(below) or (event == "open" and not given[2] & WRITING):
            return
        act(event.removeprefix("os."), path, os.fsdecode(given[1]) if event == "os.rename" else "")

    sys.addaudithook(hook)


def noting(out: Path, log: Path) -> Callable[[str, str, str], None]:
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    began = time.monotonic()

    def note(what: str, path: str, target: str) -> None:
        final = str(Path(target).relative_to(out)) if target else ""
        line = {
            "seconds": time.monotonic() - began,
            "final": final,
            "digest": digest(Path(path), final) if target else "",
        }
        os.write(sink, (json.dumps(line) + "\n").encode())

    return note


def dying(number: int, said: Path) -> Callable[[str, str, str], None]:
    left = number

    def die(what: str, path: str, target: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            name = re.sub("part-[0-9a-f]{12}", "part-", "/".join(Path(target or path).parts[-2:]))
            name = re.sub("tfevents.*", "tfevents", name)
            said.write_text(f"before {what} of {name}")
            os.kill(os.getpid(), signal.SIGKILL)

    return die


def content(out: Path) -> Content:
    """Digest of every file under `out` but the lock and TensorBoard's event files."""
    found = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock" and EVENTS not in path.name]
    return {name: digest(path, name) for path in sorted(found) for name in [str(path.relative_to(out))]}


def digest(path: Path, name: str) -> str:
    """SHA-256 of a file to be called `name`, of all but the seconds that it tells."""
    data = path.read_bytes()
    try:
        if name.endswith("case.json"):
            told = json.loads(data)
            del told["row"]["seconds"]
            data = json.dumps(told).encode()
        elif name == "cohort.csv":
            rows = [{**row, "seconds": ""} for row in csv.DictReader(io.StringIO(data.decode()))]
            data = json.dumps(rows).encode()
        elif name == "report.html":
            data = re.sub(rb"\b\d+(\.\d+)? s\b", b"", data)
    except (ValueError, KeyError):
        pass  # half-written, and so like nothing else
    return hashlib.sha256(data).hexdigest()


def half_written(out: Path, peace: Peace) -> list[str]:
    """Files under a final name that the undisturbed run never had so."""
    return [
        f"half-written {name}"
        for name, found in content(out).items()
        if PARTIAL not in name and found not in {*peace.versions.get(name, ()), peace.left.get(name)}
    ]


def differences(out: Path, peace: Peace) -> list[str]:
    now = content(out)
    return [
        *(f"left over: {name}" for name in now.keys() - peace.left.keys()),
        *(f"missing: {name}" for name in peace.left.keys() - now.keys()),
        *(f"differs: {name}" for name in now.keys() & peace.left.keys() if now[name] != peace.left[name]),
        *([] if figures(out) == peace.figures else ["figures in TensorBoard differ"]),
    ]


def figures(out: Path) -> dict[str, dict[int, float]]:
    """Scores of validation and review in the event files of `out`, by tag and step; the last of a step counts."""
    if not list(out.glob(f"{EVENTS}*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(("val_", "review/", "patients/"))]
    return {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in tags}


if __name__ == "__main__":
    sys.exit(main())
