"""`brainseg train`: a bundle's own training with patient-level folds, and a review of it in TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from brainseg.bundle import DEFAULT, recipes, recorded_recipe, shipped
from brainseg.cli.options import existing_path, given, out_option, verbosity, warn_of_slices_alone


@click.command()
@click.option("--bundle", required=True, metavar="NAME", help="A shipped bundle.")
@click.option("--data", type=existing_path, required=True, help="Folder of patients with masks.")
@out_option
@click.option(
    "--fold",
    default=0,
    show_default=True,
    help="The fold that validates; -1 trains on all patients and keeps the last epoch.",
)
@click.option("--folds", type=existing_path, help="Fold file; without it `data split` decides.")
@click.option(
    "--split",
    type=existing_path,
    help="Split of `data split --by slice`: its training slices train, and the last epoch is kept. Only for protocols "
    "A and B.",
)
@click.option("--epochs", type=click.IntRange(1), help="In place of the bundle's max_epochs.")
@click.option(
    "--recipe", default="", metavar="NAME", help=f"In place of the house recipe: {', '.join(recipes(DEFAULT))}."
)
@click.option("--weights", metavar="FILE|shipped", help="Start from these weights (fine-tuning).")
@click.option("--resume", is_flag=True, help="Go on where an earlier run in --out stopped.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@verbosity
def train(
    bundle: str,
    data: Path,
    out: Path,
    fold: int,
    folds: Path | None,
    split: Path | None,
    epochs: int | None,
    recipe: str,
    weights: str | None,
    resume: bool,
    overrides: tuple[str, ...],
    quiet: bool,
) -> None:
    """Train a bundle; KEY=VALUE overrides a setting of its train.json (batch_size=2, learning_rate=0.005)."""
    from brainseg import train as training
    from brainseg.cli.progress import progress
    from brainseg.cohort import locked
    from brainseg.datalist import read_folds, split_by_subject
    from brainseg.evaluation import markdown, review_run
    from brainseg.slice_split import INFLATED, read_split
    from brainseg.study import find_patients
    from brainseg.study.subjects import subjects_of

    slices = read_split(split) if split else None
    if slices:
        if folds or given("fold"):
            raise click.UsageError("--split holds out slices of every patient; leave --folds and --fold out")
        click.echo(f"warning: {INFLATED}; never ship this network", err=True)
        fold = training.ALL
    settings: dict[str, Any] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise click.BadParameter(f"{override!r} is not KEY=VALUE", param_hint="[KEY=VALUE]")
        settings[key] = _value(value)
    if epochs is not None:
        settings["max_epochs"] = epochs
    training.tunables(bundle, recipe)  # there is such a bundle and recipe
    training.check_start(bundle, settings, weights=weights, recipe=recipe)
    if fold == training.ALL or "max_epochs" in settings:
        began = recorded_recipe(out, bundle) if resume and bundle in shipped() else ""
        known = training.tunables(bundle, recipe or began)
        total = int(settings.setdefault("max_epochs", known["max_epochs"]))
        settings.setdefault("val_interval", total if fold == training.ALL else min(5, total, known["val_interval"]))
    patients = find_patients(data)
    if not slices:
        warn_of_slices_alone(patients)
    masked = [patient for patient in patients if patient.masks]
    names = [patient.name for patient in masked]
    parts = read_folds(folds) if folds else [names] if slices else split_by_subject(subjects_of(masked))
    click.get_current_context().with_resource(locked(out))
    run = training.prepare(
        bundle, patients, parts, data, out,
        fold=fold, settings=settings, split=slices, recipe=recipe, weights=weights, resume=resume,
    )  # fmt: skip
    if not quiet:
        counts = f"{len(run.trained_on)} patients train, {len(run.validated_on)} validate"
        click.echo(f"{bundle}: {counts}; tensorboard --logdir {out}")
    training.train(run, data, resume=resume, progress=lambda epochs: progress("train", epochs, quiet=quiet))
    by_name = {patient.name: patient for patient in patients}
    if not run.validated_on:
        if not quiet:
            click.echo("every patient trained, so none is left to score")
        return
    validated = [by_name[name] for name in run.validated_on]
    with progress("review", len(validated), quiet=quiet) as advance:
        result = review_run(run.root, validated, settings=training.told_settings(run.settings), advance=advance)
    if not quiet:
        click.echo(markdown(result), nl=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
