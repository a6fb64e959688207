"""brainseg from Python, files in and mask files out and nothing else: read_case, segment_cases, write_mask.

With the word "alone" each patient is begun when the one before is done, so that its own time can be told.
"""

from __future__ import annotations

import sys
from importlib import import_module

from common import read_job, timed
from ours import choice, made_ready

from brainseg import open_bundle, read_case, segment, segment_cases
from brainseg.writers.nifti import write_mask

WHEN_NEEDED = ("brainseg.inference", "brainseg.readers.tiff", "nibabel", "scipy.ndimage", "skimage.measure")


def main() -> None:
    job = read_job()
    for module in WHEN_NEEDED:
        import_module(module)
    chosen = choice(job)
    bundle = made_ready(open_bundle(chosen.pop("bundle"), **chosen))
    with timed() as clock:
        cases = map(read_case, job.patients)
        results = (segment(case, bundle) for case in cases) if "alone" in sys.argv else segment_cases(cases, bundle)
        for patient in job.patients:
            with clock.patient(patient.name):
                result = next(results)
                folder = job.out / patient.name
                folder.mkdir(parents=True)
                write_mask(folder / "mask.nii.gz", result.mask, result.affine, in_mm=result.spacing_mm is not None)


if __name__ == "__main__":
    main()
