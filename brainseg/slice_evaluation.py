"""Protocols A and B: the test slices of a split by slice, always beside the leak alarm and predicting nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.errors import InputError, UsageError
from brainseg.evaluation import (
    Advance,
    Subject,
    cautions_of_slices,
    cell,
    interval_cell,
    open_subject,
    refuse_unreadable,
)
from brainseg.leak import ALARM, NOTHING, copied_mask, nearest
from brainseg.members import finished_runs
from brainseg.protocols import BY_SLICE, PROTOCOLS
from brainseg.slice_scores import SliceSums, slice_figures, slice_sums
from brainseg.slice_split import INFLATED, SliceSplit, read_split, slice_names, split_by_slice, trained_slices
from brainseg.statistics import LEVEL, RESAMPLES, Figure
from brainseg.study import Patient, find_patients

SEED = 0  # of the split that is made where none is given


@dataclass(frozen=True)
class SliceEvaluation:
    """What protocol A or B found.

    Attributes:
        protocol: "A" or "B".
        split: where the split comes from, and how large its parts are.
        slices: scored (what was asked for, the alarm, nothing) -> the sums of each test slice, all in one order.
        figures: scored -> its figures.
        cautions: what a reader of the figures must know.
    """

    protocol: str
    split: str
    slices: dict[str, tuple[SliceSums, ...]]
    figures: dict[str, tuple[Figure, ...]]
    cautions: tuple[str, ...]


def evaluate_slices(
    data: Path,
    *,
    protocol: str,
    split: Path | None = None,
    bundle: str | Sequence[str] | None = None,
    predictions: Path | None = None,
    flair_alone: bool = False,
    tta: bool = False,
    device: str = "auto",
    backend: str = "auto",
    advance: Callable[[int], Advance] | None = None,
) -> SliceEvaluation:
    """Scores the test slices of a split by slice, those of the validation having chosen the weights.

    A bundle sees whole patients, as it always does; only the test slices count.

    Args:
        data: folder of patients, as TIFF slices.
        protocol: "A" or "B".
        split: file of `brainseg data split --by slice`; without it the split is made here, with seed 0.
        bundle, predictions, flair_alone, tta, device, backend, advance: as for `evaluation.evaluate`; with neither
            `bundle` nor `predictions` the alarm and predicting nothing are scored alone.

    Raises:
        UsageError: both of `bundle` and `predictions`, or too few slices to divide.
        InputError: patients without masks or that are not TIFF, or a split none of whose test slices is there.
    """
    if protocol not in BY_SLICE:
        raise UsageError("--protocol", f"{protocol} scores patients, not slices", "call evaluate")
    if bundle is not None and predictions is not None:
        raise UsageError("--bundle, --predictions", "both say what to score", "give one, or none for the leak alarm")
    patients = [patient for patient in find_patients(data) if patient.masks or patient.problem]
    refuse_unreadable(patients, data)
    names = {patient.name: slice_names(patient) for patient in patients}
    everything = [name for own in names.values() for name in own]
    parts = read_split(split) if split else split_by_slice(everything, seed=SEED)
    training, test = set(parts.training).intersection(everything), set(parts.test).intersection(everything)
    if not test:
        raise InputError(split or data, "none of the test slices is there", "check the split against the file names")
    cautions = [INFLATED, *cautions_of_slices(patients)]
    for part, here, listed in (("training", training, parts.training), ("test", test, parts.test)):
        if len(here) < len(listed):
            cautions.append(f"only {len(here)} of the {len(listed)} {part} slices are there")
    subject = None
    chosen: Sequence[Patient] = [patient for patient in patients if test.intersection(names[patient.name])]
    if bundle is not None or predictions is not None:
        subject = open_subject(
            chosen,
            data,
            bundle=bundle,
            predictions=predictions,
            flair_alone=flair_alone,
            tta=tta,
            device=device,
            backend=backend,
        )
        chosen = subject.patients
        cautions += subject.cautions
        cautions += _cautions_of_trained([bundle] if isinstance(bundle, str) else bundle or (), test)
    step = advance(len(chosen)) if advance else None
    slices: dict[str, list[SliceSums]] = {}
    for patient in chosen:
        beside = _beside(patient, patients, names, training) if patient.alone else None
        for scored, sums in _of_patient(patient, names[patient.name], training, test, subject, beside).items():
            slices.setdefault(scored, []).extend(sums)
        if step:
            step(f"{patient.name}: {len(test.intersection(names[patient.name]))} slices")
    return SliceEvaluation(
        protocol=protocol,
        split=_described(split, parts),
        slices={scored: tuple(sums) for scored, sums in slices.items()},
        figures={scored: tuple(slice_figures(sums, protocol)) for scored, sums in slices.items()},
        cautions=tuple(cautions),
    )


def _cautions_of_trained(bundles: Sequence[str], test: Set[str]) -> list[str]:
    """What must be said of runs that trained on other slices than those of this split."""
    found = []
    for root in (root for bundle in bundles for root in (Path(bundle), *finished_runs(Path(bundle)))):
        known = len(trained_slices(root).intersection(test))
        if known:
            found.append(f"{known} of the {len(test)} test slices trained {root.name}; give the --split of that run")
    return found


def _beside(
    patient: Patient, patients: Sequence[Patient], names: Mapping[str, Sequence[str]], training: Set[str]
) -> NDArray[Any] | None:
    """For a slice that stands alone the mask (X, Y) of the nearest training slice in order of name."""
    from brainseg.readers import read_ground_truth

    order = [one for one in patients if one.alone]
    index = next(i for i, one in enumerate(order) if one.name == patient.name)
    source = nearest(index, [i for i, one in enumerate(order) if not training.isdisjoint(names[one.name])])
    mask = None if source is None else read_ground_truth(order[source])
    return None if mask is None else mask[..., 0]


def _of_patient(
    patient: Patient,
    names: Sequence[str],
    training: Set[str],
    test: Set[str],
    subject: Subject | None,
    beside: NDArray[Any] | None = None,
) -> dict[str, list[SliceSums]]:
    """The sums of a patient's test slices, for the subject, the alarm and nothing.

    Args:
        names: all of its slices.
        beside: what the alarm copies for a slice that stands alone, in place of one of the patient's own.
    """
    from brainseg.readers import read_ground_truth, read_patient

    truth = read_ground_truth(patient)
    if truth is None:
        raise InputError(patient.path, "has no mask", "evaluate patients with masks")
    shown = [z for z, name in enumerate(names) if name in training]
    scored = [z for z, name in enumerate(names) if name in test]
    result: dict[str, list[SliceSums]] = {}
    if subject is not None:
        mask, probability = subject.predict(read_patient(patient, force=True))
        result[subject.what] = [
            slice_sums(
                patient.name,
                names[z],
                truth[..., z],
                mask[..., z],
                None if probability is None else probability[..., z],
            )
            for z in scored
        ]
    result[ALARM] = [
        slice_sums(
            patient.name,
            names[z],
            truth[..., z],
            beside if beside is not None and beside.shape == truth.shape[:2] else copied_mask(truth, z, shown),
        )
        for z in scored
    ]
    result[NOTHING] = [slice_sums(patient.name, names[z], truth[..., z], np.zeros_like(truth[..., z])) for z in scored]
    return result


def _described(path: Path | None, split: SliceSplit) -> str:
    sizes = f"{len(split.training)} training, {len(split.validation)} validation and {len(split.test)} test slices"
    origin = f"made here, seed {SEED}, as no --split was given" if path is None else path.name
    return f"{origin}; {sizes}, of which the test slices are scored"


def write_slice_evaluation(evaluation: SliceEvaluation, out: Path) -> None:
    """Writes per_slice.csv, summary.json and summary.md to `out`."""
    from brainseg.writers.atomic import replacing
    from brainseg.writers.tables import write_json, write_table

    out.mkdir(parents=True, exist_ok=True)
    rows = [(scored, *astuple(one)) for scored, sums in evaluation.slices.items() for one in sums]
    write_table(out / "per_slice.csv", ["scored", *(one.name for one in fields(SliceSums))], rows)
    write_json(
        out / "summary.json",
        {
            "protocol": evaluation.protocol,
            "definition": PROTOCOLS[evaluation.protocol],
            "split": evaluation.split,
            "cautions": list(evaluation.cautions),
            "figures": [
                {"scored": scored, "slices": len(evaluation.slices[scored]), **vars(figure)}
                for scored, figures in evaluation.figures.items()
                for figure in figures
            ],
        },
    )
    with replacing(out / "summary.md") as temporary:
        temporary.write_text(slice_markdown(evaluation), encoding="utf-8")


def slice_markdown(evaluation: SliceEvaluation) -> str:
    """The figures as a Markdown table, those of one metric below each other, with interval, n and protocol."""
    lines = [
        f"Protocol {evaluation.protocol}: {PROTOCOLS[evaluation.protocol]}.",
        f"Split: {evaluation.split}.",
        f"Intervals: {LEVEL:.0%}, patients resampled {RESAMPLES:,} times and their slices batched anew.",
        *(f"Caution: {caution}." for caution in evaluation.cautions),
        "",
        f"| metric | scored | value | {LEVEL:.0%} interval | slices | patients | protocol | note |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for metric in zip(*evaluation.figures.values(), strict=True):
        for scored, one in zip(evaluation.figures, metric, strict=True):
            slices = len(evaluation.slices[scored])
            cells = (
                one.metric,
                scored,
                cell(one.value),
                interval_cell(one),
                slices,
                one.n,
                evaluation.protocol,
                one.note,
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
