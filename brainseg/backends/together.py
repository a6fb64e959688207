"""Slices computed side by side, each by one thread.

Threads that share a slice wait for each other after every layer, and the more so while another case is made ready.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import torch

from brainseg.backends.memory import keep_memory
from brainseg.backends.torch import channels_last

Run = Callable[[torch.Tensor], torch.Tensor]  # a slice (1, C, H, W), channels last, to logits (1, 1, H, W)


def together(run: Run, slices: torch.Tensor) -> torch.Tensor:
    """What `run` makes of each of `slices` `(N, C, H, W)`, as `(N, 1, H, W)`.

    A few, at most one for two of torch's threads, are computed one after the other, by all threads.
    """
    keep_memory()
    # Made beforehand: what is kept of each slice would leave holes where the next one's feature maps do not fit.
    logits = slices.new_empty(len(slices), 1, *slices.shape[2:])

    @torch.inference_mode()
    def compute(number: int) -> None:
        logits[number] = run(channels_last(slices[number : number + 1]))[0]

    threads = torch.get_num_threads()
    by_turns = threads == 1 or 2 * len(slices) <= threads
    list((map if by_turns else _workers(threads).map)(compute, range(len(slices))))
    return logits


@lru_cache(maxsize=1)
def _workers(threads: int) -> ThreadPoolExecutor:
    """So many threads, for each of which torch uses itself alone."""
    ready = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first call gives it what is set for all
        torch.set_num_threads(1)
        ready.wait()

    workers = ThreadPoolExecutor(threads, initializer=begin)
    for _ in range(threads):
        workers.submit(lambda: None)
    ready.wait()
    torch.set_num_threads(threads)  # the workers have set it for all threads to come
    return workers
