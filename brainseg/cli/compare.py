"""`brainseg compare`: networks side by side on the same patients."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from brainseg.cli.options import device_option, existing_path, out_option, verbosity


@click.command()
@click.argument("competitors", nargs=-1, required=True, metavar="A B [C...]")
@out_option
@click.option("--data", type=existing_path, help="Folder of patients with masks, for what has no scores yet.")
@click.option("--folds", type=existing_path, help="Fold file; with --fold only that fold's patients are compared.")
@click.option("--fold", type=int, help="The fold to compare.")
@device_option
@verbosity
def compare(
    competitors: tuple[str, ...],
    out: Path,
    data: Path | None,
    folds: Path | None,
    fold: int | None,
    device: str,
    quiet: bool,
) -> None:
    """Compare B (and C...) with A, patient by patient, and write tables and a page.

    Each is a folder that `brainseg evaluate`, `train` or `segment` wrote, a folder of runs, one a fold, or a shipped
    bundle's name. Scores that exist are read; the others need --data. Only patients that all have are compared.
    """
    from brainseg.cli.progress import Advance, progress
    from brainseg.cohort import locked
    from brainseg.competitors import compare_folders
    from brainseg.writers.comparison import markdown, write_comparison

    click.get_current_context().with_resource(locked(out))
    with ExitStack() as stack:

        def advance(label: str, total: int) -> Advance:
            stack.close()  # the bar of the one before
            return stack.enter_context(progress(label, total, quiet=quiet))

        result = compare_folders(competitors, out, data=data, folds=folds, fold=fold, device=device, advance=advance)
    write_comparison(out, result)
    click.echo(markdown(result), nl=False)
