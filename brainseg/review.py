"""What TensorBoard shows of an evaluation; the tags are the same for every network, so that runs line up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainseg.writers.overlay import contour_figure

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from brainseg.evaluation import Evaluation
    from brainseg.scores import CaseScores

DICE_MEAN, DICE_MEDIAN = "review/dice_mean", "review/dice_median"
DICE_HISTOGRAM = "review/dice"
PRECISION_RECALL = "review/precision_recall"
TABLE, SUMMARY = "review/patients", "review/summary"
PATIENT = "patients/"
CONTOURS = "contours/"
SUFFIX = ".review"  # of the event file, so that a second review takes the place of the first


def write_review(log_dir: Path, evaluation: Evaluation, settings: dict[str, Any], *, step: int = 0) -> None:
    """Adds an event file to `log_dir`: figures, per-patient Dice, precision-recall curve, contours, hyper-parameters.

    `contours/best`, `contours/median`, `contours/worst` show FLAIR with the true and the predicted contour in the slice
    with the largest tumour; `patients/<case>` is that patient's Dice. An earlier review in `log_dir` is removed; other
    event files there, of the training, stay.
    """
    from torch.utils.tensorboard import SummaryWriter

    from brainseg.evaluation import markdown

    for earlier in log_dir.glob(f"events.out.tfevents.*{SUFFIX}"):
        earlier.unlink()
    ranked = sorted(evaluation.scores, key=lambda one: -np.nan_to_num(one.dice, nan=-1.0))
    dice = np.array([one.dice for one in ranked if np.isfinite(one.dice)])
    with SummaryWriter(str(log_dir), filename_suffix=SUFFIX) as writer:
        if dice.size:
            writer.add_scalar(DICE_MEAN, dice.mean(), step)
            writer.add_scalar(DICE_MEDIAN, np.median(dice), step)
            writer.add_histogram(DICE_HISTOGRAM, dice, step, bins=np.linspace(0, 1, 21))
        for one in evaluation.scores:
            if np.isfinite(one.dice):
                writer.add_scalar(PATIENT + one.case, one.dice, step)
        writer.add_text(SUMMARY, markdown(evaluation), step)
        writer.add_text(TABLE, _table(ranked), step)
        if all(np.isfinite(one.confidence) for one in ranked):
            _precision_recall(writer, ranked, step)
        for place, one in _notable(ranked).items():
            picture = evaluation.pictures[one.case]
            title = f"{one.case}  Dice {one.dice:.2f}"
            figure = contour_figure(picture.flair, picture.mask, picture.truth, title, picture.aspect)
            writer.add_figure(CONTOURS + place, figure, step)
        _hyper_parameters(writer, {"protocol": evaluation.protocol, **settings}, dice)


def _notable(ranked: list[CaseScores]) -> dict[str, CaseScores]:
    """The three best, the middle three and the three worst, or as many as there are."""
    ranked = [one for one in ranked if not np.isnan(one.dice)] or ranked  # nothing there and nothing marked is no Dice
    middle = len(ranked) // 2
    places = {"best": 0, "median": middle, "worst": len(ranked) - 1}
    if len(ranked) >= 9:
        places |= {"best_2": 1, "best_3": 2, "median_2": middle - 1, "median_3": middle + 1}
        places |= {"worst_2": len(ranked) - 2, "worst_3": len(ranked) - 3}
    return {name: ranked[i] for name, i in sorted(places.items())}


def _table(ranked: list[CaseScores]) -> str:
    def number(value: float) -> str:
        return "-" if np.isnan(value) else f"{value:.3f}"

    rows = [
        f"| {one.case} | {number(one.dice)} | {one.true_voxels} | {one.voxels} | {number(one.confidence)} |"
        for one in ranked
    ]
    return "\n".join(
        ["| patient | Dice | true voxels | voxels | confidence |", "| --- | --- | --- | --- | --- |", *rows]
    )


def _precision_recall(writer: SummaryWriter, scores: list[CaseScores], step: int) -> None:
    """The curve over all voxels of all patients, from the binned counts: one threshold a bin, at its lower end."""
    positives = np.sum([one.positives for one in scores], axis=0)
    negatives = np.sum([one.negatives for one in scores], axis=0)
    true_positives = positives[::-1].cumsum()[::-1]
    false_positives = negatives[::-1].cumsum()[::-1]
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    recall = true_positives / max(positives.sum(), 1)
    writer.add_pr_curve_raw(
        PRECISION_RECALL,
        true_positive_counts=true_positives,
        false_positive_counts=false_positives,
        true_negative_counts=negatives.sum() - false_positives,
        false_negative_counts=positives.sum() - true_positives,
        precision=precision,
        recall=recall,
        global_step=step,
        num_thresholds=len(positives),
    )


def _hyper_parameters(writer: SummaryWriter, settings: dict[str, Any], dice: np.ndarray[Any, Any]) -> None:
    """The run's settings beside its Dice in TensorBoard's HPARAMS page, in the run's own folder."""
    from torch.utils.tensorboard.summary import hparams

    plain = {
        key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in settings.items()
    }
    results = {DICE_MEAN: float(dice.mean()), DICE_MEDIAN: float(np.median(dice))} if dice.size else {}
    for summary in hparams(plain, results):  # type: ignore[no-untyped-call]
        writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
