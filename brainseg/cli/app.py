"""`brainseg app`: a page to try the model."""

from __future__ import annotations

import click

from brainseg.cli.options import device_option, verbosity


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; the page has no login.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes a free one.")
@click.option("--bundle", "bundles", multiple=True, metavar="NAME|PATH", help="Offer these only; the first is chosen.")
@device_option
@verbosity
def app(host: str, port: int, bundles: tuple[str, ...], device: str, quiet: bool) -> None:
    """Serve a page to try the model: drop a scan, look at the slices, download the mask. Keeps nothing.

    Needs gradio: pip install "brainseg[app]".
    """
    from brainseg.app.server import hosts_of, serve
    from brainseg.bundle import DEFAULT, shipped, ships_weights

    trained = sorted((name for name in shipped() if ships_weights(name)), key=lambda name: name != DEFAULT)
    if hosts_of(host) is None:
        click.echo(
            f"warning: {host} is not this machine alone, and the page has no login: whoever reaches it can use it",
            err=True,
        )
    serve(bundles or trained, host, port, device, ready=lambda address: click.echo(f"{address}  (Ctrl-C ends it)"))
