"""`brainseg segment` as it is: masks, tables, overlays, report; with the network opened beforehand."""

from __future__ import annotations

from importlib import import_module

from common import read_job, timed
from ours import choice, made_ready

from brainseg import cohort
from brainseg.cli.progress import progress
from brainseg.job import Options, bundles_of

WHEN_NEEDED = (  # what the command imports when it first needs it
    "brainseg.quality",
    "brainseg.readers.tiff",
    "brainseg.writers.formats",
    "brainseg.writers.overlay",
    "brainseg.writers.report",
    "brainseg.writers.slices",
    "matplotlib.figure",
    "scipy.ndimage",
    "skimage.measure",
)


def main() -> None:
    job = read_job()
    for module in WHEN_NEEDED:
        import_module(module)
    options = Options(**choice(job))
    opened = [made_ready(bundle) for bundle in bundles_of(options)]
    cohort.bundles_of = lambda _: opened  # loading the network is not timed, here as in the others
    with timed():
        outcome = cohort.run_cohort([job.data], job.out, options, lambda total: progress("segment", total, quiet=True))
    raise SystemExit(outcome.exit_code)


if __name__ == "__main__":
    main()
