#!/usr/bin/env python3
"""Put the best weights of a training run into a shipped bundle, in half precision and with their SHA-256.

    python scripts/ship_weights.py RUN BUNDLE

RUN is a folder that `brainseg train` wrote (models/model.pt, a plain state_dict, and training.json). The file is
written from a buffer, so that equal weights give equal bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
from pathlib import Path

import torch

from brainseg.bundle import recorded_use

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
LARGEST = 20_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "bundle", choices=sorted(path.stem for path in (BUNDLES / "source" / "networks").glob("*.yaml"))
    )
    args = parser.parse_args()
    path = args.run / "models" / "training.json"
    if not path.is_file():
        parser.error(f"{path} is not there, which says who trained these weights; train with brainseg train")
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("by_slice"):
        parser.error("a network trained on a split by slice is for comparison only and is never shipped")
    if recipe := record.get("recipe"):
        parser.error(f"trained by the recipe {recipe}: the bundle's own configs would not give it the input it knows")
    if record.get("bundle") != args.bundle:
        parser.error(f"these are weights of {record.get('bundle')}, not of {args.bundle}")
    if use := recorded_use(args.run):
        parser.error(f"trained with {', '.join(use)} of its own: set them in the bundle's source first")
    state = torch.load(args.run / "models" / "model.pt", map_location="cpu", weights_only=True)
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if not all(torch.isfinite(value).all() for value in half.values()):
        parser.error("weights that are not finite in half precision")
    buffer = io.BytesIO()
    torch.save(half, buffer)
    if buffer.tell() > LARGEST:
        parser.error(f"{buffer.tell()} bytes are more than the {LARGEST} a repository should hold")
    target = BUNDLES / args.bundle / "models"
    target.mkdir(exist_ok=True)
    (target / "model.pt").write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    (target / "model.pt.sha256").write_text(f"{digest}  model.pt\n")
    shutil.copy(path, target / "training.json")
    print(f"{target / 'model.pt'}: {buffer.tell() / 1e6:.1f} MB, SHA-256 {digest}")


if __name__ == "__main__":
    main()
