"""scripts/calibrate.py: the temperature that made the counts is found, and makes the error vanish."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

CALIBRATE = runpy.run_path(str(Path(__file__).resolve().parents[1] / "scripts" / "calibrate.py"))


def counts(temperature: float, voxels: float = 1000.0) -> np.ndarray:
    """Voxels inside and outside the truth whose logits are too large by `temperature`."""
    share = expit(CALIBRATE["MIDDLES"] / temperature)
    return voxels * np.stack([share, 1 - share])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_the_temperature_of_the_counts_is_found(temperature: float) -> None:
    assert CALIBRATE["best_temperature"](counts(temperature)) == pytest.approx(temperature, abs=0.01)


def test_error_vanishes_at_the_right_temperature_only() -> None:
    error, binned = CALIBRATE["error"], CALIBRATE["binned"]
    assert error(binned(counts(2.0), 2.0)) < 1e-12
    assert error(binned(counts(2.0), 1.0)) > 0.02


def test_a_patient_is_never_scored_by_what_suits_himself() -> None:
    """Of two patients each gets the other's best threshold."""
    scores = np.full((2, len(CALIBRATE["THRESHOLDS"])), 0.5)
    scores[0, 0], scores[1, -1] = 0.9, 0.8  # each alone would choose its own
    scores[1, 6] = 0.52  # at the threshold in use
    report = CALIBRATE["report"]("runs", np.stack([counts(1.0)] * 2), scores, np.array([0.1, 0.2]), 1.0, 0.5)
    assert "| mean Dice over thresholds | 0.5100 | 0.5000 |" in report
    assert "temperature 1.00, threshold 0.20." in report
