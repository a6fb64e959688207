"""`brainseg demo`: a synthetic patient through the whole of it, with no data of the user's."""

from __future__ import annotations

from pathlib import Path

import click

from brainseg.cli.options import any_path, verbosity


@click.command()
@click.option("--out", type=any_path, default=Path("brainseg-demo"), show_default=True, help="Folder for the results.")
@verbosity
@click.pass_context
def demo(context: click.Context, out: Path, quiet: bool) -> None:
    """Segment a synthetic patient with the shipped weights: proves the installation, not the accuracy."""
    from brainseg.cli.progress import progress
    from brainseg.cohort import locked, run_cohort
    from brainseg.job import Options
    from brainseg.measures import dice
    from brainseg.phantom import make_phantom, write_phantom_nifti
    from brainseg.readers import read_ground_truth
    from brainseg.readers.nifti import read_nifti_mask
    from brainseg.study import find_patients
    from brainseg.units import millilitres

    if not quiet:
        click.echo("making a synthetic patient")
    phantom = make_phantom()
    source = out / "input"
    with locked(out):
        write_phantom_nifti(phantom, source)
    patients = find_patients(source)
    name = patients[0].name
    outcome = run_cohort(
        [source], out, Options(truth_ml={name: phantom.volume_ml}), lambda n: progress("segment", n, quiet=quiet)
    )
    for message in outcome.messages:
        click.echo(f"error: {message}", err=True)
    if not outcome.failures and not quiet:
        truth = read_ground_truth(patients[0])
        overlap = dice(read_nifti_mask(out / name / "mask.nii.gz"), truth) if truth is not None else float("nan")
        row = outcome.rows[0]
        true, measured = millilitres(phantom.volume_ml), millilitres(row.volume_ml or 0)
        click.echo(f"true volume {true} mL, measured {measured} mL, Dice {overlap:.2f}")
        click.echo("a synthetic head proves that the installation works, not how accurate it is on patients")
        click.echo(f"mask     {out / name / 'mask.nii.gz'}")
        click.echo(f"overlay  {out / name / 'overlay.png'}")
        click.echo(f"report   {out / 'report.html'}")
    context.exit(outcome.exit_code)
