"""Patients to patient-level folds, and folds to the datalist (Decathlon JSON) that the bundles read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.case import SLICES
from brainseg.errors import InputError, UsageError
from brainseg.study import Patient
from brainseg.writers.tables import write_json


def split_by_patient(
    names: Sequence[str], *, folds: int = 5, seed: int = 0, strata: Mapping[str, float] | None = None
) -> list[list[str]]:
    """`names` in `folds` parts of nearly equal size; the same for the same names, whatever their order.

    Args:
        names: one a patient, all different.
        folds: at least 2, at most the number of patients.
        seed: another number gives another split.
        strata: a number for each name (tumour volume); every fold gets its share of small and of large ones.

    Raises:
        UsageError: fewer patients than folds.
        InputError: a name that is there twice.
    """
    _refuse_twice("patients", names)
    if not 2 <= folds <= len(names):
        raise UsageError("--folds", f"{len(names)} patients cannot make {folds} folds", "give fewer folds")
    random = np.random.RandomState(seed)  # its stream is frozen: the split outlives versions of numpy
    shuffled = [sorted(names)[i] for i in random.permutation(len(names))]
    if strata is not None:
        shuffled.sort(key=lambda name: strata[name])
    parts: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(shuffled), folds):
        group = shuffled[start : start + folds]
        sizes = [len(part) for part in parts]
        order = sorted(random.permutation(folds), key=lambda k: sizes[k])
        for k, name in zip(order, group, strict=False):
            parts[k].append(name)
    return [sorted(part) for part in parts]


def split_by_subject(
    subjects: Mapping[str, str], *, folds: int = 5, seed: int = 0, strata: Mapping[str, float] | None = None
) -> list[list[str]]:
    """The same where some scans are of one person, who is in one fold with all of them.

    Args:
        subjects: scan -> person, as `study.subjects.subjects_of` has it.
        folds, seed, strata: as above; `strata` has a number for each scan.
    """
    scans: dict[str, list[str]] = {}
    for name, subject in subjects.items():
        scans.setdefault(subject, []).append(name)
    sizes = None if strata is None else {subject: sum(strata[one] for one in own) for subject, own in scans.items()}
    parts = split_by_patient(list(scans), folds=folds, seed=seed, strata=sizes)
    return [sorted(name for subject in part for name in scans[subject]) for part in parts]


def read_folds(path: Path) -> list[list[str]]:
    """The folds of a fold file: `{"folds": [[name, ...], ...]}`, every name once.

    Raises:
        InputError: a file of another form, or a name in two folds.
    """
    form = 'expected {"folds": [[name, ...], ...]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        folds = content["folds"]
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(path, f"is not a fold file; {form}", "make one with `brainseg data split`") from None
    if not isinstance(folds, list) or not all(isinstance(fold, list) and all(map(_is_name, fold)) for fold in folds):
        raise InputError(path, f"is not a fold file; {form}", "make one with `brainseg data split`")
    if len(folds) < 2 or not all(folds):
        raise InputError(path, f"{sum(map(bool, folds))} folds with patients in them", "list two or more, none empty")
    _refuse_twice(path, [name for fold in folds for name in fold])
    return folds


def write_folds(path: Path, folds: Sequence[Sequence[str]]) -> None:
    """Writes a fold file that `read_folds` reads."""
    about = f"{len(folds)} patient-level folds; fold k validates on folds[k]"
    write_json(path, {"about": about, "folds": [list(fold) for fold in folds]})


def refuse_lone_fold(folds: Path | None, fold: int | None) -> None:
    """Refuses a fold file without a fold, or a fold without its file.

    Raises:
        UsageError: only one of the two is given.
    """
    if (folds is None) != (fold is None):
        raise UsageError("--folds, --fold", "one without the other says nothing", "give both, or none")


def names_in_fold(folds: Sequence[Sequence[str]], fold: int) -> set[str]:
    """The names of one fold.

    Raises:
        UsageError: no such fold.
    """
    if not 0 <= fold < len(folds):
        raise UsageError("--fold", f"there is no fold {fold}", f"give 0 to {len(folds) - 1}")
    return set(folds[fold])


def in_fold(patients: Sequence[Patient], folds: Sequence[Sequence[str]], fold: int) -> list[Patient]:
    """The patients of one fold, in their own order.

    Raises:
        UsageError: no such fold, or none of its patients is there.
    """
    names = names_in_fold(folds, fold)
    chosen = [patient for patient in patients if patient.name in names]
    if not chosen:
        raise UsageError("--fold", f"no patient of fold {fold} is there", "check --folds against the folder names")
    return chosen


def monai_datalist(patients: Sequence[Patient], folds: Sequence[Sequence[str]], *, base: Path) -> dict[str, Any]:
    """A datalist with an item a patient that has a mask and a fold: image, label, fold, case.

    For slices `image` is the list of them and `label` that of their masks; for a volume `image` is pre-contrast, FLAIR
    and post-contrast, with FLAIR in place of what is missing. Paths are relative to `base`.

    Raises:
        InputError: a patient of a fold that cannot be read, formats that the bundles cannot load, or no patient at all.
    """
    fold_of = {name: k for k, fold in enumerate(folds) for name in fold}
    chosen = [one for one in patients if one.name in fold_of and (one.masks or one.problem)]
    if len({one.flair.layout for one in chosen}) > 1:
        raise InputError(base, "holds patients in several formats, and a bundle reads one", "give a folder for each")
    items = []
    for patient in chosen:
        if patient.problem is not None:
            raise patient.problem
        if patient.flair.layout not in (*SLICES, "nifti"):
            raise InputError(patient.path, f"{patient.flair.layout} cannot be trained on", "convert it to NIfTI")
        if patient.flair.layout in SLICES:
            images, labels = list(patient.flair.files), list(patient.masks)
        else:
            series = (patient.pre or patient.flair, patient.flair, patient.post or patient.flair)
            images, labels = [one.files[0] for one in series], list(patient.masks[:1])
        label = [_relative(path, base) for path in labels]
        items.append(
            {
                "image": [_relative(path, base) for path in images],
                "label": label if patient.flair.layout in SLICES else label[0],
                "fold": fold_of[patient.name],
                "case": patient.name,
            }
        )
    if not items:
        raise InputError(base, "no patient has both a mask and a fold", "check the masks and the fold file")
    return {"name": "brainseg", "tensorImageSize": "3D", "training": items}


def write_datalist(path: Path, datalist: Mapping[str, Any]) -> None:
    """Writes a datalist as JSON."""
    write_json(path, datalist)


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _refuse_twice(where: str | Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(where, f"{twice[0]} is listed more than once", "list every patient in one fold")


def _relative(path: Path, base: Path) -> str:
    """`path` as MONAI joins it to `base`: relative where it lies below it, else absolute."""
    absolute, root = Path(os.path.abspath(path)), Path(os.path.abspath(base))  # noqa: PTH100 - links stay links
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)
