"""find_patients: the patients under any path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from brainseg.errors import InputError, UsageError
from brainseg.study import dicom, matlab, slices, tiff, volumes
from brainseg.study.names import Found, named, safe_name
from brainseg.study.patient import Patient, Series
from brainseg.study.walk import ITK, MATLAB, NIFTI, PICTURES, TIFF, Folder, is_dicomdir, walk

EXPECTED = (
    "give a folder of TIFF slices, a folder images/ of numbered PNG or JPEG slices, a NIfTI, MHA or NRRD volume, or a "
    "DICOM folder or zip"
)


def find_patients(
    path: Path,
    *,
    series: str | None = None,
    name: str | None = None,
    matlab_header: matlab.ReadHeader = matlab.read_header,
) -> list[Patient]:
    """The patients under `path`, a folder or a file, in natural order of their names.

    Files are told apart by suffix (TIFF, PNG, JPEG, MATLAB, NIfTI, MHA, NRRD) or by the DICOM prefix; only headers are
    opened, of DICOM and MATLAB, and of one TIFF where its folder does not say whether its slices stand alone. Where
    several patients are found, one that cannot be read carries its `problem` and the rest are unharmed; where there is
    only one, its problem is raised. A zip is opened first, with `brainseg.readers.archive.opened`.

    Args:
        path: what the user gave.
        series: SeriesInstanceUID of the DICOM series to take for the FLAIR; only its patient is then found.
        name: name of the patient if there is exactly one (the stem of the zip that it came in).
        matlab_header: reads a MATLAB file's header, which HDF5 decodes in C; all others are read in Python.

    Raises:
        UsageError: if `path` does not exist, or no DICOM series under it has the UID `series`.
        InputError: if there is nothing to read, or the only patient there is has a problem.
        MachineError: if `path` may not be read.
    """
    path = Path(path)
    if path.name in ("", ".", ".."):
        path = path.resolve()
    if not path.exists():
        raise UsageError(path, "does not exist", "check the path")
    if not (path.is_dir() or path.is_file()):
        raise InputError(path, "is a pipe or a device, not a file", "save what it gives, and give that")
    if is_dicomdir(path):
        path = path.parent
    patients = (_in_folder if path.is_dir() else _in_file)(path, series, matlab_header)
    if len(patients) == 1:
        if patients[0].problem is not None:
            raise patients[0].problem
        if name is not None:
            return [replace(patients[0], name=safe_name(name))]
    return patients


def _in_file(path: Path, series: str | None, matlab_header: matlab.ReadHeader) -> list[Patient]:
    lower = path.name.lower()
    if lower.endswith(".zip"):
        raise UsageError(path, "is a zip, which has to be opened first", "unpack it and give the folder")
    if series is None and lower.endswith(TIFF):
        return named(tiff.find_one(path))
    if series is None and lower.endswith(PICTURES):
        return named(slices.find_one(path))
    if series is None and lower.endswith(MATLAB):
        return named(matlab.find_one(path, matlab_header))
    if series is None and lower.endswith(NIFTI + ITK):
        return named(volumes.find_one(path))
    found = dicom.find_one(path, series)
    if not found and series is not None:
        raise UsageError(path, f"is not of series {series}", "check the UID given with --series")
    if not found:
        _refuse_pair([path])
        raise InputError(path, "is not an image that can be read", EXPECTED)
    return named(found)


def _in_folder(path: Path, series: str | None, matlab_header: matlab.ReadHeader) -> list[Patient]:
    folders = list(walk(path))
    found = dicom.find(path, folders, series)
    if series is not None:
        if not found:
            raise UsageError(path, f"holds no image series {series}", "check the UID given with --series")
        return named(found)
    alone, taken = slices.find(path, folders)
    found += alone + matlab.find(path, folders, matlab_header)
    found += [_unreadable(one) for one in folders if one.unreadable]
    found += tiff.find(path, [one for one in folders if one.path not in taken]) + volumes.find(path, folders)
    if not found:
        _refuse_pair([folder.path / name for folder in folders for name in folder.others])
        count = sum(map(len, folders))
        holds = f"holds {count} file{'s' * (count != 1)}, none of which can be read" if count else "holds no files"
        raise InputError(path, holds, EXPECTED)
    return named(found)


def _unreadable(folder: Folder) -> Found:
    """A patient, probably: one folder that may not be read must not hide the others."""
    problem = InputError(folder.path, folder.unreadable, "check its permissions")
    return Found(Patient("", folder.path, Series("nifti", ()), problem=problem), folder.parts)


def _refuse_pair(files: Sequence[Path]) -> None:
    """Says what to do with NIfTI or Analyze in two files, where there is nothing else."""
    for file in files:
        if file.name.lower().endswith((".hdr", ".img")):
            raise InputError(file, "is half of a pair (.hdr, .img)", "convert it to a single .nii")
