"""What scripts/benchmark.py prints: Markdown tables from the runs of its engines, and whether their masks agree."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmark_engines import SAME, Engine, Machine, Run, versions

Runs = Mapping[Engine, Sequence[Run]]
OWN = ("brainseg", "torch", "monai", "openvino", "numpy")
INSTALLED = ("torch", "monai", "nnunetv2", "segmentation_models_pytorch")
LINEAR = 0.1


@dataclass(frozen=True)
class Agreement:
    """Dice of each engine's masks with the reference's, by patient; NaN where a mask is missing."""

    rows: dict[str, dict[Engine, float]]
    text: str


def machine_lines(machine: Machine, command: str) -> list[str]:
    """Machine, versions and command, as a Markdown list."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = "with bf16" if has_bf16() else "without bf16"
    lines = [f"- machine: {cpu_model()}, {cores} of {os.cpu_count()} cores, {kind}, {machine.threads} threads"]
    if machine.device != "cpu":
        lines += [f"- device: {gpu_name()}"]
    lines += [f"- versions: Python {platform.python_version()}, {versions(OWN)}"]
    if machine.peers:
        lines += [f"- peers: {versions(INSTALLED, machine.peers)}"]
    return [*lines, f"- command: `{command}`"]


def cpu_info(key: str) -> str:
    """The first line of that name in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == key), "")


def cpu_model() -> str:
    return cpu_info("model name") or platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether the CPU multiplies bf16 by itself."""
    flags = cpu_info("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def gpu_name() -> str:
    import subprocess
    import sys

    code = "import torch; print(torch.cuda.get_device_name(0))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def times(runs: Sequence[Run], reference: Sequence[Run], what: str) -> float:
    """How many times the reference's time: the median over rounds, each against the same round's."""
    pairs = zip(runs, reference, strict=False)
    return median(getattr(one, what) / getattr(other, what) for one, other in pairs)


def ratio_table(runs: Runs, slices: int) -> str:
    """Time of each engine, start-up aside and of the whole process, over that of brainseg's own in Python."""
    own = {engine.backend: found for engine, found in runs.items() if engine.reference}
    header = ["", "ms a slice", *(f"x brainseg, {one}" for one in own)]
    header += ["whole process, s", *(f"x brainseg, {one}" for one in own), "peak MB"]
    rows = []
    for engine, found in runs.items():
        aside = [f"{times(found, other, 'seconds'):.2f}" for other in own.values()]
        whole = [f"{times(found, other, 'whole'):.2f}" for other in own.values()]
        row = [engine.title, f"{1000 * median(run.seconds for run in found) / slices:.1f}", *aside]
        row += [f"{median(run.whole for run in found):.1f}", *whole, f"{max(run.peak_mb for run in found):.0f}"]
        rows.append(row)
    return table(header, rows)


def agreement(masks: Mapping[Engine, Mapping[str, Path]]) -> Agreement:
    """Dice of every engine that has the same weights with the reference, on every patient."""
    reference = next((found for one, found in masks.items() if one.reference and one.backend == "torch"), {})
    others = {one: found for one, found in masks.items() if one.least_dice is not None and found is not reference}
    rows = {
        patient: {engine: dice(mask, found.get(patient)) for engine, found in others.items()}
        for patient, mask in reference.items()
    }
    header = ["patient", *(engine.title for engine in others)]
    cells = [[patient, *(f"{value:.4f}" for value in row.values())] for patient, row in rows.items()]
    return Agreement(rows if others else {}, table(header, cells))


def dice(one: Path, other: Path | None) -> float:
    """Dice of two mask files; two empty masks agree: 1. NaN where one is missing or of another shape."""
    import nibabel
    import numpy as np

    if other is None:
        return float("nan")
    a, b = (np.asarray(nibabel.load(path).dataobj).squeeze() > 0 for path in (one, other))
    if a.shape != b.shape:
        return float("nan")
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def disagreements(bundle: str, found: Agreement) -> list[str]:
    """A line for each patient on whom an engine's mask is missing, or too far from the reference's.

    Of engines that see other windows it is the median that counts: on some patient a lesion's probability is so near
    the limit of the clean-up that one keeps it and another does not.
    """
    lines = []
    for engine in next(iter(found.rows.values()), {}):
        least = engine.least_dice or 0.0
        values = {patient: row[engine] for patient, row in found.rows.items()}
        judged = values if least >= SAME else {"median": median(values.values())}
        judged |= {patient: value for patient, value in values.items() if value != value}
        lines += [
            f"{bundle}, {which}: the masks of {engine.title} have a Dice of {value:.4f}, under {least}"
            for which, value in judged.items()
            if not value >= least
        ]
    return lines


def growth_table(runs: Runs, counts: Sequence[int]) -> str:
    """Seconds by number of slices, and how far they are off a straight line."""
    import numpy as np

    parts = []
    for engine, found in runs.items():
        seconds = [median(run.found["each"][f"case{count:03d}"] for run in found) for count in counts]
        slope, start = np.polyfit(counts, seconds, 1)
        off = [value / (start + slope * count) - 1 for count, value in zip(counts, seconds, strict=True)]
        rows = [
            [str(count), f"{value:.2f}", f"{1000 * value / count:.1f}", f"{100 * away:+.1f}%"]
            for count, value, away in zip(counts, seconds, off, strict=True)
        ]
        linear = "linear" if max(map(abs, off)) <= LINEAR else "not linear"
        text = (
            f"{engine.title}: {1000 * slope:.1f} ms a slice and {start:.2f} s a case; {linear} to within {LINEAR:.0%}"
        )
        parts.append(f"{table(['slices', 'seconds', 'ms a slice', 'off the line'], rows)}\n\n{text}.")
    return "\n\n".join(parts)


def memory_table(runs: Runs) -> str:
    rows = [[one.title, f"{found[0].peak_mb:.0f}", f"{found[0].whole:.1f}"] for one, found in runs.items()]
    return table(["", "peak MB", "whole process, s"], rows)


def alone_table(runs: Runs) -> str:
    """Each network's time beside its floor: its arithmetic at the rate of the fastest convolution."""
    fastest = next((found for engine, found in runs.items() if engine.words == ("peak",)), [])
    rates = {kind: max((run.found[kind] for run in fastest), default=float("nan")) for kind in ("fp32", "bf16")}
    best = max(rates.values())
    own = {engine.bundle: found for engine, found in runs.items() if engine.reference and engine.backend == "torch"}
    rows = []
    for engine, found in runs.items():
        if engine.words == ("peak",):
            continue
        work = found[0].found["flop"]
        seconds = median(run.seconds for run in found)
        floors = [f"{1000 * work / rate:.1f}" for rate in rates.values()]
        beside = f"{times(found, own[engine.bundle], 'seconds'):.2f}" if engine.bundle in own else ""
        row = [engine.bundle, engine.title, f"{work / 1e9:.1f}", f"{1000 * seconds:.1f}", *floors]
        rows.append([*row, f"{seconds / (work / best):.2f}", beside])
    header = ["", "", "GFLOP a slice", "ms a slice", "floor fp32, ms", "floor bf16, ms", "x lowest floor"]
    said = ", ".join(f"{kind} {rate / 1e9:.0f} GFLOP/s" for kind, rate in rates.items())
    return f"{table([*header, 'x brainseg, torch'], rows)}\n\nFastest convolution: {said}."


def training_table(runs: Runs) -> str:
    """Slices a second, beside the bundle's own training, and how busy the GPU was."""
    own = {engine.bundle: found for engine, found in runs.items() if engine.reference}
    rows = []
    for engine, found in runs.items():
        busy = [run.found["busy"] for run in found if run.found["busy"] is not None]
        beside = f"{times(found, own[engine.bundle], 'seconds'):.2f}" if engine.bundle in own else ""
        row = [engine.bundle, engine.title, f"{1 / median(run.seconds for run in found):.0f}", beside]
        rows.append([*row, f"{median(busy):.0f}%" if busy else "", f"{max(run.peak_mb for run in found):.0f}"])
    return table(["", "", "slices a second", "x the bundle's time", "GPU busy", "peak MB"], rows)
