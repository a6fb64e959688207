"""`brainseg follow`: one patient's volumes over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from brainseg.cli.options import any_path, backend_option, bundle_option, device_option, verbosity

if TYPE_CHECKING:
    from datetime import date


def _days(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(word) for word in text.split(",")]
    except ValueError:
        raise click.BadParameter("is not whole numbers joined by commas, as in 0,92,180") from None


def _dates(context: click.Context, parameter: click.Parameter, text: str | None) -> list[date] | None:
    from datetime import date

    try:
        return None if text is None else [date.fromisoformat(word.strip()) for word in text.split(",")]
    except ValueError:
        raise click.BadParameter("is not dates joined by commas, as in YYYY-MM-DD,YYYY-MM-DD") from None


@click.command()
@click.argument("baseline", type=any_path)
@click.argument("followups", nargs=-1, required=True, type=any_path, metavar="FOLLOWUP...")
@click.option(
    "--out", type=any_path, default=Path("brainseg-follow"), show_default=True, help="Folder for the results."
)
@click.option("--dates", callback=_dates, metavar="YYYY-MM-DD,...", help="Of each visit, if its scan does not say.")
@click.option("--days", callback=_days, metavar="0,92,...", help="Of each visit, in place of dates.")
@click.option("--spacing", type=float, nargs=3, metavar="X Y Z", help="Voxel size in mm, for TIFF slices.")
@click.option("--same-patient", is_flag=True, help="The patient has another PatientID at another visit.")
@bundle_option
@device_option
@backend_option
@click.option("--force", is_flag=True, help="Segment a series that does not say it is FLAIR.")
@click.option("--allow-gap", is_flag=True, help="Accept a DICOM series with missing slices.")
@verbosity
def follow(
    baseline: Path,
    followups: tuple[Path, ...],
    out: Path,
    dates: list[date] | None,
    days: list[int] | None,
    spacing: tuple[float, float, float] | None,
    same_patient: bool,
    bundle: str | None,
    device: str,
    backend: str,
    force: bool,
    allow_gap: bool,
    quiet: bool,
) -> None:
    """Compare one patient's visits: volumes, change and change per month, and what of it may be error.

    Each visit is a scan, or the folder that `brainseg segment` wrote for it. Scans are segmented and shown side by
    side. DICOM says when it was scanned; else --dates or --days do. Dates are used for intervals and written nowhere.
    """
    from brainseg.cli.progress import progress
    from brainseg.cohort import locked
    from brainseg.follow import follow as followed
    from brainseg.job import Options
    from brainseg.writers.follow import lines, write_follow

    options = Options(
        bundle=bundle, spacing_mm=spacing, device=device, backend=backend, force=force, allow_gap=allow_gap
    )
    inputs = [baseline, *followups]
    click.get_current_context().with_resource(locked(out))
    with progress("measure", len(inputs), quiet=quiet) as advance:
        result = followed(inputs, out, options, dates=dates, days=days, same_patient=same_patient, advance=advance)
    write_follow(out, result)
    if not quiet:
        for line in lines(result):
            click.echo(line)
        click.echo(f"{out / 'follow.html'}")
