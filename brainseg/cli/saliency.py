"""`brainseg saliency`: what the network looked at on one slice."""

from __future__ import annotations

from pathlib import Path

import click

from brainseg.cli.options import any_path, bundle_option, device_option, out_option, verbosity


@click.command()
@click.argument("patient", type=any_path)
@out_option
@bundle_option
@click.option("--slice", "number", type=int, help="Counted from 1, as in slices.csv (default: that of most mask).")
@click.option("--pre", type=any_path, help="Pre-contrast T1 of the patient.")
@click.option("--post", type=any_path, help="Post-contrast T1 of the patient.")
@click.option("--spacing", type=float, nargs=3, metavar="X Y Z", help="Voxel size in mm, for TIFF slices.")
@click.option("--series", metavar="UID", help="DICOM series to take for the FLAIR.")
@click.option("--force", is_flag=True, help="Take a series that does not say it is FLAIR.")
@click.option("--allow-gap", is_flag=True, help="Accept a DICOM series with missing slices.")
@device_option
@verbosity
def saliency(
    patient: Path,
    out: Path,
    bundle: str | None,
    number: int | None,
    pre: Path | None,
    post: Path | None,
    spacing: tuple[float, float, float] | None,
    series: str | None,
    force: bool,
    allow_gap: bool,
    device: str,
    quiet: bool,
) -> None:
    """Show what the network's answer on one slice of PATIENT hangs on: slice, contour and heat map, as a picture.

    Parts of the slice are hidden one after another, so this takes some hundred times as long as the slice itself. It
    shows what the network looked at, and is no proof of anything.
    """
    from brainseg.bundle import DEFAULT, open_bundle
    from brainseg.cohort import locked
    from brainseg.readers import read_case
    from brainseg.saliency import show_saliency

    case = read_case(patient, pre=pre, post=post, spacing_mm=spacing, series=series, force=force, allow_gap=allow_gap)
    opened = open_bundle(bundle or DEFAULT, device=device)
    click.get_current_context().with_resource(locked(out))
    path = show_saliency(case, opened, out, number=number)
    if not quiet:
        click.echo(path)
