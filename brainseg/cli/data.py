"""`brainseg data`: look at a data set, split it by patient, make a synthetic patient, fetch a public collection."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from brainseg.cli.options import any_path, existing_path, given, out_option, verbosity, warn_of_slices_alone


@click.group()
def data() -> None:
    """Look at a data set, split it by patient, make a synthetic patient, fetch a public collection."""


@data.command()
@click.argument("path", type=existing_path)
@verbosity
@click.pass_context
def check(context: click.Context, path: Path, quiet: bool) -> None:
    """Read every patient under PATH and say what it is, or why it cannot be read."""
    from brainseg.errors import BrainsegError
    from brainseg.guarded import GuardedReader
    from brainseg.readers.archive import opened
    from brainseg.study import find_patients

    failed = 0
    with GuardedReader() as reader, opened(path) as folder:
        name = path.stem if folder != path else None
        patients = find_patients(folder, name=name, matlab_header=reader.matlab_header)
        for patient in patients:
            try:
                case = reader.read_patient(patient, force=True)
                truth = reader.read_ground_truth(patient)
            except BrainsegError as error:
                failed += 1
                click.echo(f"error: {error}", err=True)
                continue
            if quiet:
                continue
            spacing = " x ".join(f"{mm:.4g}" for mm in case.spacing_mm) + " mm" if case.spacing_mm else "no spacing"
            words = [
                f"{case.layout}, {' x '.join(map(str, case.shape))}, {spacing}",
                f"no {' or '.join(case.missing)}" if case.missing else "all three sequences",
                "no mask" if truth is None else f"mask of {int(truth.sum())} voxels",
                *case.notes,
            ]
            click.echo(f"{case.name}: {'; '.join(words)}")
            if patient.why:
                click.echo(f"    {patient.why}")
    warn_of_slices_alone(patients)
    if not quiet:
        click.echo(f"{len(patients) - failed} of {len(patients)} patients can be read")
    if failed:
        context.exit(3 if failed == len(patients) else 4)


@data.command()
@click.argument("path", type=existing_path)
@click.option(
    "--by",
    type=click.Choice(["patient", "slice"]),
    default="patient",
    show_default=True,
    help="What is divided. By slice the figures are inflated: only to compare with published ones of that kind.",
)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2), help="Number of folds, by patient.")
@click.option("--seed", default=0, show_default=True, help="Another number gives another split.")
@click.option("--out", type=any_path, required=True, help="File (JSON) to write, for --folds; by slice for --split.")
@verbosity
def split(path: Path, by: str, folds: int, seed: int, out: Path, quiet: bool) -> None:
    """Divide the patients under PATH into folds balanced by tumour size, or their slices 90/5/5 at random."""
    if by == "slice":
        if given("folds"):
            raise click.UsageError("--folds is for a split by patient; leave it out with --by slice")
        said = _split_slices(path, seed, out)
    else:
        said = _split_patients(path, folds, seed, out)
    if not quiet:
        click.echo(f"{out}: {said}")


def _split_patients(path: Path, folds: int, seed: int, out: Path) -> str:
    from brainseg.datalist import split_by_subject, write_folds
    from brainseg.readers import read_ground_truth
    from brainseg.study import find_patients
    from brainseg.study.subjects import subjects_of

    patients = find_patients(path)
    warn_of_slices_alone(patients)
    sizes = {}
    for patient in patients:
        truth = read_ground_truth(patient)
        if truth is not None:
            sizes[patient.name] = float(truth.sum())
    subjects = subjects_of([patient for patient in patients if patient.name in sizes])
    parts = split_by_subject(subjects, folds=folds, seed=seed, strata=sizes)
    write_folds(out, parts)
    people = len(set(subjects.values()))
    what = f"{people} patients" if people == len(sizes) else f"{len(sizes)} scans of {people} patients"
    return f"{what} with masks in {folds} folds of {min(map(len, parts))} or more"


def _split_slices(path: Path, seed: int, out: Path) -> str:
    from brainseg.slice_split import INFLATED, slice_names, split_by_slice, write_split
    from brainseg.study import find_patients

    names = [name for patient in find_patients(path) if patient.masks for name in slice_names(patient)]
    parts = split_by_slice(names, seed=seed)
    write_split(out, parts, seed=seed)
    click.echo(f"warning: {INFLATED}; judge a network by patient", err=True)
    return f"{len(parts.training)} training, {len(parts.validation)} validation and {len(parts.test)} test slices"


@data.command()
@out_option
@click.option(
    "--format",
    "formats",
    default="tiff,nifti,dicom",
    show_default=True,
    help="Which of tiff, nifti and dicom to write, with commas.",
)
@click.option("--seed", default=0, show_default=True, help="Another number gives another patient.")
@verbosity
def phantom(out: Path, formats: str, seed: int, quiet: bool) -> None:
    """Write a synthetic patient whose lesions' volume is known."""
    from brainseg import phantom as phantoms
    from brainseg.units import millilitres

    writers = {
        "tiff": phantoms.write_phantom_tiff,
        "nifti": phantoms.write_phantom_nifti,
        "dicom": phantoms.write_phantom_dicom,
    }
    chosen = [word.strip() for word in formats.split(",")]
    unknown = [word for word in chosen if word not in writers]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(writers)}", param_hint="--format")
    made = phantoms.make_phantom(seed=seed)
    for word in chosen:
        writers[word](made, out / word)
        if not quiet:
            click.echo(f"{out / word}")
    if not quiet:
        click.echo(f"true volume {millilitres(made.volume_ml)} mL in {len(made.lesions)} lesions")


@data.command()
@click.argument("collection")
@out_option
@click.option("--patient", "patients", multiple=True, metavar="ID", help="Only this PatientID; may be given again.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="No more than the first N patients.")
@click.option("--with-seg", is_flag=True, help="Their published DICOM SEGs too, as ground truth for `evaluate`.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched; needs no network.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before the download.")
@verbosity
@click.pass_context
def fetch(
    context: click.Context,
    collection: str,
    out: Path,
    patients: tuple[str, ...],
    limit: int | None,
    with_seg: bool,
    dry_run: bool,
    yes: bool,
    quiet: bool,
) -> None:
    """Fetch the FLAIR, and the T1 that goes with it, of a public TCIA COLLECTION (say, upenn_gbm) from IDC.

    Says first what it is, how large, and under which licence, and asks. What is there already is not fetched again.
    """
    from brainseg.cli.progress import progress
    from brainseg.tcia.download import download
    from brainseg.tcia.index import read_index, read_sources
    from brainseg.tcia.plan import plan_of, summary, write_terms

    name, series = read_index(collection)
    plan = plan_of(name, series, patients=patients, limit=limit, with_seg=with_seg)
    sources = read_sources(name, {one.listed.doi for one in plan.series})
    click.echo(summary(plan, sources))
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked; give --yes to accept the licence and fetch")
        click.confirm(f"Fetch into {out} under this licence?", abort=True)
    write_terms(out, plan, sources)
    with progress("fetch", len(plan.series), quiet=quiet) as advance:
        fetched = download(plan.series, out, advance)
    for failure in fetched.failures:
        click.echo(f"error: {failure}", err=True)
    if fetched.failures:
        context.exit(4 if fetched.complete else 3)
    click.echo(f"{out}: {fetched.complete} series; brainseg data check {out}")
