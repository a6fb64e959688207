"""A random split of slices, as much published work has it, kept to measure how far such a split flatters.

Neighbouring slices of one patient look alike, so a network is tested on what it has all but seen: see `leak`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainseg.bundle import RUN_FILE
from brainseg.case import SLICES
from brainseg.errors import InputError, UsageError
from brainseg.foreign import plain_json
from brainseg.study import Patient
from brainseg.writers.tables import write_json

HELD_OUT = 0.05  # of the slices, for validation and again for test
INFLATED = "slices of one patient lie on both sides of this split, so figures from it are inflated"
NO_SLICES = "is no stack of TIFF slices, PNG, JPEG or MATLAB, which alone are divided"
NO_PATIENT = (
    "these slices carry no patient, so a split by patient divides slices all the same: those of one patient, mostly "
    "neighbours by number, lie on both sides, and figures from it are inflated"
)
EACH_COUNTS = (
    "these slices carry no patient and each counts as one, so the intervals are too narrow, and the figures inflated "
    "where others of them trained the network"
)


@dataclass(frozen=True)
class SliceSplit:
    """Slices by their names (`slice_names`), each in one part and every part sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def slice_names(patient: Patient) -> list[str]:
    """The names of a patient's slices in order of Z: `<patient>/<file name>`, in the public set the path of the file.

    Raises:
        InputError: a patient whose scan is a volume, and so has no slices of its own to be divided.
    """
    if patient.problem is not None:
        raise patient.problem
    if patient.flair.layout not in SLICES:
        raise InputError(patient.path, NO_SLICES, "divide by patient")
    return [f"{patient.name}/{file.name}" for file in patient.flair.files]


def split_by_slice(names: Sequence[str], *, seed: int = 0) -> SliceSplit:
    """`names` shuffled into 90% training, 5% validation and 5% test; the same for the same names, whatever their order.

    Raises:
        UsageError: too few slices for three parts.
    """
    held_out = round(HELD_OUT * len(names))
    if not held_out:
        raise UsageError("--by slice", f"{len(names)} slices are too few to divide", "give more patients")
    random = np.random.RandomState(seed)  # its stream is frozen: the split outlives versions of numpy
    shuffled = [sorted(names)[i] for i in random.permutation(len(names))]
    validation, test, training = shuffled[:held_out], shuffled[held_out : 2 * held_out], shuffled[2 * held_out :]
    return SliceSplit(tuple(sorted(training)), tuple(sorted(validation)), tuple(sorted(test)))


def read_split(path: Path) -> SliceSplit:
    """The split of a file `{"training": [name, ...], "validation": [...], "test": [...]}`.

    Raises:
        InputError: a file of another form, a slice in two parts, or no slice to train on or to test on.
    """
    remedy = "make one with `brainseg data split --by slice`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [content[part] for part in ("training", "validation", "test")]
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(path, "is not a split of slices", remedy) from None
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts):
        raise InputError(path, "is not a split of slices", remedy)
    twice = [name for name, count in Counter(name for part in parts for name in part).items() if count > 1]
    if twice:
        raise InputError(path, f"{twice[0]} is listed more than once", "list every slice in one part")
    if not parts[0] or not parts[2]:
        raise InputError(path, "lists no slice to train on, or none to test on", remedy)
    return SliceSplit(*(tuple(part) for part in parts))


def write_split(path: Path, split: SliceSplit, *, seed: int) -> None:
    """Writes a split that `read_split` reads."""
    about = f"random 90/5/5 split of slices, seed {seed}; {INFLATED}"
    write_json(path, {"about": about, **asdict(split)})


def training_slices(datalist: Mapping[str, Any], split: SliceSplit) -> dict[str, Any]:
    """A datalist (`datalist.monai_datalist`) with the training slices of `split` only.

    Raises:
        InputError: patients that are volumes, or none of the slices is in the datalist.
    """
    known = set(split.training)
    items = []
    for item in datalist["training"]:
        if isinstance(item["label"], str):
            raise InputError(item["case"], NO_SLICES, "divide by patient")
        pairs = zip(item["image"], item["label"], strict=True)
        kept = [(image, label) for image, label in pairs if f"{item['case']}/{Path(image).name}" in known]
        if kept:
            items.append({**item, "image": [image for image, _ in kept], "label": [label for _, label in kept]})
    if not items:
        raise InputError("--split", "none of its training slices is there", "check it against the file names")
    return {**datalist, "training": items}


def trained_slices(root: Path) -> set[str]:
    """The names of the slices that a run at `root` of a split by slice trained on; empty for whatever else.

    Raises:
        UntrustedBundleError: its files are damaged.
    """
    run = plain_json(root / RUN_FILE) if (root / RUN_FILE).is_file() else {}
    if not run.get("by_slice"):
        return set()
    items = plain_json(root / "datalist.json").get("training") or ()
    trained = [item for item in items if item["fold"] != run.get("fold") and isinstance(item["image"], list)]
    return {f"{item['case']}/{Path(image).name}" for item in trained for image in item["image"]}
