#!/usr/bin/env python3
"""Fit how far measured volumes are from true ones, from evaluations of patients that the network never saw.

    python scripts/volume_error.py --bundle residual_unet runs/scores/residual_unet/*

What it prints belongs into brainseg/volume_error.py, where `segment` and `follow` have it from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from brainseg.bundle import open_bundle
from brainseg.errors import InputError
from brainseg.volume_error import LEVELS, VolumeError, fit_volume_error, measured_as
from brainseg.writers.tables import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "evaluations", type=Path, nargs="+", help="folders that `brainseg evaluate` wrote, each of a cross-validation"
    )
    parser.add_argument("--bundle", required=True, help="name of the network, which ships")
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    print(constant([fit(one, bundle.name, bundle.version) for one in args.evaluations]))


def fit(evaluation: Path, bundle: str, version: str) -> VolumeError:
    """The errors of the patients in `evaluation`/per_patient.csv.

    Raises:
        InputError: if it is no evaluation, or one in which patients trained the network that is scored.
    """
    path = evaluation / "per_patient.csv"
    _, rows = read_table(path, "give a folder that brainseg evaluate wrote")
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    if summary["cautions"]:
        raise InputError(evaluation, summary["cautions"][0], "evaluate a folder of runs, one a fold")
    sizes = [[int(row[name]) for row in rows] for name in ("voxels", "true_voxels")]
    of = measured_as(bundle, version, flair_alone="FLAIR alone" in summary["what"])
    return fit_volume_error(*sizes, source=summary["what"], of=of)


def constant(errors: Sequence[VolumeError]) -> str:
    """The Python that brainseg/volume_error.py holds, with the levels in words beside it."""
    lines = ["VOLUME_ERRORS = ("]
    for error in errors:
        lines += [
            f"    # {level}%: measured/true {low} to {high}; pairs differ by less than {pair}"
            for level, (low, high), pair in zip(LEVELS, error.ratios, error.pairs, strict=True)
        ]
        fields = (
            f'        {name}="{value}",' if isinstance(value, str) else f"        {name}={value},"
            for name, value in vars(error).items()
        )
        lines += ["    VolumeError(", *fields, "    ),"]
    return "\n".join([*lines, ")"])


if __name__ == "__main__":
    main()
