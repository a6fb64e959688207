"""Files with bytes and fields changed at random: each is read or refused in one line; none crashes or hangs.

`scripts/fuzz.py` does the same with thousands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from mutants.seeds import SEEDS
from mutants.trial import trials

from brainseg.guarded import GuardedReader

EACH = 29


@pytest.fixture(scope="module")
def reader() -> Iterator[GuardedReader]:
    with GuardedReader() as reader:
        yield reader


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_file_is_read_or_refused_in_one_line(
    name: str, reader: GuardedReader, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    outcomes = Counter(trial.outcome for _, _, trial in trials(name, range(EACH), 1, reader))
    assert outcomes["read"] + outcomes["refused"] == EACH
    assert outcomes["refused"] >= 5
    assert capfd.readouterr() == ("", "")
