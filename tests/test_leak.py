"""The leak alarm copies the nearest training mask and looks at nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from brainseg.leak import copied_mask, nearest


@pytest.mark.parametrize(
    ("index", "training", "expected"),
    [(5, [1, 4, 9], 4), (5, [9, 7, 0], 7), (5, [6, 4], 4), (0, [3], 3), (5, [5, 4], 5), (5, [], None)],
)
def test_nearest_training_slice_is_the_lower_of_two_equally_close(
    index: int, training: list[int], expected: int | None
) -> None:
    assert nearest(index, training) == expected


def test_mask_of_the_nearest_training_slice_is_copied() -> None:
    truth = np.zeros((2, 2, 4), np.uint8)
    truth[0, 0, 1] = truth[1, 1, 2] = truth[0, 1, 3] = 1
    np.testing.assert_array_equal(copied_mask(truth, 2, [0, 3]), [[0, 1], [0, 0]])
    np.testing.assert_array_equal(copied_mask(truth, 2, [0, 1]), [[1, 0], [0, 0]])


def test_nothing_is_predicted_for_a_patient_without_a_training_slice() -> None:
    assert not copied_mask(np.ones((2, 2, 4), np.uint8), 2, []).any()
