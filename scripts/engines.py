"""How far the engines agree with fp32 PyTorch, and how fast each runs the network alone.

    python scripts/engines.py --data kaggle_3m [--patients N] [--bundle NAME] [--precision bf16]

For every shipped bundle with weights and every engine of this machine: Dice of its mask with that of the reference
(`--backend torch --device cpu`), patient by patient; what mean Dice against the known masks (protocol E) changes by;
and milliseconds a slice, the engines taking turns on the same slices. The floor is what the network's multiplications
alone would take: their number over the machine's own peak, the best rate that it reaches in large matrix products in
bfloat16 (fp32 where the CPU has no bfloat16), on the same number of threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brainseg.backends import Engine, has_bfloat16, has_openvino
from brainseg.backends.openvino import OpenVinoEngine
from brainseg.backends.torch import TorchEngine
from brainseg.backends.torch_cpu import RewrittenEngine
from brainseg.bundle import Bundle, open_bundle, shipped, ships_weights
from brainseg.inference import preprocessed
from brainseg.measures import dice
from brainseg.readers import read_ground_truth, read_patient
from brainseg.study import find_patients

BOUND = 0.999
PRECISIONS = ("bf16", "fp32")
TIMED_SLICES, TURNS = 6, 5


@dataclass
class Agreement:
    """Of one engine, a patient: Dice with the reference's mask, and Dice with the known one less the reference's."""

    with_reference: dict[str, float] = field(default_factory=dict)
    voxels: dict[str, int] = field(default_factory=dict)
    with_truth: list[float] = field(default_factory=list)


def engines(bundle: Bundle, wanted: list[str]) -> list[Engine]:
    """Every engine of the `wanted` precisions that this machine can run, the reference first."""
    precisions = [one == "bf16" for one in PRECISIONS if one in wanted and (one == "fp32" or has_bfloat16())]
    found: list[Engine] = [TorchEngine(bundle)]
    found += [RewrittenEngine(bundle, bf16=bf16) for bf16 in precisions]
    if has_openvino():
        found += [OpenVinoEngine(bundle, bf16=bf16) for bf16 in precisions]
    return found


def mask_of(data: dict[str, Any], logits: torch.Tensor, bundle: Bundle) -> Any:
    """The bundle's mask of `logits`, bool (X, Y, Z) on the native grid."""
    return bundle.mask(bundle.probability({**data, "pred": logits}))["pred"][0].numpy() > 0


def agreements(bundle: Bundle, found: list[Engine], patients: Iterable[Any]) -> Iterator[tuple[str, list[Agreement]]]:
    """After every patient its name and all results so far, an `Agreement` an engine."""
    results = [Agreement() for _ in found]
    for patient in patients:
        case, truth = read_patient(patient), read_ground_truth(patient)
        data = preprocessed(case, bundle)
        masks = [mask_of(data, engine.logits(data["image"]), bundle) for engine in found]
        for result, mask in zip(results, masks, strict=True):
            result.with_reference[patient.name] = 1.0 if not (mask | masks[0]).any() else dice(mask, masks[0])
            result.voxels[patient.name] = int(masks[0].sum())
            if truth is not None and truth.any():
                result.with_truth.append(dice(mask, truth) - dice(masks[0], truth))
        yield patient.name, results


def milliseconds(found: list[Engine], image: torch.Tensor) -> list[float]:
    """Median ms a slice of `image` for each engine, first runs left out and the engines taking turns."""
    times: list[list[float]] = [[] for _ in found]
    for turn in range(TURNS + 1):
        for own, engine in zip(times, found, strict=True):
            started = time.perf_counter()
            engine.logits(image)
            if turn:
                own.append((time.perf_counter() - started) * 1000 / image.shape[-1])
    return [statistics.median(own) for own in times]


def multiplications(bundle: Bundle, image: torch.Tensor) -> int:
    """Multiplications of the convolutions for one slice of `image`, looked at as often as the bundle does."""
    count = 0

    def add(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        nonlocal count
        pixels = given[0] if isinstance(module, nn.ConvTranspose2d) else result
        count += module.weight.numel() * pixels.shape[-1] * pixels.shape[-2]  # type: ignore[union-attr, operator]

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_hook(add) for module in bundle.network.modules() if isinstance(module, kinds)]
    with torch.inference_mode():
        bundle.look(bundle.network)(image[None, ..., 0])
    for hook in hooks:
        hook.remove()
    return count


def peak_rate() -> float:
    """Multiplications a second in the best of several large matrix products."""
    kind = torch.bfloat16 if has_bfloat16() else torch.float32
    side, best = 2048, 0.0
    left, right = (torch.randn(side, side, dtype=torch.float32).to(kind) for _ in range(2))
    for _ in range(8):
        started = time.perf_counter()
        left @ right
        best = max(best, side**3 / (time.perf_counter() - started))
    return best


def main() -> None:
    """Prints the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of patients with masks")
    parser.add_argument("--patients", type=int, help="so many of them, spread over the list")
    parser.add_argument("--bundle", action="append", help="these only")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="engines of this one only")
    arguments = parser.parse_args()
    patients = list(find_patients(arguments.data))
    if arguments.patients:
        patients = patients[:: max(1, len(patients) // arguments.patients)][: arguments.patients]
    print(
        f"{len(patients)} patients, {torch.get_num_threads()} threads, bfloat16 {'yes' if has_bfloat16() else 'no'}\n"
    )
    for name in arguments.bundle or [one for one in shipped() if ships_weights(one)]:
        bundle = open_bundle(name, device="cpu", backend="torch")
        found = engines(bundle, arguments.precision or list(PRECISIONS))
        results = [Agreement() for _ in found]
        for patient, results in agreements(bundle, found, patients):
            least = min(result.with_reference[patient] for result in results)
            print(f"<!-- {name} {patient}: {results[0].voxels[patient]} voxels, least Dice {least:.5f} -->", flush=True)
        image = preprocessed(read_patient(patients[0]), bundle)["image"].as_tensor()
        middle = image.shape[-1] // 2
        image = image[..., max(0, middle - TIMED_SLICES // 2) :][..., :TIMED_SLICES]
        times = milliseconds(found, image)
        floor = multiplications(bundle, image) / peak_rate() * 1000
        print(f"\n### {name}, slices of {image.shape[1]}x{image.shape[2]}\n")
        print(
            "| engine | least Dice | under 0.999 | protocol E | ms a slice | against torch-fp32 | against the floor |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for engine, result, ms in zip(found, results, times, strict=True):
            scores = result.with_reference.values()
            moved = statistics.mean(result.with_truth) if result.with_truth else float("nan")
            print(
                f"| {engine.name} | {min(scores):.5f} | {sum(one < BOUND for one in scores)} of {len(scores)} "
                f"| {moved:+.5f} | {ms:.1f} | {times[0] / ms:.2f}x | {ms / floor:.2f}x |"
            )
        print(f"| floor | | | | {floor:.1f} | {times[0] / floor:.2f}x | 1.00x |\n", flush=True)
        for engine, result in zip(found, results, strict=True):
            for patient, score in result.with_reference.items():
                if score < BOUND:
                    print(f"- {engine.name}: {patient}, {result.voxels[patient]} voxels, Dice {score:.5f}")


if __name__ == "__main__":
    main()
