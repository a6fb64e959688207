"""`map`, one item ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from brainseg.ahead import ahead


def test_every_item_arrives_in_its_order() -> None:
    assert list(ahead(lambda n: n * n, range(7))) == [0, 1, 4, 9, 16, 25, 36]
    assert list(ahead(str, [])) == []
    assert list(ahead(bool, [0, 1, 0])) == [False, True, False]  # results that are false end nothing


def test_the_next_is_made_while_the_caller_has_one() -> None:
    begun = [threading.Event() for _ in range(3)]

    def make(n: int) -> int:
        begun[n].set()
        return n

    results = ahead(make, range(3))
    assert next(results) == 0
    assert begun[1].wait(10)
    assert not begun[2].is_set()
    assert list(results) == [1, 2]


def test_what_goes_wrong_is_raised_in_its_turn_and_is_the_end() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    results = ahead(lambda n: n, items())
    assert next(results) == 1
    with pytest.raises(OSError, match="gone"):
        next(results)
    assert list(results) == []


def test_a_caller_may_stop_early() -> None:
    results = ahead(lambda n: n, iter(range(100)))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []
