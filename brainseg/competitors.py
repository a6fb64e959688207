"""What `compare` is given: evaluations, runs, cross-validations, bundles or predictions, each read or scored."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.bundle import RUN_FILE, TRAINING_FILE, shipped
from brainseg.comparison import Comparison, Competitor, Score, compare, notable, refuse_protocol_mix
from brainseg.errors import BrainsegError, InputError, MachineError, UsageError, one_line
from brainseg.evaluation import PICTURES, SCORES, SUMMARY, Advance, evaluate, write_evaluation
from brainseg.members import FLATTERS, cautions_of, finished_runs, record_of_runs
from brainseg.study.names import safe_name
from brainseg.writers.tables import read_table

if TYPE_CHECKING:
    from brainseg.axial import AxialSlice
    from brainseg.history import History

log = logging.getLogger(__name__)
AGAIN = "score it again with brainseg evaluate"
Progress = Callable[[str, int], Advance]


def compare_folders(
    arguments: Sequence[str],
    out: Path,
    *,
    data: Path | None = None,
    folds: Path | None = None,
    fold: int | None = None,
    device: str = "auto",
    advance: Progress | None = None,
) -> Comparison:
    """Compares what `arguments` name with the first of them, patient by patient.

    What has scores is read; what has none is scored on the patients of `data` that the others have, and its evaluation
    left in `out`/scores/<label>, where a second comparison can read it.

    Args:
        arguments: each an evaluation, a run, a folder of runs one a fold, a shipped bundle's name, or predictions.
        out: folder for what is scored here.
        data: patients with masks, for what has no scores or pictures yet.
        folds: fold file, with `fold` the one whose patients are compared.
        fold: see `folds`.
        device: where a network runs.
        advance: called with a label and the number of patients to score, gives a function to call after each.

    Raises:
        UsageError: fewer than two, one twice, one that is nothing of the kind, one without scores or `data`, different
            protocols, or only one of `folds` and `fold`.
        InputError: scores or masks that cannot be read, or no patient in common.
        MachineError: `out` cannot be made.
    """
    from brainseg.datalist import names_in_fold, read_folds, refuse_lone_fold

    refuse_lone_fold(folds, fold)
    if len(arguments) < 2:
        raise UsageError("compare", f"{len(arguments)} to compare", "give two or more")
    labels = unique_labels(arguments)
    scored = {label: _scored_folders(argument) for label, argument in zip(labels, arguments, strict=True)}
    for label, argument in zip(labels, arguments, strict=True):
        if not scored[label]:
            _refuse_what_cannot_be_scored(argument, data)
    found = {label: read_scored(label, folders) for label, folders in scored.items() if folders}
    refuse_protocol_mix({label: found[label].protocol if label in found else "E" for label in labels})
    wanted = None if folds is None or fold is None else names_in_fold(read_folds(folds), fold)
    if wanted is not None:
        found = {label: replace(one, scores=_those(one.scores, wanted)) for label, one in found.items()}
    for one in found.values():
        wanted = set(one.scores) if wanted is None else wanted & set(one.scores)
    if wanted is not None and not wanted:
        raise InputError(
            ", ".join(found) or folds or "", "have no patient in common", "score them on the same patients"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)  # before hours of scoring
    except OSError as error:
        raise MachineError(out, f"cannot be written ({error.strerror})", "choose another --out") from None
    for label, argument in zip(labels, arguments, strict=True):
        if label not in found and data is not None:
            folder = out / "scores" / safe_name(label)
            _score(argument, label, data, folder, only=wanted, device=device, advance=advance)
            found[label] = replace(read_scored(label, [folder]), histories=_histories(argument))
            wanted = set(found[label].scores) if wanted is None else wanted & set(found[label].scores)
    comparison = compare([found[label] for label in labels])
    if data is None:
        return comparison
    cases = set(notable(comparison).values())
    pictured = [
        _with_pictures(one, argument, cases, data, device)
        for one, argument in zip(comparison.competitors, arguments, strict=True)
    ]
    return replace(comparison, competitors=tuple(pictured))


def unique_labels(arguments: Sequence[str]) -> list[str]:
    """The last folder names of each argument, as many as tell it from the others; nothing above that is shown.

    Raises:
        UsageError: the same argument twice.
    """
    known = shipped()
    parts = [("shipped", one) if one in known else Path(one).resolve().parts[1:] for one in arguments]
    for one, part in zip(arguments, parts, strict=True):
        if parts.count(part) > 1:
            raise UsageError(one, "is given twice", "name each once")

    def label(part: tuple[str, ...]) -> str:
        ends = (part[-take:] for take in range(1, len(part) + 1))
        alone = (end for end in ends if sum(other[-len(end) :] == end for other in parts) == 1)
        return one_line("/".join(next(alone, part)))

    return [label(part) for part in parts]


def read_scored(label: str, folders: Sequence[Path]) -> Competitor:
    """The competitor whose evaluation is in one folder, or in several, one a fold.

    Raises:
        InputError: tables that cannot be read, or a patient in two of the folders.
        UsageError: folders of different protocols.
    """
    summaries = [_summary(folder) for folder in folders]
    scores: dict[str, Score] = {}
    pictures: dict[str, AxialSlice] = {}
    for folder in folders:
        own = _scores(folder / SCORES)
        both = set(scores) & set(own)
        if both:
            raise InputError(folder, f"{min(both)} is scored in another run too", "give the runs of one set of folds")
        scores |= own
        if (folder / PICTURES).is_file():
            from brainseg.writers.pictures import read_pictures

            pictures |= read_pictures(folder / PICTURES)
    words = [_words(summary) for summary in summaries]
    refuse_protocol_mix({folder.name: said[1] for folder, said in zip(folders, words, strict=True)})
    what, protocol, definition = words[0]
    said = dict.fromkeys(one_line(str(caution)) for summary in summaries for caution in summary.get("cautions") or ())
    cautions = tuple(said)
    if len(folders) > 1:
        what = f"{what}, cross-validated ({', '.join(folder.name for folder in folders)})"
        counted = cautions_of(record_of_runs(folders), list(scores))  # of each fold, and now of all
        cautions = (*(one for one in said if not one.endswith(FLATTERS) and one not in counted), *counted)
    histories = tuple(history for folder in folders for history in _histories(str(folder)))
    return Competitor(label, what, protocol, definition, scores, cautions, pictures, histories)


def _scored_folders(argument: str) -> list[Path]:
    """The folders with the scores of `argument`: itself, all of its finished runs, or none yet."""
    if argument in shipped():
        return []
    folder = Path(argument)
    if (folder / SCORES).is_file():
        return [folder]
    runs = finished_runs(folder)
    return runs if all((run / SCORES).is_file() for run in runs) else []


def _refuse_what_cannot_be_scored(argument: str, data: Path | None) -> None:
    folder = Path(argument)
    if argument not in shipped():
        if not folder.is_dir():
            known = ", ".join(shipped())
            raise UsageError(argument, "no such folder, and no bundle of that name", f"choose a folder, or {known}")
        if not (_predicted(folder) or finished_runs(folder) or _is_bundle(folder)):
            remedy = "give what train, evaluate or segment wrote, or a bundle's name"
            raise UsageError(argument, "holds no scores, run, bundle or predictions", remedy)
    if data is None:
        raise UsageError(argument, "has no scores yet", "pass --data with patients and their masks")


def _is_bundle(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file() or (folder / "configs" / "inference.json").is_file()


def _predicted(folder: Path) -> set[str]:
    """The cases whose masks `brainseg segment` wrote to `folder`."""
    return {path.parent.name for path in folder.glob("*/mask.nii.gz")}


def _score(
    argument: str,
    label: str,
    data: Path,
    folder: Path,
    *,
    only: Collection[str] | None,
    device: str,
    advance: Progress | None,
) -> None:
    predicted = set() if argument in shipped() else _predicted(Path(argument))
    if predicted:
        only = predicted if only is None else predicted & set(only)
    result = evaluate(
        data,
        bundle=None if predicted else argument,
        predictions=Path(argument) if predicted else None,
        only=only,
        device=device,
        advance=(lambda total: advance(label, total)) if advance else None,
    )
    write_evaluation(result, folder)


def _with_pictures(
    competitor: Competitor, argument: str, cases: Collection[str], data: Path, device: str
) -> Competitor:
    """`competitor` with the pictures of `cases` that its scores came without, if it is a run that can make them."""
    missing = set(cases) - set(competitor.pictures or {})
    folder = Path(argument)
    if not missing or not ((folder / TRAINING_FILE).is_file() or finished_runs(folder)):
        return competitor
    try:
        made = evaluate(data, bundle=argument, only=missing, device=device)
    except BrainsegError as error:  # the scores stand without them
        log.warning("no pictures of %s: %s", competitor.label, error)
        return competitor
    return replace(competitor, pictures={**(competitor.pictures or {}), **made.pictures})


def _histories(argument: str) -> tuple[History, ...]:
    from brainseg.history import read_history

    folder = shipped().get(argument, Path(argument))
    read = (read_history(root) for root in finished_runs(folder) or [folder])
    return tuple(history for history in read if history is not None)


def _summary(folder: Path) -> Mapping[str, Any]:
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({type(error).__name__})", AGAIN) from None
    if not isinstance(summary, dict) or not isinstance(summary.get("protocol"), str):
        raise InputError(path, "does not say by which protocol it was scored", AGAIN)
    return summary


def _words(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """What was scored, by which protocol, and what that means."""
    what, protocol, definition = (one_line(str(summary.get(key, ""))) for key in ("what", "protocol", "definition"))
    return what, protocol, definition


def _scores(path: Path) -> dict[str, Score]:
    """Scores by case name, from a per_patient.csv; its cells have six significant digits."""
    header, rows = read_table(path, AGAIN)
    needed = ("case", "unit", "dice", "hd95", "voxels", "true_voxels", "volume_ml", "true_volume_ml")
    absent = [name for name in needed if name not in header]
    if absent:
        raise InputError(path, f"has no column {absent[0]}", AGAIN)
    scores: dict[str, Score] = {}
    for number, cells in enumerate(rows, start=2):
        if cells["case"] in scores:
            raise InputError(path, f"{cells['case']} is there twice", AGAIN)
        try:
            scores[cells["case"]] = _score_of(cells)
        except ValueError as error:
            raise InputError(path, f"row {number} holds {error}", AGAIN) from None
    return scores


def _score_of(cells: Mapping[str, str]) -> Score:
    sizes = ("volume_ml", "true_volume_ml") if cells["unit"] == "mm" else ("voxels", "true_voxels")
    found, true = (_number(cells[size]) for size in sizes)
    return Score(
        dice=_number(cells["dice"]),
        hd95=_number(cells["hd95"]),
        volume_error=abs(found - true),
        unit=cells["unit"],
        true_voxels=int(cells["true_voxels"]),
    )


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def _those(scores: Mapping[str, Score], names: Collection[str]) -> dict[str, Score]:
    return {case: score for case, score in scores.items() if case in names}
