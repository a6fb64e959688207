"""Scores of slices under protocols A and B: soft Dice and IoU of batches, and what the same masks give otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.statistics import RESAMPLES, Figure, Floats, interval, mean_figure, ratio_figure

BATCHES = {"A": (16, 1.0), "B": (32, 100.0)}  # slices a batch, smoothing


@dataclass(frozen=True)
class SliceSums:
    """The sums over one slice's pixels that every figure comes from; t is the truth, p the probability, m the mask.

    Attributes:
        patient, name: whose slice, and which.
        soft_both, soft: sum of p*t and of p; where only a mask was given p is the mask.
        true: sum of t.
        both, marked: sum of m*t and of m.
        right, pixels: pixels where p > 0.5 agrees with t, and all pixels.
    """

    patient: str
    name: str
    soft_both: float
    soft: float
    true: int
    both: int
    marked: int
    right: int
    pixels: int


def slice_sums(
    patient: str, name: str, truth: NDArray[Any], mask: NDArray[Any], probability: NDArray[Any] | None = None
) -> SliceSums:
    """Sums of one slice; `truth`, `mask` and `probability` are (X, Y).

    Raises:
        ValueError: shapes that differ.
    """
    true, marked = np.asarray(truth) != 0, np.asarray(mask) != 0
    soft = marked.astype(float) if probability is None else np.asarray(probability, float)
    if not true.shape == marked.shape == soft.shape:
        raise ValueError(f"truth, mask and probability must have one shape, got {true.shape}, {marked.shape}")
    return SliceSums(
        patient=patient,
        name=name,
        soft_both=float(soft[true].sum()),
        soft=float(soft.sum()),
        true=int(true.sum()),
        both=int((marked & true).sum()),
        marked=int(marked.sum()),
        right=int(((soft > 0.5) == true).sum()),
        pixels=true.size,
    )


def soft_dice(both: Floats, predicted: Floats, true: Floats, smooth: float) -> Floats:
    """`(2 sum(pt) + s) / (sum(p) + sum(t) + s)` of each batch's sums: of nothing and nothing it is 1."""
    return (2 * both + smooth) / (predicted + true + smooth)


def soft_iou(both: Floats, predicted: Floats, true: Floats, smooth: float) -> Floats:
    """`(sum(pt) + s) / (sum(p) + sum(t) - sum(pt) + s)` of each batch's sums."""
    return (both + smooth) / (predicted + true - both + smooth)


def batched(sums: Floats, order: NDArray[np.intp], size: int) -> Floats:
    """Sums (3, batches) of the columns of `sums` (3, n) in batches of `size`, taken in this order.

    What is left over after the last whole batch is left out, for a batch of one slice would weigh as much as one of
    16; fewer slices than `size` are one batch.
    """
    whole = order[: len(order) - len(order) % size] if len(order) > size else order
    result: Floats = np.add.reduceat(sums[:, whole], np.arange(0, len(whole), size), axis=1)
    return result


def slice_figures(slices: Sequence[SliceSums], protocol: str, *, seed: int = 0) -> list[Figure]:
    """Protocol A's or B's figures, and three of the same masks without batches, so that the batches' part is seen.

    The unit of A and B is a batch of slices drawn at random, and neither batches nor slices are independent: slices of
    one patient share its tumour. So every interval draws patients, each with all its slices here, and shuffles the
    drawn slices into batches anew. It says how far the figure would move with other patients and another shuffle of the
    same split; not with another split, and nothing about patients whose slices did not train.

    Where both masks are empty: the batch counts by its smoothing, `Dice a slice` counts 1, and the other two leave the
    slice out.

    Args:
        slices: one or more.
        protocol: "A" or "B".
        seed: of the shuffle and of the interval.
    """
    size, smooth = BATCHES[protocol]
    owners = sorted({one.patient for one in slices})
    places = [np.flatnonzero([one.patient == owner for one in slices]) for owner in owners]
    sums = np.array([(one.soft_both, one.soft, one.true) for one in slices]).T

    def means(order: NDArray[np.intp]) -> tuple[float, float]:
        both, predicted, true = batched(sums, order, size)
        ratios = soft_dice(both, predicted, true, smooth), soft_iou(both, predicted, true, smooth)
        return float(ratios[0].mean()), float(ratios[1].mean())

    def each(value: Callable[[SliceSums], float]) -> Floats:
        values = np.array([value(one) for one in slices])
        return np.array([values[own].sum() for own in places], float)

    overall = means(np.random.RandomState(seed).permutation(len(slices)))
    note = f"mean of {max(1, len(slices) // size)} batches of {min(size, len(slices))}, smooth {smooth:g}"
    figures = [
        Figure(name, value, *interval(drawn), None, len(owners), note)
        for name, value, drawn in zip(("soft Dice", "soft IoU"), overall, _resampled(means, places, seed), strict=True)
    ]
    if protocol == "B":
        figures.append(ratio_figure("pixel accuracy", each(lambda one: one.right), each(lambda one: one.pixels), seed))
    shared, sizes = each(lambda one: 2 * one.both), each(lambda one: one.marked + one.true)
    of_patients = np.divide(shared, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
    return [
        *figures,
        ratio_figure("hard Dice, all slices together", shared, sizes, seed),
        mean_figure("hard Dice a patient", of_patients.tolist(), seed),
        ratio_figure("hard Dice a slice, 1 where both are empty", each(_flattering), each(lambda _: 1), seed),
    ]


def _flattering(one: SliceSums) -> float:
    """Hard Dice of a slice, 1 where both masks are empty."""
    size = one.marked + one.true
    return 2 * one.both / size if size else 1.0


def _resampled(
    means: Callable[[NDArray[np.intp]], tuple[float, float]], places: Sequence[NDArray[np.intp]], seed: int
) -> Floats:
    """Both means (2, r) of patients drawn again, the slices of each at `places`, in a new order."""
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(places), (RESAMPLES, len(places)))
    drawn = (np.concatenate([places[i] for i in draw]) for draw in draws)
    result: Floats = np.array([means(random.permutation(slices)) for slices in drawn]).T
    return result
