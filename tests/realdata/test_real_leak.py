"""The leak alarm on the real set: what a split by slice gives to a predictor that never looks at a pixel."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from brainseg import slice_scores
from brainseg.leak import copied_mask
from brainseg.slice_scores import slice_figures, slice_sums
from brainseg.slice_split import split_by_slice

LGG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "lgg"
SIDE = 256

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not LGG.is_dir(), reason="the real data set (../shared/data) is not here"),
]


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    """Every patient's mask (X, Y, Z), read without its images: packed bits, and no file for an empty slice."""
    found = {}
    for archive in sorted(LGG.glob("TCGA_*.zip")):
        with zipfile.ZipFile(archive) as content:
            names = content.namelist()
            mask = np.zeros((SIDE, SIDE, sum(name.endswith(".jxl") for name in names)), bool)
            for name in (name for name in names if name.endswith(".mask")):
                bits = np.frombuffer(zlib.decompress(content.read(name)), np.uint8)
                mask[..., int(name.split(".")[0]) - 1] = np.unpackbits(bits).reshape(SIDE, SIDE).T
        found[archive.stem] = mask
    return found


def alarm(masks: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """The alarm's figures under A over the test slices of one split."""
    slices = {
        f"{patient}/{patient}_{z + 1}.tif": (patient, z)
        for patient, mask in masks.items()
        for z in range(mask.shape[2])
    }
    split = split_by_slice(list(slices), seed=seed)
    training: dict[str, list[int]] = {patient: [] for patient in masks}
    for patient, z in map(slices.__getitem__, split.training):
        training[patient].append(z)
    sums = []
    for name in split.test:
        patient, z = slices[name]
        truth = masks[patient]
        sums.append(slice_sums(patient, name, truth[..., z], copied_mask(truth, z, training[patient])))
    return {figure.metric: figure.value for figure in slice_figures(sums, "A")}


def test_alarm_scores_078_under_a_and_080_over_all_slices_together(
    masks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_scores, "RESAMPLES", 10)  # the intervals are tested elsewhere
    splits = [alarm(masks, seed) for seed in range(5)]
    mean = {metric: float(np.mean([figures[metric] for figures in splits])) for metric in splits[0]}
    print("leak alarm, 5 seeds:", ", ".join(f"{metric} {value:.3f}" for metric, value in mean.items()))
    assert mean["soft Dice"] == pytest.approx(0.78, abs=0.02)
    assert mean["hard Dice, all slices together"] == pytest.approx(0.80, abs=0.02)
    assert 0.6 < mean["hard Dice a patient"] < 0.7
