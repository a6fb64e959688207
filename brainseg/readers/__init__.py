"""Any input to a Case, and the only switch on format: `read_case` for a path, `read_patient` for what a search found.

volume.py        what a reader of volumes gives
tiff.py          TIFF slices, three channels or one
pictures.py      PNG, JPEG and MATLAB slices
nifti.py         NIfTI-1 and NIfTI-2
dicom.py         a DICOM series; stack.py is the grid of its slices
codestream.py    the size that compressed pixels declare
dicom_seg.py     a DICOM SEG of the tumour, as ground truth
itk_formats.py   MetaImage and NRRD
grid.py          the T1 on the grid of the FLAIR
checks.py        what all of them refuse
archive.py       a zip as a folder

The libraries behind the formats are imported when a file of that format is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainseg.case import CHANNELS, FLAIR, HEAD_PIXELS, SLICES, TIFF_AFFINE, Case, Spacing
from brainseg.errors import InputError, MachineError, UsageError

if TYPE_CHECKING:
    from brainseg.readers.grid import Grid
    from brainseg.readers.tiff import TiffStack
    from brainseg.readers.volume import Volume
    from brainseg.study import Patient, Series

__all__ = ["read_case", "read_ground_truth", "read_patient"]

PRE, POST = CHANNELS.index("pre-contrast"), CHANNELS.index("post-contrast")
SAME_GRID_MM = 1e-3
LEAST_COVERAGE = 0.5  # of the head; less is another region or another patient
FULL_COVERAGE = 0.95  # less is said


def read_case(
    path: Path | str,
    *,
    pre: Path | str | None = None,
    post: Path | str | None = None,
    spacing_mm: Spacing | None = None,
    series: str | None = None,
    force: bool = False,
    allow_gap: bool = False,
) -> Case:
    """The case of the one patient under `path`: a folder, a volume, or a zip (whose files are gone afterwards).

    Args:
        path: what holds the FLAIR.
        pre, post: a volume, or a folder with one series, to use for pre- and post-contrast whatever lies beside the
            FLAIR.
        spacing_mm: voxel size along X, Y, Z of a format that has none (TIFF, PNG, JPEG, MATLAB).
        series: SeriesInstanceUID of the DICOM series to take for the FLAIR.
        force: read a DICOM series that does not say that it is a FLAIR.
        allow_gap: interpolate slices that are missing inside a DICOM series.

    Raises:
        UsageError: if `path` does not exist or holds several patients, or the arguments contradict the files.
        InputError: if something cannot be read, or would be read ambiguously.
        MachineError: if something may not be read.
    """
    from brainseg.readers.archive import opened
    from brainseg.study import find_patients

    path = Path(path)
    with opened(path) as folder:
        patients = find_patients(folder, series=series, name=path.stem if folder != path else None)
        if len(patients) > 1:
            names = ", ".join(patient.name for patient in patients[:5]) + (", ..." if len(patients) > 5 else "")
            raise UsageError(path, f"holds {len(patients)} patients ({names})", "give the path of one of them")
        return read_patient(
            patients[0],
            pre=None if pre is None else Path(pre),
            post=None if post is None else Path(post),
            spacing_mm=spacing_mm,
            force=force,
            allow_gap=allow_gap,
        )


def read_patient(
    patient: Patient,
    *,
    pre: Path | None = None,
    post: Path | None = None,
    spacing_mm: Spacing | None = None,
    force: bool = False,
    allow_gap: bool = False,
) -> Case:
    """The case of a patient, on the grid of its FLAIR; arguments as for `read_case`.

    A T1 on another grid is resampled onto the FLAIR's. One that was found beside the FLAIR and cannot be read, or does
    not cover the head, is left out with a note; one that was asked for is refused.

    Raises:
        UsageError: if the arguments contradict the files.
        InputError: if something cannot be read, or would be read ambiguously, or the patient has a `problem`.
        MachineError: if something may not be read.
    """
    if patient.problem is not None:
        raise patient.problem
    if spacing_mm is not None and not (len(spacing_mm) == 3 and all(0 < mm < float("inf") for mm in spacing_mm)):
        raise UsageError("--spacing", f"is {spacing_mm}", "give three positive numbers, in mm")
    if patient.flair.layout in SLICES:
        return _slices_case(patient, {PRE: pre, POST: post}, spacing_mm)
    flair = _read_series(patient.flair, force=force, allow_gap=allow_gap)
    _refuse_other_spacing(patient.path, flair, spacing_mm)
    image = np.repeat(flair.array[None], len(CHANNELS), axis=0)
    flair = replace(flair, array=image[FLAIR])  # so that it is in memory once
    notes = list(flair.notes)
    missing = []
    for channel, given, found in ((PRE, pre, patient.pre), (POST, post, patient.post)):
        array, said = _channel(flair, CHANNELS[channel], given, found, allow_gap=allow_gap)
        notes += [f"{CHANNELS[channel]}: {note}" for note in said]
        if array is None:
            missing.append(CHANNELS[channel])
        else:
            image[channel] = array
    return Case(
        name=patient.name,
        image=image,
        affine=flair.affine,
        spacing_mm=flair.spacing_mm,
        layout=patient.flair.layout,
        files=flair.files,
        missing=tuple(missing),
        notes=tuple(notes),
    )


def read_ground_truth(patient: Patient) -> NDArray[np.uint8] | None:
    """The mask that lies beside a patient's FLAIR, uint8 0/1 (X, Y, Z) on its grid; None where there is none.

    A DICOM SEG in the FLAIR's frame of reference may lie on another grid: it is brought over by nearest neighbour.

    Raises:
        InputError: if it cannot be read, or is not on the grid of the FLAIR (within 0.001 mm).
        MachineError: if it may not be read.
    """
    if not patient.masks:
        return None
    if patient.problem is not None:
        raise patient.problem
    if patient.flair.layout in SLICES:
        mask = _read_slice_masks(patient.masks)
        shape = _slices_shape(patient.flair)
        if mask.shape != shape:
            cause = f"masks are {_sizes(mask.shape)} and images {_sizes(shape)}"
            raise InputError(patient.path, cause, "give one mask an image, of its size")
        return mask
    if patient.flair.layout == "dicom":
        from brainseg.readers.dicom_seg import read_dicom_seg

        return read_dicom_seg(patient.masks[0], _grid(patient.flair))
    from brainseg.readers.grid import same_grid

    read, grid = _mask_reader(patient.masks[0])
    mask_grid, flair_grid = grid(patient.masks[0]), _grid(patient.flair)
    if not same_grid(mask_grid, flair_grid, SAME_GRID_MM):
        cause = "is not on the grid of the FLAIR"
        if mask_grid.shape != flair_grid.shape:
            cause = f"{cause} ({_sizes(mask_grid.shape)} voxels, not {_sizes(flair_grid.shape)})"
        raise InputError(patient.masks[0], cause, "resample it onto the FLAIR with nearest neighbour")
    return read(patient.masks[0])


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _read_series(series: Series, *, force: bool, allow_gap: bool) -> Volume:
    """The volume of a series that is not slices."""
    if series.layout == "dicom":
        from brainseg.readers.dicom import read_dicom

        return read_dicom(series, force=force, allow_gap=allow_gap)
    if series.layout == "nifti":
        from brainseg.readers.nifti import read_nifti

        return read_nifti(series.files[0])
    if series.layout == "itk":
        from brainseg.readers.itk_formats import read_itk

        return read_itk(series.files[0])
    raise ValueError(f"expected a volume or a DICOM series, got the layout {series.layout!r}")


def _grid(series: Series) -> Grid:
    """Where the voxels of a series that is not slices lie."""
    if series.layout == "dicom":
        from brainseg.readers.grid import Grid

        volume = _read_series(series, force=True, allow_gap=True)
        x, y, z = volume.array.shape
        return Grid((x, y, z), volume.affine)
    return _mask_reader(series.files[0])[1](series.files[0])


def _mask_reader(file: Path) -> tuple[Callable[[Path], NDArray[np.uint8]], Callable[[Path], Grid]]:
    """What reads a mask, and what reads its grid, by the file's suffix."""
    if file.name.lower().endswith((".nii", ".nii.gz")):
        from brainseg.readers.nifti import nifti_grid, read_nifti_mask

        return read_nifti_mask, nifti_grid
    from brainseg.readers.itk_formats import itk_grid, read_itk_mask

    return read_itk_mask, itk_grid


def _refuse_other_spacing(path: Path, flair: Volume, spacing_mm: Spacing | None) -> None:
    own = flair.spacing_mm
    if spacing_mm is None or own is None or np.allclose(own, spacing_mm, rtol=0.01, atol=0):
        return
    says = " x ".join(f"{mm:.4g}" for mm in own)
    raise UsageError(path, f"has a spacing of its own, {says} mm", "leave --spacing out")


def _channel(
    flair: Volume, name: str, given: Path | None, found: Series | None, *, allow_gap: bool
) -> tuple[NDArray[np.float32] | None, list[str]]:
    """One T1 on the grid of the FLAIR, None where there is none, and what there is to say of it."""
    if given is not None:
        volume = _read_given(given, allow_gap=allow_gap)
        apart = ["has another frame of reference than the FLAIR, so it may lie elsewhere"] * _apart(flair, volume)
        array, coverage = _onto(flair, volume)
        if coverage < LEAST_COVERAGE:
            cause = f"covers {coverage:.0%} of the head in the FLAIR"
            raise InputError(given, cause, f"give a {name} scan of the same patient and session")
    elif found is not None:
        try:
            volume = _read_series(found, force=True, allow_gap=allow_gap)
        except (InputError, MachineError) as error:
            return None, [f"found but not used, it {error.cause}"]
        apart = []
        if _apart(flair, volume):
            return None, ["found but not used, it has another frame of reference than the FLAIR"]
        array, coverage = _onto(flair, volume)
        if coverage < LEAST_COVERAGE:
            return None, [f"found but not used, it covers {coverage:.0%} of the head in the FLAIR"]
    else:
        return None, []
    notes = [*volume.notes, *apart]
    if coverage < FULL_COVERAGE:
        notes.append(f"covers {coverage:.0%} of the head in the FLAIR; 0 elsewhere")
    return array, notes


def _apart(flair: Volume, volume: Volume) -> bool:
    """Whether the headers say that positions in the two have nothing to do with each other."""
    return bool(flair.frame and volume.frame) and flair.frame != volume.frame


def _onto(flair: Volume, volume: Volume) -> tuple[NDArray[np.float32], float]:
    """`volume` on the grid of the FLAIR, and the part of the head (what is brighter than the mean) that it covers."""
    from brainseg.readers.grid import Grid, resample_onto, same_grid

    shape = (flair.array.shape[0], flair.array.shape[1], flair.array.shape[2])
    if volume.array.shape == shape and same_grid(Grid(shape, volume.affine), Grid(shape, flair.affine), SAME_GRID_MM):
        return volume.array, 1.0
    moved = resample_onto(volume, flair.affine, shape)
    return moved.array, float(moved.inside[flair.array > flair.array.mean()].mean())


def _given_patient(folder: Path, path: Path) -> Patient:
    """The one series under a path that was given for a T1."""
    from brainseg.study import find_patients
    from brainseg.study.walk import walk

    held = list(walk(folder)) if folder.is_dir() else []
    volumes = [one.path / name for one in held for name in one.volumes]
    if len(volumes) == sum(map(len, held)) == 1:
        folder = volumes[0]  # the only file, whatever its name says
    try:
        patients = find_patients(folder)
    except InputError as error:
        raise InputError(path, error.cause, "give a volume, or a folder that holds one series and no other") from None
    if len(patients) > 1:
        raise UsageError(path, f"holds {len(patients)} patients", "give the path of one series")
    if patients[0].certain:
        raise UsageError(path, f"would be read as a FLAIR ({patients[0].why})", "give the folder of the T1 series")
    return patients[0]


def _read_given(path: Path, *, allow_gap: bool) -> Volume:
    """The volume that was given for a T1."""
    from brainseg.readers.archive import opened

    with opened(path) as folder:
        series = _given_patient(folder, path).flair
        if series.layout in SLICES:
            cause = f"is {SLICES[series.layout]}, which has no position to lay over the FLAIR's"
            raise UsageError(path, cause, "give a volume or DICOM")
        return _read_series(series, force=True, allow_gap=allow_gap)


def _read_given_slices(path: Path, kind: str, shape: tuple[int, ...]) -> TiffStack:
    """The slices that were given for a T1 of a FLAIR that is `kind` slices of `shape`."""
    from brainseg.readers.archive import opened

    with opened(path) as folder:
        series = _given_patient(folder, path).flair
        if series.layout not in SLICES:
            cause = f"cannot be laid over {kind} slices, which have no position"
            raise UsageError(path, cause, f"give {kind} slices of the same size, or the FLAIR as a volume")
        stack = _read_slices(series)
    if stack.channels.shape != (1, *shape):
        got = f"{stack.channels.shape[0]} channels of {_sizes(stack.channels.shape[1:])}"
        raise UsageError(path, f"has {got}", f"give grayscale slices of the FLAIR's size, {_sizes(shape)}")
    return stack


def _read_slices(series: Series) -> TiffStack:
    """The stack of a series of slices."""
    if series.layout == "tiff":
        from brainseg.readers.tiff import read_tiff

        return read_tiff(series)
    from brainseg.readers.pictures import read_pictures

    return read_pictures(series)


def _read_slice_masks(files: Sequence[Path]) -> NDArray[np.uint8]:
    """The masks of slices, which need not be in the format of the slices."""
    if files[0].name.lower().endswith((".tif", ".tiff")):
        from brainseg.readers.tiff import read_tiff_masks

        return read_tiff_masks(files)
    from brainseg.readers.pictures import read_picture_masks

    return read_picture_masks(files)


def _slices_shape(series: Series) -> tuple[int, int, int]:
    """The grid of a series of slices."""
    if series.layout == "tiff":
        from brainseg.readers.tiff import tiff_shape

        return tiff_shape(series.files)
    from brainseg.readers.pictures import picture_shape

    return picture_shape(series.files)


def _slices_case(patient: Patient, given: dict[int, Path | None], spacing_mm: Spacing | None) -> Case:
    """The case of a patient who is slices: all three channels, or the FLAIR alone."""
    from brainseg.readers.tiff import missing_channels

    stack = _read_slices(patient.flair)
    image = stack.channels if len(stack.channels) == 3 else np.repeat(stack.channels, len(CHANNELS), axis=0)
    missing = list(missing_channels(image))
    notes = list(stack.notes)
    for channel, path in given.items():
        if path is not None:
            other = _read_given_slices(path, SLICES[patient.flair.layout], image.shape[1:])
            image[channel] = other.channels[0]
            notes += [f"{CHANNELS[channel]}: {note}" for note in other.notes]
            missing = [name for name in missing if name != CHANNELS[channel]]
    for name in missing:
        channel = CHANNELS.index(name)
        if not image[channel].any():
            notes.append(f"{name} is blank; FLAIR used in its place")
        image[channel] = image[FLAIR]
    finer = 1.0
    if spacing_mm is None and (patient.alone or patient.flair.layout != "tiff"):
        finer = max(image.shape[1:3]) / HEAD_PIXELS
        if finer != 1:
            notes.append(
                f"no spacing: its {max(image.shape[1:3])} pixels are taken to span a head, as {HEAD_PIXELS} do in the "
                "slices that the networks learned from"
            )
    spacing = None if spacing_mm is None else (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    return Case(
        name=patient.name,
        image=image,
        affine=TIFF_AFFINE @ np.diag([*(spacing or (1.0, 1.0, 1.0)), 1.0]),
        spacing_mm=spacing,
        layout=patient.flair.layout,
        files=stack.files,
        missing=tuple(missing),
        notes=tuple(notes),
        finer=finer,
        apart=patient.flair.layout == "matlab",
    )
