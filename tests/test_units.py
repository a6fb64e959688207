"""What volumes look like."""

from __future__ import annotations

import pytest

from brainseg.units import millilitres


@pytest.mark.parametrize(
    ("volume", "shown"),
    [(0, "0.0"), (0.0324, "0.032"), (-0.0005, "-0.00050"), (0.96, "0.96"), (1.26, "1.3"), (123.44, "123.4")],
)
def test_a_small_volume_is_not_shown_as_nothing(volume: float, shown: str) -> None:
    assert millilitres(volume) == shown


def test_more_decimals_and_a_sign_where_they_are_asked_for() -> None:
    assert millilitres(12.346, 2) == "12.35"
    assert millilitres(0.0042, 2) == "0.0042"
    assert millilitres(3, signed=True) == "+3.0"
