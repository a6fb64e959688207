"""`brainseg evaluate`: how good a bundle, or any predictions, are on patients with known masks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from brainseg.cli.options import backend_option, device_option, existing_path, out_option, verbosity


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
@click.option(
    "--protocol",
    type=click.Choice(["A", "B", "C", "D", "E"]),
    default="E",
    show_default=True,
    help="How it is measured. E counts; the others stand beside published figures: A and B on slices of a leaky split, "
    "C pools all patients, D is ten patients of the complete public set.",
)
@click.option(
    "--split",
    type=existing_path,
    help="Split of `data split --by slice` whose test slices A and B score; without it one is made. With neither "
    "--bundle nor --predictions they score a predictor that looks at no pixel.",
)
@click.option("--folds", type=existing_path, help="Fold file; with --fold only that fold's patients are scored.")
@click.option("--fold", type=int, help="The fold to score.")
@click.option("--flair-alone", is_flag=True, help="Give the network FLAIR in place of the other sequences.")
@click.option("--tta", is_flag=True, help="Average with the mirror image.")
@device_option
@backend_option
@verbosity
def evaluate(
    data: Path,
    bundles: tuple[str, ...],
    predictions: Path | None,
    out: Path,
    protocol: str,
    split: Path | None,
    folds: Path | None,
    fold: int | None,
    flair_alone: bool,
    tta: bool,
    device: str,
    backend: str,
    quiet: bool,
) -> None:
    """Score a bundle or predictions, patient by patient, and write tables and a TensorBoard review."""
    from brainseg import slice_evaluation
    from brainseg.cli.progress import progress
    from brainseg.cohort import locked
    from brainseg.errors import UsageError
    from brainseg.evaluation import evaluate as run_evaluation
    from brainseg.evaluation import markdown, write_evaluation
    from brainseg.protocols import BY_SLICE

    by_slice = protocol in BY_SLICE
    if by_slice and (folds is not None or fold is not None):
        raise UsageError("--folds, --fold", f"protocol {protocol} has no folds of patients", "give --split, or nothing")
    if split is not None and not by_slice:
        raise UsageError(
            "--split", f"protocol {protocol} scores whole patients", "leave it out, or take protocol A or B"
        )
    click.get_current_context().with_resource(locked(out))
    with ExitStack() as stack:
        options: dict[str, Any] = {
            "protocol": protocol,
            "bundle": bundles or None,
            "predictions": predictions,
            "flair_alone": flair_alone,
            "tta": tta,
            "device": device,
            "backend": backend,
            "advance": lambda total: stack.enter_context(progress("evaluate", total, quiet=quiet)),
        }
        if by_slice:
            slices = slice_evaluation.evaluate_slices(data, split=split, **options)
        else:
            result = run_evaluation(data, folds=folds, fold=fold, **options)
    if by_slice:
        slice_evaluation.write_slice_evaluation(slices, out)
        click.echo(slice_evaluation.slice_markdown(slices), nl=False)
        return
    write_evaluation(result, out)
    click.echo(markdown(result), nl=False)
