"""Protocol E: a bundle, or masks that exist, against known masks, patient by patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import FLAIR, Case
from brainseg.errors import InputError, UsageError
from brainseg.scores import CaseScores, score_case
from brainseg.statistics import LEVEL, RESAMPLES, Figure, summarise
from brainseg.study import Patient, find_patients

if TYPE_CHECKING:
    from brainseg.bundle import Bundle
    from brainseg.writers.overlay import AxialSlice

PROTOCOLS = {
    "E": "whole patients, all slices, native grid, threshold fixed beforehand; one hard Dice a patient volume",
}
Array = NDArray[Any]
Predictor = Callable[[Case], tuple[Array, Array | None]]
Advance = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        protocol: a key of `PROTOCOLS`.
        what: the bundle or folder that was scored, and on which sequences.
        scores: one a patient, in the order of the data.
        pictures: a patient's slice with the largest tumour, with both contours.
        figures: over the patients.
        cautions: what a reader of the figures must know (patients that trained the network).
    """

    protocol: str
    what: str
    scores: tuple[CaseScores, ...]
    pictures: dict[str, AxialSlice]
    figures: tuple[Figure, ...]
    cautions: tuple[str, ...] = ()


def evaluate(
    data: Path,
    *,
    bundle: str | None = None,
    predictions: Path | None = None,
    folds: Path | None = None,
    fold: int | None = None,
    flair_alone: bool = False,
    device: str = "auto",
    advance: Callable[[int], Advance] | None = None,
) -> Evaluation:
    """Scores a bundle or a folder of predictions on the patients of `data` that have a mask.

    Args:
        data: folder of patients.
        bundle: name or folder of a bundle; or
        predictions: folder that `brainseg segment` wrote: `<case>/mask.nii.gz`, and probabilities where saved.
        folds: fold file, with `fold` the one whose patients are scored.
        fold: see `folds`.
        flair_alone: give the network FLAIR in place of the other sequences.
        device: where the network runs.
        advance: called with the number of patients, gives a function to call after each.

    Raises:
        UsageError: neither or both of `bundle` and `predictions`.
        InputError: no patient has a mask, or a prediction is missing or lies on another grid.
    """
    from brainseg.datalist import in_fold, read_folds

    if (bundle is None) == (predictions is None):
        raise UsageError("--bundle, --predictions", "one of the two says what to score", "give one")
    patients = [patient for patient in find_patients(data) if patient.masks or patient.problem]
    if folds is not None and fold is not None:
        patients = in_fold(patients, read_folds(folds), fold)
    if not patients:
        raise InputError(data, "no patient there has a mask", "give a folder of patients with masks")
    step = advance(len(patients)) if advance else _silent
    if predictions is not None:
        return score_patients(patients, from_folder(predictions), what=predictions.name, advance=step)
    from brainseg.bundle import open_bundle

    opened = open_bundle(str(bundle), device=device)
    sequences = "FLAIR alone" if flair_alone else "all sequences"
    result = score_patients(
        patients, from_bundle(opened, flair_alone=flair_alone), what=f"{opened.name}, {sequences}", advance=step
    )
    return replace(result, cautions=_cautions(opened, patients))


def score_patients(
    patients: Sequence[Patient], predict: Predictor, *, what: str, advance: Advance | None = None
) -> Evaluation:
    """Protocol E over `patients`, each read, predicted and scored in turn; keeps one slice of each."""
    from brainseg.readers import read_ground_truth, read_patient
    from brainseg.writers.overlay import axial_slices

    scores: list[CaseScores] = []
    pictures = {}
    for patient in patients:
        case = read_patient(patient, force=True)
        truth = read_ground_truth(patient)
        if truth is None:
            raise InputError(patient.path, "has no mask", "evaluate patients with masks")
        mask, probability = predict(case)
        score = score_case(patient.name, truth, mask, probability, case.affine, case.spacing_mm)
        scores.append(score)
        pictures[patient.name] = max(axial_slices(case, mask, truth), key=_tumour)
        (advance or _silent)(f"{patient.name}: Dice {score.dice:.3f}")
    return Evaluation("E", what, tuple(scores), pictures, tuple(summarise(scores)))


def from_bundle(bundle: Bundle, *, flair_alone: bool = False) -> Predictor:
    """Predicts with a bundle."""
    from brainseg.inference import segment

    def predict(case: Case) -> tuple[Array, Array | None]:
        if flair_alone:
            case = replace(case, image=np.repeat(case.image[FLAIR : FLAIR + 1], 3, axis=0))
        result = segment(case, bundle)
        return result.mask, result.probability

    return predict


def from_folder(folder: Path) -> Predictor:
    """Takes the masks, and the probabilities where they were saved, that `brainseg segment` wrote to `folder`.

    Raises (when called):
        InputError: no mask for a case, or one on another grid.
    """
    from brainseg.readers.nifti import read_nifti, read_nifti_mask

    def predict(case: Case) -> tuple[Array, Array | None]:
        path = folder / case.name / "mask.nii.gz"
        if not path.is_file():
            raise InputError(path, "no prediction there", "segment this patient first")
        mask = read_nifti_mask(path)
        if mask.shape != case.shape:
            raise InputError(path, f"has shape {mask.shape}, the scan {case.shape}", "predict on the scan's own grid")
        saved = folder / case.name / "probability.nii.gz"
        return mask, read_nifti(saved).array if saved.is_file() else None

    return predict


def review_run(
    root: Path, patients: Sequence[Patient], *, settings: dict[str, Any] | None = None, advance: Advance | None = None
) -> Evaluation:
    """Scores a run of `brainseg train` on its validation patients, and adds tables and TensorBoard review to it."""
    from brainseg.bundle import open_bundle

    bundle = open_bundle(str(root))
    result = score_patients(patients, from_bundle(bundle), what=f"{bundle.name}, all sequences", advance=advance)
    write_evaluation(result, root, settings={"bundle": bundle.name, **(settings or {})})
    return result


def write_evaluation(evaluation: Evaluation, out: Path, *, settings: dict[str, Any] | None = None) -> None:
    """Writes per_patient.csv, summary.json, summary.md and TensorBoard events to `out`."""
    from brainseg.review import write_review
    from brainseg.writers.atomic import replacing
    from brainseg.writers.tables import write_json, write_table

    out.mkdir(parents=True, exist_ok=True)
    columns = [name for name in CaseScores.__dataclass_fields__ if name not in _ARRAYS]
    write_table(
        out / "per_patient.csv", columns, [[getattr(one, name) for name in columns] for one in evaluation.scores]
    )
    write_json(
        out / "summary.json",
        {
            "protocol": evaluation.protocol,
            "definition": PROTOCOLS[evaluation.protocol],
            "what": evaluation.what,
            "cautions": list(evaluation.cautions),
            "figures": [vars(figure) for figure in evaluation.figures],
        },
    )
    with replacing(out / "summary.md") as temporary:
        temporary.write_text(markdown(evaluation), encoding="utf-8")
    write_review(out, evaluation, settings or {"what": evaluation.what})


_ARRAYS = ("slice_truth", "slice_score", "slice_marked", "positives", "negatives")


def markdown(evaluation: Evaluation) -> str:
    """The figures as a Markdown table with protocol, interval and n."""

    def number(value: float | None) -> str:
        return "" if value is None else "-" if not np.isfinite(value) else f"{value:.3f}"

    lines = [
        f"Protocol {evaluation.protocol}: {PROTOCOLS[evaluation.protocol]}.",
        f"Scored: {evaluation.what}. Intervals: {LEVEL:.0%}, patients resampled {RESAMPLES:,} times.",
        *(f"Caution: {caution}." for caution in evaluation.cautions),
        "",
        "| metric | mean | 95% interval | median | patients |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in evaluation.figures:
        interval = f"{number(one.low)} to {number(one.high)}"
        lines.append(f"| {one.metric} | {number(one.value)} | {interval} | {number(one.median)} | {one.n} |")
    return "\n".join(lines) + "\n"


def _cautions(bundle: Bundle, patients: Sequence[Patient]) -> tuple[str, ...]:
    record = bundle.root / "models" / "training.json"
    if not record.is_file():
        return ()
    trained_on = set(json.loads(record.read_text(encoding="utf-8")).get("trained_on", ()))
    known = sum(patient.name in trained_on for patient in patients)
    return (
        (f"{known} of these {len(patients)} patients trained the network, so the figures flatter it",) if known else ()
    )


def _tumour(one: AxialSlice) -> tuple[int, int]:
    true = 0 if one.truth is None else int(np.count_nonzero(one.truth))
    return true, int(np.count_nonzero(one.mask))


def _silent(line: str) -> None:
    """No progress."""
