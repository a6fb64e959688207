"""`brainseg segment`: the clinical job."""

from __future__ import annotations

from pathlib import Path

import click

from brainseg.cli.options import any_path, backend_option, bundle_option, device_option, out_option, verbosity

FORMATS = ("nifti", "tiff", "dicom-seg", "gif")


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=any_path)
@out_option
@bundle_option
@click.option("--ensemble", is_flag=True, help="Average all bundles that ship with weights.")
@click.option("--tta/--no-tta", default=False, show_default=True, help="Also look at the mirror image, twice the time.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="In place of the bundle's own.")
@click.option("--pre", type=any_path, help="Pre-contrast T1 of the one patient in INPUT.")
@click.option("--post", type=any_path, help="Post-contrast T1 of the one patient in INPUT.")
@click.option("--spacing", type=float, nargs=3, metavar="X Y Z", help="Voxel size in mm, for TIFF slices.")
@click.option("--series", metavar="UID", help="DICOM series to take for the FLAIR.")
@device_option
@backend_option
@click.option("--force", is_flag=True, help="Segment what does not say that it is FLAIR, or looks like a mask.")
@click.option("--allow-gap", is_flag=True, help="Accept a DICOM series with missing slices.")
@click.option("--cluster", metavar="ADDRESS", help="Let the workers of this dask scheduler do the cases.")
@click.option(
    "--trust-bundle", is_flag=True, help="Run the configs of a foreign bundle: they are code, and it is shown."
)
@click.option(
    "--format",
    "formats",
    metavar="nifti,tiff,dicom-seg,gif",
    help="Besides mask.nii.gz (default: what suits the input); gif is the contour slice by slice.",
)
@click.option("--segment-per-lesion", is_flag=True, help="In the DICOM SEG, a segment a lesion.")
@click.option("--save-probability", is_flag=True, help="Also write probability.nii.gz.")
@click.option("--overwrite", is_flag=True, help="Segment again what is done already.")
@verbosity
@click.pass_context
def segment(
    context: click.Context,
    inputs: tuple[Path, ...],
    out: Path,
    bundle: str | None,
    ensemble: bool,
    tta: bool,
    threshold: float | None,
    pre: Path | None,
    post: Path | None,
    spacing: tuple[float, float, float] | None,
    series: str | None,
    device: str,
    backend: str,
    force: bool,
    allow_gap: bool,
    cluster: str | None,
    trust_bundle: bool,
    formats: str | None,
    segment_per_lesion: bool,
    save_probability: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Segment the patients in INPUTS: patient folders, folders of patients, NIfTI files, DICOM folders or zips."""
    from brainseg.bundle import foreign_code
    from brainseg.cli.progress import progress
    from brainseg.cohort import run_cohort
    from brainseg.job import Options

    chosen = tuple(word.strip() for word in formats.split(",")) if formats else None
    if chosen and (unknown := [word for word in chosen if word not in FORMATS]):
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}", param_hint="--format")
    if bundle and ensemble:
        raise click.UsageError("--bundle and --ensemble contradict each other; give one")
    options = Options(
        bundle=bundle,
        ensemble=ensemble,
        tta=tta,
        threshold=threshold,
        pre=pre,
        post=post,
        spacing_mm=spacing,
        series=series,
        device=device,
        backend=backend,
        force=force,
        allow_gap=allow_gap,
        trust_bundle=trust_bundle,
        formats=chosen,
        segment_per_lesion=segment_per_lesion,
        save_probability=save_probability,
        overwrite=overwrite,
    )
    if trust_bundle and bundle and (code := foreign_code(bundle)):
        click.echo(f"warning: {bundle} is not one of brainseg's; opening it runs", err=True)
        for line in code:
            click.echo(f"    {line}", err=True)
    outcome = run_cohort(inputs, out, options, lambda total: progress("segment", total, quiet=quiet), cluster=cluster)
    for message in outcome.messages:
        click.echo(f"error: {message}", err=True)
    if not quiet:
        click.echo(f"{out / 'report.html'}")
    context.exit(outcome.exit_code)
