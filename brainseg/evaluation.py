"""Protocols C, D and E: a bundle, or masks that exist, against known masks, patient by patient."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import FLAIR, Case
from brainseg.errors import InputError, UsageError
from brainseg.members import cautions_of
from brainseg.predictions import Predictor, cautions_of_predictions, from_folder
from brainseg.protocols import BY_SLICE, PROTOCOLS, ten_of, volume_of_d
from brainseg.scores import CaseScores, score_case
from brainseg.slice_split import EACH_COUNTS
from brainseg.statistics import LEVEL, RESAMPLES, Figure, global_dice, mean_figure, summarise
from brainseg.study import Patient, find_patients
from brainseg.study.segmentation import truth_cautions
from brainseg.study.subjects import subjects_of

if TYPE_CHECKING:
    from brainseg.axial import AxialSlice
    from brainseg.members import Member
    from brainseg.presence import Presence

Array = NDArray[Any]
Advance = Callable[[str], None]
SCORES, SUMMARY, PICTURES = "per_patient.csv", "summary.json", "pictures.npz"  # what an evaluation leaves


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


@dataclass(frozen=True)
class Subject:
    """What is scored.

    Attributes:
        what: its name, and on which sequences.
        predict: gives mask and probability of a case.
        patients: those that it has an opinion on.
        cautions: what a reader of its figures must know.
        presence: of its bundle, where it has one alone.
    """

    what: str
    predict: Predictor
    patients: tuple[Patient, ...]
    cautions: tuple[str, ...] = ()
    presence: Presence | None = None


def evaluate(
    data: Path,
    *,
    protocol: str = "E",
    bundle: str | Sequence[str] | None = None,
    predictions: Path | None = None,
    folds: Path | None = None,
    fold: int | None = None,
    flair_alone: bool = False,
    tta: bool = False,
    only: Collection[str] | None = None,
    device: str = "auto",
    backend: str = "auto",
    advance: Callable[[int], Advance] | None = None,
) -> Evaluation:
    """Scores a bundle or a folder of predictions on the patients of `data` that have a mask.

    Args:
        data: folder of patients.
        protocol: "C", "D" or "E"; A and B are `slice_evaluation.evaluate_slices`.
        bundle: name or folder of a bundle; or a folder of runs of `brainseg train`, one a fold, each for the patients
            that it did not train on; or several of these, whose probabilities are averaged; or
        predictions: folder that `brainseg segment` wrote: `<case>/mask.nii.gz`, and probabilities where saved.
        folds: fold file, with `fold` the one whose patients are scored.
        fold: see `folds`.
        flair_alone: give the network FLAIR in place of the other sequences.
        tta: average with the mirror image.
        only: score no patients but those of these names.
        device, backend: where the network runs, and what runs it.
        advance: called with the number of patients, gives a function to call after each.

    Raises:
        UsageError: neither or both of `bundle` and `predictions`, only one of `folds` and `fold`, or a protocol that
            has other patients.
        InputError: no patient has a mask, one cannot be read, or a prediction is missing or lies on another grid.
    """
    from brainseg.datalist import in_fold, read_folds, refuse_lone_fold

    if protocol in BY_SLICE:
        raise UsageError("--protocol", f"{protocol} scores slices, not patients", "call evaluate_slices")
    if (bundle is None) == (predictions is None):
        raise UsageError("--bundle, --predictions", "one of the two says what to score", "give one")
    refuse_lone_fold(folds, fold)
    if protocol == "D" and folds is not None:
        raise UsageError("--folds", "protocol D has ten patients of its own", "leave --folds and --fold out")
    patients = [patient for patient in find_patients(data) if patient.masks or patient.problem]
    cautions: tuple[str, ...] = ()
    if protocol == "D":
        patients = ten_of(patients, data)
    if folds is not None and fold is not None:
        parts = read_folds(folds)
        patients = in_fold(patients, parts, fold)
        if len(patients) < len(parts[fold]):
            cautions = (f"only {len(patients)} of the {len(parts[fold])} patients of fold {fold} are there",)
    if only is not None:
        patients = [patient for patient in patients if patient.name in only]
        if not patients:
            raise InputError(data, "no patient to score is there", "give the data that the others were scored on")
    refuse_unreadable(patients, data)
    cautions = (*cautions, *cautions_of_slices(patients), *cautions_of_visits(patients), *truth_cautions(patients))
    subject = open_subject(
        patients,
        data,
        bundle=bundle,
        predictions=predictions,
        flair_alone=flair_alone,
        tta=tta,
        device=device,
        backend=backend,
    )
    step = advance(len(subject.patients)) if advance else _silent
    result = score_patients(
        subject.patients,
        subject.predict,
        what=subject.what,
        protocol=protocol,
        presence=subject.presence,
        advance=step,
    )
    return replace(result, cautions=(*cautions, *subject.cautions))


def refuse_unreadable(patients: Sequence[Patient], data: Path) -> None:
    """Refuses `patients` before hours of work on them.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    if not patients:
        raise InputError(data, "no patient there has a mask", "give a folder of patients with masks")
    for problem in (patient.problem for patient in patients):
        if problem is not None:
            raise problem


def open_subject(
    patients: Sequence[Patient],
    data: Path,
    *,
    bundle: str | Sequence[str] | None,
    predictions: Path | None,
    flair_alone: bool = False,
    tta: bool = False,
    device: str = "auto",
    backend: str = "auto",
) -> Subject:
    """What predicts `patients` of `data`; arguments as for `evaluate`.

    Raises:
        InputError: there is no opinion on any of them.
    """
    if predictions is not None:
        names = [patient.name for patient in patients]
        told = cautions_of_predictions(predictions, names)
        return Subject(predictions.resolve().name, from_folder(predictions, names), tuple(patients), told)
    from brainseg.members import open_member, record_of

    named = [bundle] if isinstance(bundle, str) else bundle or ()
    members = [open_member(one, device=device, backend=backend) for one in named]
    known = [patient for patient in patients if all(member.of(patient.name) for member in members)]
    if not known:
        raise InputError(data, "no patient there is validated by these runs", "give the data that they were trained on")
    looks = ("FLAIR alone" if flair_alone else "all sequences", *(("mirrored too",) if tta else ()))
    what = ", ".join((" + ".join(member.what for member in members), *looks))
    predict = from_members(members, flair_alone=flair_alone, tta=tta)
    names = [patient.name for patient in known]
    cautions = dict.fromkeys(one for member in members for one in cautions_of(record_of(member), names))
    presence = {own.presence for member in members for name in names if (own := member.of(name))}
    alone = presence.pop() if len(presence) == 1 else None
    return Subject(what, predict, tuple(known), tuple(cautions), alone)


def score_patients(
    patients: Sequence[Patient],
    predict: Predictor,
    *,
    what: str,
    protocol: str = "E",
    presence: Presence | None = None,
    advance: Advance | None = None,
) -> Evaluation:
    """Protocol C, D or E over `patients`, each read, predicted and scored in turn; keeps one slice of each.

    All three give a patient's scores as E has them, D after its own cuts of the volume; the figures are the protocol's.
    `presence` is that of the bundle which predicts, if it is one.
    """
    from brainseg.axial import axial_slices
    from brainseg.readers import read_ground_truth, read_patient

    scores: list[CaseScores] = []
    pictures = {}
    for patient in patients:
        case = read_patient(patient, force=True)
        known = read_ground_truth(patient)
        if known is None:
            raise InputError(patient.path, "has no mask", "evaluate patients with masks")
        truth: Array = known
        mask, probability = predict(case)
        if protocol == "D":
            case, truth, mask, probability = volume_of_d(case, truth, mask, probability)
        score = score_case(patient.name, truth, mask, probability, case.affine, case.spacing_mm)
        scores.append(score)
        pictures[patient.name] = _alone(max(axial_slices(case, mask, truth), key=_tumour))
        (advance or _silent)(f"{patient.name}: Dice {score.dice:.3f}")
    return Evaluation(protocol, what, tuple(scores), pictures, _figures(scores, protocol, presence))


def _figures(scores: Sequence[CaseScores], protocol: str, presence: Presence | None) -> tuple[Figure, ...]:
    if protocol == "C":
        return (global_dice(scores),)
    if protocol == "D":
        return (mean_figure("Dice", [one.dice for one in scores], seed=0),)
    return tuple(summarise(scores, presence=presence))


def from_members(members: Sequence[Member], *, flair_alone: bool = False, tta: bool = False) -> Predictor:
    """Predicts with the bundle that each member has for a case, and averages; all must have one."""
    from brainseg.inference import segment

    def predict(case: Case) -> tuple[Array, Array | None]:
        bundles = [bundle for member in members if (bundle := member.of(case.name))]
        result = segment(with_flair_alone(case) if flair_alone else case, bundles, tta=tta)
        return result.mask, result.probability

    return predict


def with_flair_alone(case: Case) -> Case:
    """The case as the network would see it had only its FLAIR been given."""
    return replace(case, image=np.repeat(case.image[FLAIR : FLAIR + 1], 3, axis=0))


def review_run(
    root: Path, patients: Sequence[Patient], *, settings: dict[str, Any] | None = None, advance: Advance | None = None
) -> Evaluation:
    """Scores a run of `brainseg train` on its validation patients, and adds tables and TensorBoard review to it.

    The validation patients chose the weights, which `cautions` says: figures of protocol E they are not quite.
    """
    from brainseg.bundle import open_bundle
    from brainseg.members import Member, training_record

    bundle = open_bundle(str(root))
    predict = from_members([Member(bundle.title, bundle, {})])
    what = f"{bundle.title}, all sequences"
    result = score_patients(patients, predict, what=what, presence=bundle.presence, advance=advance)
    told = cautions_of(training_record(bundle.root), [patient.name for patient in patients])
    result = replace(result, cautions=(*cautions_of_slices(patients), *told))
    write_evaluation(result, root, settings={"bundle": bundle.title, **(settings or {})})
    return result


def write_evaluation(evaluation: Evaluation, out: Path, *, settings: dict[str, Any] | None = None) -> None:
    """Writes per_patient.csv, pictures.npz, summary.json, summary.md and TensorBoard events to `out`.

    Under protocol E also roc.csv and roc.png, the ROC curves of slices and patients.
    """
    from brainseg.review import write_review
    from brainseg.writers.atomic import replacing
    from brainseg.writers.pictures import write_pictures
    from brainseg.writers.roc import write_roc
    from brainseg.writers.tables import write_json, write_table

    out.mkdir(parents=True, exist_ok=True)
    columns = [name for name in CaseScores.__dataclass_fields__ if name not in _ARRAYS]
    write_table(out / SCORES, columns, [[getattr(one, name) for name in columns] for one in evaluation.scores])
    write_pictures(out / PICTURES, evaluation.pictures)
    write_json(
        out / SUMMARY,
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
    if evaluation.protocol == "E":
        write_roc(out, evaluation.scores, evaluation.figures)
    write_review(out, evaluation, settings or {"what": evaluation.what})


_ARRAYS = ("slice_truth", "slice_score", "slice_marked", "positives", "negatives")


def markdown(evaluation: Evaluation) -> str:
    """The figures as a Markdown table with interval, n and protocol."""
    lines = [
        f"Protocol {evaluation.protocol}: {PROTOCOLS[evaluation.protocol]}.",
        f"Scored: {evaluation.what}. Intervals: {LEVEL:.0%}, patients resampled {RESAMPLES:,} times.",
        *(f"Caution: {caution}." for caution in evaluation.cautions),
        "",
        f"| metric | mean | {LEVEL:.0%} interval | median | patients | protocol | note |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in evaluation.figures:
        cells = (
            one.metric,
            cell(one.value),
            interval_cell(one),
            cell(one.median),
            one.n,
            evaluation.protocol,
            one.note,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def cell(value: float | None) -> str:
    """A figure as tables have it."""
    return "" if value is None else "-" if np.isnan(value) else "infinite" if np.isinf(value) else f"{value:.3f}"


def interval_cell(figure: Figure) -> str:
    """The interval of a figure as tables have it."""
    return "-" if np.isnan(figure.low) else f"{cell(figure.low)} to {cell(figure.high)}"


def cautions_of_slices(patients: Sequence[Patient]) -> tuple[str, ...]:
    """What must be said of figures over slices that carry no patient."""
    return (EACH_COUNTS,) if any(patient.alone for patient in patients) else ()


def cautions_of_visits(patients: Sequence[Patient]) -> tuple[str, ...]:
    """What must be said of figures over several scans of one person."""
    people = len(set(subjects_of(patients).values()))
    if people == len(patients):
        return ()
    who = f"{people} person{'s' * (people > 1)}"
    return (f"these {len(patients)} scans are of {who} and each counts, so the intervals are too narrow",)


def _tumour(one: AxialSlice) -> tuple[int, int, int]:
    """The slice with most tumour is the one to show, else with most mask, else the middle one."""
    true = 0 if one.truth is None else int(np.count_nonzero(one.truth))
    return true, int(np.count_nonzero(one.mask)), -abs(2 * one.number - one.count)


def _alone(one: AxialSlice) -> AxialSlice:
    """The slice without the volume that its arrays are views of."""
    truth = None if one.truth is None else one.truth.copy()
    return replace(one, flair=one.flair.copy(), mask=one.mask.copy(), truth=truth)


def _silent(line: str) -> None:
    """No progress."""
