"""The engines that scripts/benchmark.py compares, and how one is run: as a process of its own, watched from outside.

Nothing large is imported here: a child's peak memory counts from what its parent held.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "peers"
SHIPPED = ("basic_unet", "attention_unet", "residual_unet")
DEFAULT = "residual_unet"
TRAINED_BY_NOBODY = "resnet34_unet"
PINNED = ("nnunetv2==2.8.1", "segmentation_models_pytorch==0.6.0")
WITHOUT_OPENVINO = "auto without OpenVINO"
SAME = 0.999  # Dice of engines that do the same arithmetic, in fp32 or bf16
ALIKE = 0.95  # median, of those that see whole slices or other windows, where the bundle sees the head alone


@dataclass(frozen=True)
class Engine:
    """One way to get masks.

    Attributes:
        title: its row in the tables.
        runner: file in scripts/peers, without .py.
        bundle, root: whose network it runs; name and folder.
        backend: of brainseg.
        peer: runs in the peers' environment.
        least_dice: with the reference's masks (on every patient, or in the median: `disagreements`); None where the
            weights are others.
        words: arguments of the runner after its job.
    """

    title: str
    runner: str
    bundle: str
    root: Path
    backend: str = "torch"
    peer: bool = False
    least_dice: float | None = SAME
    words: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return "-".join((self.bundle, self.runner, self.backend, *self.words)).replace(" ", "-")

    @property
    def reference(self) -> bool:
        """What the others are divided by and compared with: files in, mask files out."""
        return self.runner == "ours_lean" or self.words[:1] == ("brainseg",)


@dataclass(frozen=True)
class Run:
    """What one run took.

    Attributes:
        seconds: of the timed section, after imports and loading of the network.
        whole: of the process.
        peak_mb: of its memory, or of the largest process that it started.
        found: the line that it printed.
        error: why there is nothing else.
    """

    seconds: float = 0.0
    whole: float = 0.0
    peak_mb: float = 0.0
    found: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def brief(self) -> str:
        return f"{self.seconds:.3f} s of {self.whole:.1f} s, {self.peak_mb:.0f} MB"


@dataclass(frozen=True)
class Machine:
    """Where engines run: `runs` gets their masks, each has `threads` cores, `peers` is the peers' Python."""

    runs: Path
    threads: int
    device: str
    peers: Path | None

    def bundle(self, name: str) -> Path:
        return ROOT / "bundles" / name

    def masks(self, engine: Engine) -> dict[str, Path]:
        """Patient -> mask, of the engine's last run."""
        folders = sorted(path for path in (self.runs / engine.slug).iterdir() if path.is_dir())
        return {one.name: mask for one in folders for mask in sorted(one.rglob("*mask.nii.gz"))[:1]}

    def run(self, engine: Engine, data: Path) -> Run:
        """Runs the engine over the patients in `data`."""
        out = self.runs / engine.slug
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        job = {
            "data": str(data),
            "out": str(out),
            "bundle": str(engine.root),
            "threads": self.threads,
            "device": self.device,
            "backend": engine.backend,
        }
        python = self.peers if engine.peer and self.peers else Path(sys.executable)
        command = [str(python), str(PEERS / f"{engine.runner}.py"), json.dumps(job), *engine.words]
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
            started = time.perf_counter()
            child = subprocess.Popen(command, stdout=said, stderr=complained, env=self._environment(engine))
            _, status, usage = os.wait4(child.pid, 0)
            whole = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            lines, errors = (text_of(stream).strip().splitlines() for stream in (said, complained))
        if child.returncode != 0 or not lines:
            return Run(error=errors[-1] if errors else f"ended with code {child.returncode} and said nothing")
        found = json.loads(lines[-1])
        return Run(found.get("seconds", 0.0), whole, usage.ru_maxrss / 1024, found)

    def python(self, arguments: list[str]) -> None:
        """Runs brainseg's own Python."""
        subprocess.run([sys.executable, *arguments], check=True, env=self._environment(None))

    def untrained(self, name: str, out: Path) -> Path:
        """A copy of a bundle that ships no weights, with noise for weights."""
        shutil.copytree(self.bundle(name), out / name)
        self.python([str(PEERS / "noise_for_weights.py"), str(out / name)])
        return out / name

    def _environment(self, engine: Engine | None) -> dict[str, str]:
        threads = str(self.threads)
        given = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"}
        given["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        if engine is not None and engine.peer:
            del given["PYTHONPATH"]
        return given


def text_of(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode(errors="replace"))


def pin(threads: int) -> None:
    """Leaves this process and its children `threads` cores, so that no engine takes more than it was given."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def backends(machine: Machine) -> list[str]:
    """The backends that this brainseg has here; "auto" is timed as it is without OpenVINO, since it may choose that."""
    from brainseg.cli.segment import segment

    choices: Any = next(one.type for one in segment.params if one.name == "backend")
    if machine.device != "cpu" or "openvino" not in choices.choices:
        return ["torch"]
    return ["torch", WITHOUT_OPENVINO, *(["openvino"] if importlib.util.find_spec("openvino") else [])]


def engines_of(name: str, root: Path, machine: Machine, *, quick: bool = False) -> list[Engine]:
    """What is compared on one bundle, brainseg's own first."""
    own = ["torch"] if quick else backends(machine)
    engines = [Engine(f"brainseg in Python, {one}", "ours_lean", name, root, one) for one in own]
    if not quick:
        engines += [Engine(f"`brainseg segment`, {one}", "ours_full", name, root, one) for one in own]
    if name != TRAINED_BY_NOBODY:
        engines += [Engine("plain MONAI script", "plain_monai", name, root, least_dice=ALIKE)]
        engines += [Engine("`monai.bundle run`", "monai_bundle", name, root)]
        if machine.peers:
            engines += [Engine("nnU-Net's predictor", "nnunet", name, root, peer=True, least_dice=ALIKE)]
        if not quick:
            engines += [Engine("Buda U-Net, untrained", "buda_unet", name, root, least_dice=None)]
    elif machine.peers:
        title = "segmentation_models_pytorch, ResNet-34 U-Net"
        engines += [Engine(title, "smp_unet", name, root, peer=True, least_dice=None)]
    return engines


def networks_of(roots: Mapping[str, Path], machine: Machine) -> list[Engine]:
    """The fastest convolution, then each network by each engine."""
    engines = [Engine("peak", "network_alone", "", ROOT, words=("peak",))]
    for name, root in roots.items():
        for one in backends(machine):
            engines += [Engine(f"brainseg, {one}", "network_alone", name, root, one, words=("brainseg",))]
        engines += [Engine("as MONAI runs it", "network_alone", name, root, words=("torch",))]
        if name == TRAINED_BY_NOBODY:
            engines += [Engine("segmentation_models_pytorch", "network_alone", name, root, peer=True, words=("smp",))]
    return [*engines, Engine("Buda U-Net", "network_alone", "", ROOT, words=("buda",))]


def trainings_of(names: Iterable[str], machine: Machine) -> list[Engine]:
    """Each network's training, the bundle's own first."""
    titles = {"brainseg": "the bundle's train.json", "stock": "MONAI in a loop of one's own"}
    return [
        Engine(title, "training", name, machine.bundle(name), words=(way,), least_dice=None)
        for name in names
        for way, title in titles.items()
    ]


def peers_python(folder: Path) -> Path:
    """The Python of the peers' environment at `folder`, which is made where it is missing or holds other versions."""
    wanted = [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in ("torch", "monai")]
    listed = "\n".join([*wanted, *PINNED])
    python, marker = folder.absolute() / "bin" / "python", folder / "brainseg-peers.txt"
    if not marker.is_file() or marker.read_text() != listed:
        print(f"installing the peers into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *listed.splitlines()], check=True)
        marker.write_text(listed)
    return python


def versions(names: Iterable[str], python: Path | None = None) -> str:
    """`name version` of the packages that are there."""
    code = (
        "import sys; from importlib.metadata import version, PackageNotFoundError\n"
        "for name in sys.argv[1:]:\n"
        " try: print(name, version(name))\n"
        " except PackageNotFoundError: pass"
    )
    command = [str(python or sys.executable), "-c", code, *names]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return ", ".join(said.strip().splitlines())
