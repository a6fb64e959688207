"""A cohort on the workers of a dask scheduler that exists: the same steps as on one machine, the same results.

The scheduler hands a case to another worker when one is lost. What a lost worker left half-done is done again, because
a case counts as done only when its record is written. Every worker reads in a process of its own: a scan that
crashed the worker itself would count against the cases that wait there.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from brainseg.casework import Loaded, attempt, finish, load, segmented
from brainseg.errors import BrainsegError, MachineError, UsageError
from brainseg.guarded import GuardedReader
from brainseg.job import Job, Options, bundles_of
from brainseg.results import Done, Failed
from brainseg.writers.atomic import remove_partials

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

CONNECT_SECONDS = 10
_network = threading.Lock()


def on_cluster(
    address: str, jobs: Sequence[Job], bundles: Sequence[Bundle], out: Path, options: Options
) -> Iterator[tuple[Job, Done | Failed]]:
    """The result of every job, as the workers of the scheduler at `address` finish them.

    Args:
        address: such as tcp://host:8786.
        jobs: whose files every worker sees under the same paths.
        bundles: as opened here; a worker whose weights differ refuses.
        out: folder that every worker sees under the same path.
        options: of the cohort.

    Raises:
        UsageError: dask is not installed, or no scheduler answers.
        MachineError: a worker cannot write, or is not like this machine.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise UsageError("--cluster", "needs dask", 'pip install "brainseg[cluster]"') from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError("--cluster", f"no scheduler answers at {address} ({error})", "check the address") from None
    expected = networks(bundles)
    with client:
        futures = {client.submit(work_on, job, expected, out, options, pure=False): job for job in jobs}
        try:
            for future in as_completed(list(futures), loop=client.loop):
                job = futures[future]
                try:
                    yield job, future.result()
                except KilledWorker:
                    cause, remedy = "one worker after another died of it", "give the workers more memory"
                    yield job, Failed.of(job.patient.name, job.shown, BrainsegError(job.shown, cause, remedy))
        finally:
            client.cancel(list(futures))


def networks(bundles: Sequence[Bundle]) -> tuple[tuple[str, str], ...]:
    """Weights and engine of each bundle: workers of which one has others would give other results."""
    return tuple((bundle.weights_sha256, bundle.engine.name) for bundle in bundles)


def work_on(job: Job, expected: Sequence[tuple[str, str]], out: Path, options: Options) -> Done | Failed:
    """One case on a worker, which opens the bundles for its first case only.

    Raises:
        MachineError: if this worker's `networks` are not those `expected`, or it cannot write.
    """
    bundles = _opened(
        options.bundle, options.ensemble, options.device, options.backend, options.threshold, options.trust_bundle
    )
    theirs = networks(bundles)
    if [weights for weights, _ in theirs] != [weights for weights, _ in expected]:
        raise MachineError("--cluster", "a worker has other weights", "install one version of brainseg everywhere")
    if theirs != tuple(expected):
        there, here = theirs[0][1], expected[0][1]
        raise MachineError("--cluster", f"a worker would run {there}, not {here}", "pass --backend torch --device cpu")
    remove_partials(out / job.patient.name)  # of a worker that was lost at this case
    loaded = attempt(job, load, job, bundles, out, options, _reader())
    if not isinstance(loaded, Loaded):
        return loaded
    with _network:  # a worker may have several threads, and one network
        result = attempt(job, segmented, loaded, bundles, options)
    return result if isinstance(result, Failed) else attempt(job, finish, loaded, result, bundles, out, options)


@lru_cache(maxsize=1)
def _reader() -> GuardedReader:
    """A worker's own, which ends with it."""
    reader = GuardedReader()
    atexit.register(reader.close)
    return reader


@lru_cache(maxsize=1)
def _opened(
    bundle: str | None, ensemble: bool, device: str, backend: str, threshold: float | None, trust_bundle: bool
) -> tuple[Bundle, ...]:
    return tuple(
        bundles_of(
            Options(
                bundle=bundle,
                ensemble=ensemble,
                device=device,
                backend=backend,
                threshold=threshold,
                trust_bundle=trust_bundle,
            )
        )
    )
