"""Gives a copy of a bundle that ships untrained noise for weights, which mark nothing: noise_for_weights.py BUNDLE."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser


def main() -> None:
    root = Path(sys.argv[1])
    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    parser["bundle_root"] = str(root)
    network = parser.get_parsed_content("network_def")
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    torch.nn.init.constant_(last.bias, -100.0)  # a mask of noise would cost time that no trained network costs
    (root / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), root / "models" / "model.pt")


if __name__ == "__main__":
    main()
