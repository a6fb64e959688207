"""`brainseg` run inside the tests' own process, with a network that takes no time where one is wanted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from brainseg import bundle as bundles
from brainseg.bundle import Bundle
from brainseg.cli import main


class Bright(torch.nn.Module):
    """Stands in for a network, so that no test waits for one: marks FLAIR of 1.3 times the head's mean or brighter."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, 1:2] - 1.3) * 20


def brainseg(*arguments: object) -> int:
    """Exit code of `brainseg ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


_open_shipped = cache(bundles.open_bundle)  # which no test changes


def open_bundles_with(network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bundle that is opened from now on has `network` in place of its own, and looks once."""
    original = bundles.open_bundle

    def quick(name: object, **kwargs: object) -> Bundle:
        opened = _open_shipped if name in bundles.shipped() else original
        bundle = opened(name, **kwargs)  # type: ignore[arg-type]
        return replace(bundle, network=network, look=lambda network: network)

    monkeypatch.setattr(bundles, "open_bundle", quick)
