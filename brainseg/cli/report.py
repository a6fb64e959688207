"""`brainseg report`: tables and report again, from masks that exist."""

from __future__ import annotations

from pathlib import Path

import click

from brainseg.cli.options import any_path, verbosity


@click.command()
@click.argument("folder", metavar="DIR", type=any_path)
@click.option(
    "--without-names", is_flag=True, help="Also write a report to hand on, with numbers for the scans' names."
)
@verbosity
@click.pass_context
def report(context: click.Context, folder: Path, without_names: bool, quiet: bool) -> None:
    """Rebuild tables and report of DIR, the results of `segment`, from the masks in it, corrected ones included."""
    from brainseg.cli.progress import progress
    from brainseg.rebuild import NAMELESS, rebuild

    outcome = rebuild(folder, lambda total: progress("report", total, quiet=quiet), without_names=without_names)
    for message in outcome.messages:
        click.echo(f"error: {message}", err=True)
    if not quiet:
        click.echo(f"{folder / 'report.html'}")
        if without_names:
            click.echo(f"{folder / NAMELESS}")
    context.exit(outcome.exit_code)
