"""brainseg from Python, files in and mask files out and nothing else: read_case, segment, write_mask."""

from __future__ import annotations

from importlib import import_module

from common import read_job, timed
from ours import choice, made_ready

from brainseg import open_bundle, read_case, segment
from brainseg.writers.nifti import write_mask

WHEN_NEEDED = ("brainseg.inference", "brainseg.readers.tiff", "nibabel", "scipy.ndimage", "skimage.measure")


def main() -> None:
    job = read_job()
    for module in WHEN_NEEDED:
        import_module(module)
    chosen = choice(job)
    bundle = made_ready(open_bundle(chosen.pop("bundle"), **chosen))
    with timed() as clock:
        for patient in job.patients:
            with clock.patient(patient.name):
                case = read_case(patient)
                result = segment(case, bundle)
                folder = job.out / patient.name
                folder.mkdir(parents=True)
                write_mask(folder / "mask.nii.gz", result.mask, result.affine, in_mm=case.spacing_mm is not None)


if __name__ == "__main__":
    main()
