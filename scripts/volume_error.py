#!/usr/bin/env python3
"""Fit how far measured volumes are from true ones, from an evaluation of patients that the network never saw.

    python scripts/volume_error.py scores/residual_unet --bundle residual_unet

What it prints belongs into brainseg/volume_error.py, where `brainseg follow` has it from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from brainseg.errors import InputError
from brainseg.volume_error import LEVELS, VolumeError, fit_volume_error
from brainseg.writers.tables import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="folder that `brainseg evaluate` wrote, of a cross-validation")
    parser.add_argument("--bundle", required=True, help="name of the network")
    args = parser.parse_args()
    print(constant(fit(args.evaluation, args.bundle)))


def fit(evaluation: Path, bundle: str) -> VolumeError:
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
    return fit_volume_error(*sizes, source=summary["what"], bundle=bundle)


def constant(error: VolumeError) -> str:
    """The Python that brainseg/volume_error.py holds, with the levels in words above it."""
    lines = [
        f"# {level}%: measured/true {low} to {high}; pairs differ by less than {pair}"
        for level, (low, high), pair in zip(LEVELS, error.ratios, error.pairs, strict=True)
    ]
    fields = (
        f'    {name}="{value}",' if isinstance(value, str) else f"    {name}={value},"
        for name, value in vars(error).items()
    )
    return "\n".join([*lines, "VOLUME_ERROR = VolumeError(", *fields, ")"])


if __name__ == "__main__":
    main()
