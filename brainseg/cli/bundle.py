"""`brainseg bundle`: look at, verify and export the bundles."""

from __future__ import annotations

from pathlib import Path

import click

from brainseg.cli.options import any_path, verbosity


@click.group()
def bundle() -> None:
    """List, inspect, verify and export the MONAI bundles."""


@bundle.command("list")
def list_() -> None:
    """The shipped bundles, one name a line, and beside it whether a bundle has yet to be trained."""
    from brainseg.bundle import NO_WEIGHTS, shipped, ships_weights

    for name in shipped():
        click.echo(name if ships_weights(name) else f"{name}  ({NO_WEIGHTS})")


@bundle.command()
@click.argument("name")
def info(name: str) -> None:
    """What a bundle is: network, version, weights, licence, folder."""
    from brainseg.bundle import describe

    for key, value in describe(name).items():
        click.echo(f"{key:12} {value}")


@bundle.command()
@click.argument("names", nargs=-1)
@verbosity
def verify(names: tuple[str, ...], quiet: bool) -> None:
    """Check the weights of NAMES (default: every shipped bundle) against their hashes, and load them."""
    from brainseg.bundle import NO_WEIGHTS, open_bundle, shipped, ships_weights

    for name in names or tuple(shipped()):
        if name in shipped() and not ships_weights(name):
            said = NO_WEIGHTS
        else:
            opened = open_bundle(name, device="cpu")
            said = f"weights {opened.weights_sha256[:12]} are as recorded and fit the network"
        if not quiet:
            click.echo(f"{name}: {said}")


@bundle.command()
@click.argument("name")
@click.option("--out", type=any_path, required=True, help="TorchScript file to write (FILE.ts).")
@verbosity
def export(name: str, out: Path, quiet: bool) -> None:
    """Write bundle NAME as TorchScript: (N, 3, H, W) float32 in the network's frame to logits (N, 1, H, W)."""
    from brainseg.bundle import export_torchscript

    difference = export_torchscript(name, out)
    if not quiet:
        click.echo(f"{out}: logits differ from the network's by at most {difference:.1e}")
