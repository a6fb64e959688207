"""The table of faults at the end of a test run, by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest


@dataclass
class Tally:
    """Of one group: its cases, those that had their outcome, and what must stay at 0."""

    cases: int = 0
    passed: int = 0
    tracebacks: int = 0
    partial: int = 0


TABLE = pytest.StashKey[dict[str, Tally]]()


def lines(table: Mapping[str, Tally]) -> list[str]:
    """The table as aligned text, with a row for all groups together."""
    every = [*table.items(), ("all", total(table))]
    rows = [("group", "cases", "as listed", "tracebacks", "partial outputs")]
    rows += [(name, str(t.cases), str(t.passed), str(t.tracebacks), str(t.partial)) for name, t in every]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def total(table: Mapping[str, Tally]) -> Tally:
    counts = [(one.cases, one.passed, one.tracebacks, one.partial) for one in table.values()]
    return Tally(*map(sum, zip(*counts, strict=True)))
