"""Slices side by side: who computes them, and that torch's threads are as before."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Thread, get_ident

import pytest
import torch

from brainseg.backends.together import together


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_a_new_thread() -> int:
    found: list[int] = []
    thread = Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_slices_stay_in_order_and_each_is_one_threads_while_torch_keeps_its_own() -> None:
    slices = torch.arange(24.0).reshape(6, 1, 2, 2)
    seen: list[tuple[int, int, bool]] = []
    both = Barrier(2)

    def run(one: torch.Tensor) -> torch.Tensor:
        both.wait(60)  # for the other: two are under way at a time
        seen.append((get_ident(), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return one + 1

    assert torch.equal(together(run, slices), slices + 1)
    assert {threads for _, threads, _ in seen} == {1}
    assert all(inference for *_, inference in seen)
    assert get_ident() not in {ident for ident, *_ in seen}
    assert (torch.get_num_threads(), in_a_new_thread()) == (2, 2)


def test_a_slice_alone_has_all_threads() -> None:
    seen: list[int] = []
    together(lambda one: seen.append(torch.get_num_threads()) or one, torch.zeros(1, 1, 2, 2))
    assert seen == [2]


def test_what_a_slice_raises_is_raised() -> None:
    def run(one: torch.Tensor) -> torch.Tensor:
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        together(run, torch.zeros(3, 1, 2, 2))
