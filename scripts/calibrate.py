#!/usr/bin/env python3
"""Fit temperature, threshold and the slices' presence on patients that a network never trained on; say their worth.

    python scripts/calibrate.py --data kaggle_3m --bundle runs/residual_unet
    python scripts/calibrate.py --data kaggle_3m --bundle basic_unet        # the patients of its models/training.json

Every figure of a patient uses the temperature or threshold that suits the other patients best; for presence the
patients are two halves, each scored by what suits the other half. The last line gives what suits all of them; it
belongs into bundles/source/networks/<name>.yaml.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import spearmanr

from brainseg.bundle import Bundle, open_bundle
from brainseg.cli.progress import progress
from brainseg.evaluation import with_flair_alone
from brainseg.inference import segment
from brainseg.measures import case_confidence, dice
from brainseg.members import open_member, training_record
from brainseg.presence import Presence, presence_probability
from brainseg.readers import read_ground_truth, read_patient
from brainseg.scores import UNDOUBTED, score_case
from brainseg.statistics import presence_error
from brainseg.study import find_patients

Array = NDArray[np.float64]
Slices = tuple[NDArray[np.bool_], Array]
EDGES = np.linspace(-20, 20, 1601)  # of the logits
MIDDLES = (EDGES[:-1] + EDGES[1:]) / 2
THRESHOLDS = np.arange(0.1, 0.81, 0.05).round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of patients with masks")
    parser.add_argument("--bundle", required=True, help="folder of runs of `brainseg train`, one a fold")
    parser.add_argument("--flair-alone", action="store_true", help="as if nothing else had been given")
    args = parser.parse_args()
    member = open_member(args.bundle)
    runs = member.runs or unseen(member.bundle)
    patients = [patient for patient in find_patients(args.data) if patient.name in runs]
    if not patients:
        parser.error(f"{args.bundle} trained on all of these patients, or does not say on whom: it cannot be judged")
    counts, scores, confidences, slices = [], [], [], []
    with progress("predict", len(patients), quiet=False) as advance:
        for patient in patients:
            bundle = runs[patient.name]
            case = read_patient(patient, force=True)
            case = with_flair_alone(case) if args.flair_alone else case
            result = segment(case, bundle)
            truth = read_ground_truth(patient) != 0
            logits = np.clip(logit(result.probability.astype(float)) * bundle.temperature, EDGES[0], EDGES[-1])
            counts.append([np.histogram(logits[part], EDGES)[0] for part in (truth, ~truth)])
            scores.append([dice(clean(bundle, result.probability, t), truth) for t in THRESHOLDS])
            confidences.append(case_confidence(result.probability, result.mask))
            one = score_case(patient.name, truth, result.mask, result.probability, case.affine, case.spacing_mm)
            slices.append((one.slice_truth, one.slice_score))
            advance(patient.name)
    now = bundle.temperature
    print(report(member.what, np.array(counts, float), np.array(scores), np.array(confidences), now, bundle.threshold))
    print("\n" + presence_report(slices, bundle.presence))


def unseen(bundle: Bundle) -> dict[str, Bundle]:
    """Patients of a bundle's fold that did not train it -> the bundle."""
    record = training_record(bundle.root)
    return dict.fromkeys(set(record["validated_on"]) - set(record["trained_on"]), bundle)


@cache
def cleaner(root: Path, threshold: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The clean-up of the run at `root` with another threshold."""
    return open_bundle(str(root), threshold=threshold).mask


def clean(bundle: Bundle, probability: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """The bundle's mask of a probability, at another threshold."""
    data = {"pred": MetaTensor(torch.from_numpy(probability)[None])}
    mask: NDArray[np.uint8] = cleaner(bundle.root, float(threshold))(data)["pred"][0].numpy()
    return mask


def report(what: str, counts: Array, scores: Array, confidences: Array, now: float, threshold: float) -> str:
    """Markdown of it all.

    Args:
        what: what was calibrated.
        counts: (n, 2, logits) voxels inside and outside the truth.
        scores: (n, thresholds) Dice.
        confidences: (n,)
        now, threshold: in use.
    """
    n = len(counts)
    others = [np.delete(np.arange(n), i) for i in range(n)]
    scaled = [best_temperature(counts[rest].sum(0)) for rest in others]
    moved = [scores[i, scores[rest].mean(0).argmax()] for i, rest in enumerate(others)]
    used = scores[:, np.abs(THRESHOLDS - threshold).argmin()]
    together = np.stack([binned(counts[i], scaled[i]) for i in range(n)]).sum(0)
    lines = [
        f"{what}, {n} patients; each by what suits the others.",
        "",
        "| | in use | fitted |",
        "| --- | --- | --- |",
        f"| temperature | {now:.2f} | {min(scaled):.2f} to {max(scaled):.2f} |",
        f"| calibration error (ECE) | {error(binned(counts.sum(0), now)):.3f} | {error(together):.3f} |",
        f"| ECE at temperature 1 | {error(binned(counts.sum(0), 1.0)):.3f} | |",
        f"| mean Dice over thresholds | {used.mean():.4f} | {np.mean(moved):.4f} |",
        f"| rank correlation of confidence and Dice | {spearmanr(confidences, used).statistic:.2f} | |",
        "",
        "| threshold | " + " | ".join(f"{t:.2f}" for t in THRESHOLDS) + " |",
        "| --- |" + " --- |" * len(THRESHOLDS),
        "| mean Dice | " + " | ".join(f"{value:.4f}" for value in scores.mean(0)) + " |",
        "",
        f"Over all of them: temperature {best_temperature(counts.sum(0)):.2f},"
        f" threshold {THRESHOLDS[scores.mean(0).argmax()]:.2f}.",
    ]
    return "\n".join(lines)


def best_temperature(counts: Array) -> float:
    """The temperature of least cross-entropy; `counts` (2, logits)."""

    def cross_entropy(temperature: float) -> float:
        scaled = MIDDLES / temperature
        return float((counts[0] * np.logaddexp(0, -scaled) + counts[1] * np.logaddexp(0, scaled)).sum())

    return float(minimize_scalar(cross_entropy, bounds=(0.2, 10), method="bounded").x)


def binned(counts: Array, temperature: float) -> Array:
    """(3, 100): voxels, tumour and summed probability in bins of 0.01 of the probability."""
    probability = expit(MIDDLES / temperature)
    bins = np.minimum((probability * 100).astype(int), 99)
    both = counts.sum(0) * (probability >= UNDOUBTED)
    weights: list[Array] = [both, counts[0] * (probability >= UNDOUBTED), both * probability]
    return np.stack([np.bincount(bins, weight, minlength=100) for weight in weights])


def error(bins: Array) -> float:
    """Mean distance of probability and frequency over voxels."""
    voxels, tumour, probability = bins
    return float(np.abs(tumour - probability).sum() / voxels.sum())


def presence_report(slices: Sequence[Slices], now: Presence) -> str:
    """Markdown of how presence is calibrated; `slices` are truth and highest probability of each patient's slices."""
    halves = [slices[k::2] for k in (0, 1)]
    fitted = [best_presence(half) for half in halves]
    truth, highest = joined(slices)
    judged = [(joined(half)[0], joined(half)[1], fit) for half, fit in zip(halves, fitted[::-1], strict=True)]
    crossed = [presence_error(presence_probability(high, fit), true) for true, high, fit in judged]
    together = np.concatenate([presence_probability(high, fit) for _, high, fit in judged])
    lines = [
        f"Presence of tumour in {len(truth)} slices, {truth.sum()} of them with; two halves of {len(halves[0])} and"
        f" {len(halves[1])} patients, each by what suits the other.",
        "",
        "| | highest probability itself | in use | fitted |",
        "| --- | --- | --- | --- |",
        f"| slope, offset | | {shown(now)} | {shown(fitted[0])} and {shown(fitted[1])} |",
        f"| calibration error (ECE) | {presence_error(highest, truth):.3f}"
        f" | {presence_error(presence_probability(highest, now), truth):.3f}"
        f" | {presence_error(together, np.concatenate([true for true, _, _ in judged])):.3f} |",
        f"| - of the first half, by the second | | | {crossed[0]:.3f} |",
        f"| - of the second half, by the first | | | {crossed[1]:.3f} |",
        "",
        "| fitted probability | slices | mean of it | with tumour |",
        "| --- | --- | --- | --- |",
    ]
    true = np.concatenate([true for true, _, _ in judged])
    for low, high in pairwise(np.linspace(0, 1, 6)):
        inside = (together >= low) & ((together < high) | (high == 1))
        if inside.any():
            cells = f"{inside.sum()} | {together[inside].mean():.2f} | {true[inside].mean():.2f}"
            lines.append(f"| {low:.1f} to {high:.1f} | {cells} |")
    return "\n".join([*lines, "", f"Over all of them: presence_slope, presence_offset {shown(best_presence(slices))}."])


def shown(presence: Presence) -> str:
    return f"{presence[0]:.2f}, {presence[1]:.2f}"


def joined(slices: Sequence[Slices]) -> Slices:
    """Truth and highest probability of the slices of all patients."""
    return np.concatenate([truth for truth, _ in slices]), np.concatenate([highest for _, highest in slices])


def best_presence(slices: Sequence[Slices]) -> Presence:
    """Slope and offset of least cross-entropy over all slices of these patients."""
    truth, highest = joined(slices)

    def cross_entropy(presence: Array) -> float:
        known = np.clip(presence_probability(highest, tuple(presence)), 1e-12, 1 - 1e-12)
        return float(-np.log(np.where(truth, known, 1 - known)).mean())

    slope, offset = minimize(cross_entropy, (1.0, 0.0), method="Nelder-Mead").x
    return float(slope), float(offset)


if __name__ == "__main__":
    main()
