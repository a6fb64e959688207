#!/usr/bin/env python3
"""Fit temperature and threshold on patients that a cross-validation never trained on, and say what they are worth.

    python scripts/calibrate.py --data kaggle_3m --bundle runs/residual_unet

Every figure of a patient uses the temperature or threshold that suits the other patients best. The last line gives
those that suit all of them; they belong into bundles/source/networks/<name>.yaml.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import spearmanr

from brainseg.bundle import Bundle, open_bundle
from brainseg.cli.progress import progress
from brainseg.inference import segment
from brainseg.measures import case_confidence, dice
from brainseg.members import open_member
from brainseg.readers import read_ground_truth, read_patient
from brainseg.scores import UNDOUBTED
from brainseg.study import find_patients

Array = NDArray[np.float64]
EDGES = np.linspace(-20, 20, 1601)  # of the logits
MIDDLES = (EDGES[:-1] + EDGES[1:]) / 2
THRESHOLDS = np.arange(0.2, 0.81, 0.05).round(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of patients with masks")
    parser.add_argument("--bundle", required=True, help="folder of runs of `brainseg train`, one a fold")
    args = parser.parse_args()
    member = open_member(args.bundle)
    if not member.runs:
        parser.error(
            f"{args.bundle} holds no runs: a bundle that trained on these patients cannot be calibrated on them"
        )
    patients = [patient for patient in find_patients(args.data) if member.of(patient.name)]
    counts, scores, confidences = [], [], []
    with progress("predict", len(patients), quiet=False) as advance:
        for patient in patients:
            bundle = member.runs[patient.name]
            result = segment(read_patient(patient, force=True), bundle)
            truth = read_ground_truth(patient) != 0
            logits = np.clip(logit(result.probability.astype(float)) * bundle.temperature, EDGES[0], EDGES[-1])
            counts.append([np.histogram(logits[part], EDGES)[0] for part in (truth, ~truth)])
            scores.append([dice(clean(bundle, result.probability, t), truth) for t in THRESHOLDS])
            confidences.append(case_confidence(result.probability, result.mask))
            advance(patient.name)
    now = bundle.temperature
    print(report(member.what, np.array(counts, float), np.array(scores), np.array(confidences), now, bundle.threshold))


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


if __name__ == "__main__":
    main()
