"""scripts/calibrate.py: the temperature that made the counts is found, and makes the error vanish."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

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
    thresholds = CALIBRATE["THRESHOLDS"].tolist()
    scores = np.full((2, len(thresholds)), 0.5)
    scores[0, 0], scores[1, -1] = 0.9, 0.8  # each alone would choose its own
    scores[1, thresholds.index(0.5)] = 0.52  # in use
    report = CALIBRATE["report"]("runs", np.stack([counts(1.0)] * 2), scores, np.array([0.1, 0.2]), 1.0, 0.5)
    assert "| mean Dice over thresholds | 0.5100 | 0.5000 |" in report
    assert "temperature 1.00, threshold 0.10." in report


def slices(seed: int, slope: float, offset: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Truth and highest probability of a patient whose slices hold tumour as often as slope and offset say."""
    random = np.random.default_rng(seed)
    highest = expit(random.normal(0, 3, n))
    return random.uniform(size=n) < expit(slope * np.log(highest / (1 - highest)) + offset), highest


def test_slope_and_offset_of_the_slices_are_found() -> None:
    assert CALIBRATE["best_presence"]([slices(0, 1.5, -2.0), slices(1, 1.5, -2.0)]) == pytest.approx(
        (1.5, -2), abs=0.15
    )


def test_each_half_is_judged_by_what_suits_the_other() -> None:
    """The halves need opposite offsets, so what suits one is wrong for the other; either alone would look perfect."""
    report = CALIBRATE["presence_report"]([slices(0, 1.0, 2.0), slices(1, 1.0, -2.0)], (1.0, 2.0))
    rows = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in report.splitlines() if line[:1] == "|"}
    assert float(rows["- of the first half, by the second"]) > 0.2
    assert float(rows["- of the second half, by the first"]) > 0.2


def test_patients_that_trained_a_bundle_are_not_among_those_it_is_judged_on(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "training.json").write_text('{"trained_on": ["a", "b"], "validated_on": ["b", "c"]}')
    assert set(CALIBRATE["unseen"](SimpleNamespace(root=tmp_path))) == {"c"}
