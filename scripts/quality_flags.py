#!/usr/bin/env python3
"""Fit what a FLAIR is expected to look like, and say how often each quality flag is raised.

    python scripts/quality_flags.py fit --data kaggle_3m            # writes brainseg/expected.json, prints its errors
    python scripts/quality_flags.py rates --results results         # of a folder that `brainseg segment` wrote

`fit` judges every patient by what was fitted on the others (ten parts, by patient). T1 are the pre- and post-contrast
channels of the same patients, each given in place of the FLAIR.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainseg import quality
from brainseg.appearance import Appearance, appearance
from brainseg.case import CHANNELS, FLAIR
from brainseg.cli.progress import progress
from brainseg.readers import read_patient
from brainseg.study import find_patients
from brainseg.writers.tables import read_cohort

Array = NDArray[np.float64]
PARTS = 10
RIDGE = 0.1
SHRUNK = 0.1
ROOM = 0.05  # beyond what any FLAIR of the set reaches, as the others' may reach a little further


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fit").add_argument("--data", type=Path, required=True)
    commands.add_parser("rates").add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "rates":
        print(rates(args.results))
        return
    looks, kinds, groups = [], [], []
    patients = find_patients(args.data)
    with progress("look", len(patients), quiet=False) as advance:
        for number, patient in enumerate(patients):
            case = read_patient(patient, force=True)
            for channel, name in enumerate(CHANNELS):
                if channel == FLAIR or name not in case.missing:
                    looks.append(appearance(case.image[channel], case.affine))
                    kinds.append(name)
                    groups.append(number)
            advance(patient.name)
    text, expected = fitted(looks, np.array(kinds), np.array(groups))
    Path(quality.EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")
    print(text)


def fitted(
    looks: list[Appearance], kinds: NDArray[np.str_], groups: NDArray[np.int64]
) -> tuple[str, dict[str, object]]:
    """Markdown of the errors, and the content of expected.json."""
    rings = np.array([quality.ring_features(look) for look in looks])
    greys = np.array([quality.grey_features(look) for look in looks])
    flair = kinds == CHANNELS[FLAIR]
    t1_score, strangeness = np.zeros(len(looks)), np.zeros(len(looks))
    for part in range(PARTS):
        own = groups % PARTS == part
        t1_score[own] = quality.t1_score(rings[own], line(rings[~own], ~flair[~own]))
        strangeness[own] = quality.strangeness(greys[own], spread(greys[~own & flair]))
    t1_limit, strange_limit = (float(score[flair].max()) + ROOM for score in (t1_score, strangeness))
    rows = [
        f"| {name} | {n} | {(t1_score[own] > t1_limit).sum()} | {(strangeness[own] > strange_limit).sum()} |"
        for name in CHANNELS
        for own in [kinds == name]
        for n in [int(own.sum())]
    ]
    text = "\n".join(
        [
            "| given as the FLAIR | scans | flagged t1_likely | flagged unlike_training |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )
    own = [look for look, is_flair in zip(looks, flair, strict=True) if is_flair]
    ranges = {
        name: [float(f([getattr(look, name) for look in own])) for f in (min, max)]
        for name in ("share", "aspect", "fill", "sides", "top")
    }
    text += "\n\n" + "\n".join(
        f"{name}: {low:.3f} to {high:.3f} over {len(own)} FLAIR" for name, (low, high) in ranges.items()
    )
    expected = {
        "t1": line(rings, ~flair) | {"limit": t1_limit},
        "greys": spread(greys[flair]) | {"limit": strange_limit},
        "ranges": ranges,
    }
    return text, expected


def line(features: Array, is_t1: NDArray[np.bool_]) -> dict[str, object]:
    """Ridge regression of -1 (FLAIR) and 1 (T1), both kinds with equal weight in all."""
    mean, deviation = features.mean(0), features.std(0)
    scaled = np.c_[(features - mean) / deviation, np.ones(len(features))]
    weight = np.where(is_t1, 0.5 / is_t1.sum(), 0.5 / (~is_t1).sum())[:, None]
    penalty = RIDGE * np.diag([1.0] * features.shape[1] + [0.0])
    solved = np.linalg.solve((scaled * weight).T @ scaled + penalty, (scaled * weight).T @ np.where(is_t1, 1.0, -1.0))
    return {
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
        "weights": solved[:-1].tolist(),
        "bias": float(solved[-1]),
        "farthest": float(np.sqrt((scaled[:, :-1] ** 2).mean(1)).max()),
    }


def spread(features: Array) -> dict[str, object]:
    """Mean and inverse covariance, shrunk a little towards its diagonal."""
    covariance = np.cov(features.T)
    covariance = (1 - SHRUNK) * covariance + SHRUNK * np.diag(np.diag(covariance))
    return {"mean": features.mean(0).tolist(), "precision": np.linalg.inv(covariance).tolist()}


def rates(results: Path) -> str:
    """How many of the cases in a results folder have each flag."""
    rows = [row for row in read_cohort(results / "cohort.csv") if row.status == "done"]
    counts = Counter(flag for row in rows for flag in row.flags)
    lines = [f"{len(rows)} cases done.", "", "| flag | cases | share |", "| --- | --- | --- |"]
    lines += [f"| {flag} | {counts[flag]} | {counts[flag] / len(rows):.1%} |" for flag in quality.FLAGS]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
