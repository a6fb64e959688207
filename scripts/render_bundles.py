#!/usr/bin/env python3
"""Render bundles/<name>/ from bundles/source with MONAI's ConfigParser.

    python scripts/render_bundles.py           write configs, licence and metadata of every bundle
    python scripts/render_bundles.py --check   exit 1 if a committed bundle differs from its source

Weights (models/) are not rendered, nor the model cards (docs/) of bundles that ship them: scripts/model_cards.py writes
those from training runs. In networks/<name>.yaml `_meta_` is laid over metadata.json and `_train_` over train.json;
`_module_` names a Python file of the source, which the bundle carries as <name>_network.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jinja2
from monai.bundle import ConfigParser

from brainseg.bundle import USE

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
SOURCE = BUNDLES / "source"
PARTS = {
    "train": ("base", "validate", "augment", "train"),
    "evaluate": ("base", "validate", "evaluate"),
    "inference": ("base", "inference"),
}
OVERLAYS = ("multi_gpu_train",)
RECIPES = {  # laid over any of PARTS, so they set whole entries at the top and name nothing below
    "bce_dice": ("recipes/bce_dice",),
    "grayscale": ("whole_slices", "recipes/grayscale"),
    "one_cycle": ("whole_slices", "recipes/one_cycle"),
}
TUNABLES = (
    "imports",
    "bundle_root",
    "dataset_dir",
    "datalist",
    "output_dir",
    "checkpoint",
    "weights",
    "pretrained_encoder",
    "fold",
    "folds",
    "max_epochs",
    "coarse_share",
    "batch_size",
    "slices_per_patient",
    "window",
    "canvas",
    "cache_device",
    "missing",
    "learning_rate",
    "ema_momentum",
    "val_interval",
    "save_interval",
    "cache_rate",
    "num_workers",
    "seed",
    "amp",
    "device",
    *USE,
)


def names() -> list[str]:
    return sorted(path.stem for path in (SOURCE / "networks").glob("*.yaml"))


def merge(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """`base` with `extra` laid over it: mappings join key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in extra.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def config(name: str, kind: str) -> dict[str, Any]:
    """One complete config, tunables first."""
    merged: dict[str, Any] = {}
    for part in PARTS[kind]:
        merged = merge(merged, source(part))
    network = own(name)
    training = {"output_bias": network.pop("output_bias"), **network.pop("_train_", {})}
    if kind == "train":
        network = merge(network, training)
    network = {key: value for key, value in network.items() if key not in ("_meta_", "_module_")}
    tunables = {key: part.pop(key) for key in TUNABLES for part in (merged, network) if key in part}
    return {**tunables, **network, **merged}


def source(part: str) -> dict[str, Any]:
    content: dict[str, Any] = ConfigParser.load_config_file(SOURCE / f"{part}.yaml")
    return content


def recipe(name: str) -> dict[str, Any]:
    """What a recipe lays over a config: its parts in order, the later one's entries in place of the earlier one's."""
    return {key: value for part in RECIPES[name] for key, value in source(part).items()}


def own(name: str) -> dict[str, Any]:
    """What `networks/<name>.yaml` says."""
    content: dict[str, Any] = ConfigParser.load_config_file(SOURCE / "networks" / f"{name}.yaml")
    return content


def metadata(name: str) -> dict[str, Any]:
    """The shared metadata with the network's own laid over it; a changelog of its own replaces the shared one."""
    shared, words = ConfigParser.load_config_file(SOURCE / "metadata.yaml"), own(name)["_meta_"]
    if "changelog" in words:
        shared.pop("changelog")
    return merge(shared, words)


def untrained_card(name: str) -> str:
    words = ConfigParser.load_config_file(SOURCE / "cards" / f"{name}.yaml")
    template = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return template.from_string((SOURCE / "untrained.md.j2").read_text()).render(name=name, **words)


def render(name: str) -> dict[str, str]:
    """Path inside the bundle -> text."""

    def text(value: dict[str, Any]) -> str:
        return json.dumps(value, indent=4, ensure_ascii=False) + "\n"

    files = {f"configs/{kind}.json": text(config(name, kind)) for kind in PARTS}
    for overlay in OVERLAYS:
        files[f"configs/{overlay}.json"] = text(source(overlay))
    for one in RECIPES:
        files[f"configs/recipes/{one}.json"] = text(recipe(one))
    files["configs/metadata.json"] = text(metadata(name))
    files["configs/logging.conf"] = (SOURCE / "logging.conf").read_text()
    if module := own(name).get("_module_"):
        files[f"{name}_network.py"] = (SOURCE / f"{module}.py").read_text()
    if (BUNDLES / name / "models" / "model.pt.sha256").is_file():
        files["LICENSE"] = (SOURCE / "LICENSE").read_text()
    else:
        files["LICENSE"] = (SOURCE / "LICENSE.untrained").read_text()
        files["docs/README.md"] = untrained_card(name)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a bundle is not current")
    check = parser.parse_args().check
    stale = []
    for name in names():
        for inside, content in render(name).items():
            path = BUNDLES / name / inside
            if path.is_file() and path.read_text() == content:
                continue
            stale.append(path.relative_to(BUNDLES))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
    for path in stale:
        print(f"{'not current' if check else 'rendered'}: bundles/{path}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
