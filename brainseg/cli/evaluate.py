"""`brainseg evaluate`: how good a bundle, or any predictions, are on patients with known masks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from brainseg.cli.options import bundle_option, device_option, existing_path, out_option, verbosity


@click.command()
@click.option("--data", type=existing_path, required=True, help="Folder of patients with masks.")
@bundle_option
@click.option("--predictions", type=existing_path, help="Folder that `brainseg segment` wrote, in place of a bundle.")
@out_option
@click.option("--protocol", type=click.Choice(["E"]), default="E", show_default=True, help="How it is measured.")
@click.option("--folds", type=existing_path, help="Fold file; with --fold only that fold's patients are scored.")
@click.option("--fold", type=int, help="The fold to score.")
@click.option("--flair-alone", is_flag=True, help="Give the network FLAIR in place of the other sequences.")
@device_option
@verbosity
def evaluate(
    data: Path,
    bundle: str | None,
    predictions: Path | None,
    out: Path,
    protocol: str,
    folds: Path | None,
    fold: int | None,
    flair_alone: bool,
    device: str,
    quiet: bool,
) -> None:
    """Score a bundle or predictions, patient by patient, and write tables and a TensorBoard review."""
    from brainseg.cli.progress import progress
    from brainseg.evaluation import evaluate as run_evaluation
    from brainseg.evaluation import markdown, write_evaluation

    with ExitStack() as stack:
        result = run_evaluation(
            data,
            bundle=bundle,
            predictions=predictions,
            folds=folds,
            fold=fold,
            flair_alone=flair_alone,
            device=device,
            advance=lambda total: stack.enter_context(progress("evaluate", total, quiet=quiet)),
        )
    write_evaluation(result, out)
    click.echo(markdown(result), nl=False)
