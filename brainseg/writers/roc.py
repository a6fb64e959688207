"""roc.csv and roc.png: how well slices and patients with and without tumour are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainseg.scores import CaseScores
from brainseg.statistics import Figure, detection, roc_curve
from brainseg.writers.atomic import replacing
from brainseg.writers.charts import roc_figure
from brainseg.writers.overlay import figure_png
from brainseg.writers.tables import write_table

COLUMNS = ("of", "threshold", "sensitivity", "specificity")
DPI = 100


def write_roc(folder: Path, scores: Sequence[CaseScores], figures: Sequence[Figure]) -> None:
    """Writes both to `folder`; `figures` are those of `statistics.summarise` of the same `scores`.

    A row of roc.csv is a threshold of the highest probability of a slice (a patient); what is not defined is blank.
    """
    curves = {of: roc_curve(*known) for of, known in detection(scores).items()}
    rows = [(of, *map(float, row)) for of, curve in curves.items() for row in zip(*curve, strict=True)]
    write_table(folder / "roc.csv", COLUMNS, rows)
    content = figure_png(roc_figure(curves, figures), DPI)
    with replacing(folder / "roc.png") as temporary:
        temporary.write_bytes(content)
