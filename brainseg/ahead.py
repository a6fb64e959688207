"""`map`, one item ahead of who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


def ahead(function: Callable[[Given], Result], items: Iterable[Given]) -> Iterator[Result]:
    """As `map(function, items)`, but while the caller has one result the next is made, in a thread of its own.

    `items` is asked in that thread too. What it or `function` raises is raised in that item's turn, and is the end.
    """
    made = map(function, items)

    def following() -> list[Result]:
        return list(islice(made, 1))

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(following)
        while result := coming.result():
            coming = thread.submit(following)
            yield result.pop()
