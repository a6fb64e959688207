"""`brainseg evaluate`: how good a bundle, or any predictions, are on patients with known masks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from brainseg.cli.options import device_option, existing_path, out_option, verbosity


@click.command()
@click.option("--data", type=existing_path, required=True, help="Folder of patients with masks.")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    metavar="NAME|PATH",
    help="A shipped bundle, a run of `brainseg train`, or a folder of such runs, one a fold: then each patient is "
    "scored by the run that did not train on it. Several are averaged.",
)
@click.option("--predictions", type=existing_path, help="Folder that `brainseg segment` wrote, in place of a bundle.")
@out_option
@click.option("--protocol", type=click.Choice(["E"]), default="E", show_default=True, help="How it is measured.")
@click.option("--folds", type=existing_path, help="Fold file; with --fold only that fold's patients are scored.")
@click.option("--fold", type=int, help="The fold to score.")
@click.option("--flair-alone", is_flag=True, help="Give the network FLAIR in place of the other sequences.")
@click.option("--tta", is_flag=True, help="Average with the mirror image.")
@device_option
@verbosity
def evaluate(
    data: Path,
    bundles: tuple[str, ...],
    predictions: Path | None,
    out: Path,
    protocol: str,
    folds: Path | None,
    fold: int | None,
    flair_alone: bool,
    tta: bool,
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
            bundle=bundles or None,
            predictions=predictions,
            folds=folds,
            fold=fold,
            flair_alone=flair_alone,
            tta=tta,
            device=device,
            advance=lambda total: stack.enter_context(progress("evaluate", total, quiet=quiet)),
        )
    write_evaluation(result, out)
    click.echo(markdown(result), nl=False)
