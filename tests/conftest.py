"""What the whole test run says at its end."""

from __future__ import annotations

import pytest
from faults.table import TABLE, lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(TABLE, None)
    if table:
        terminalreporter.section("faults and their outcomes")
        for line in lines(table):
            terminalreporter.write_line(line)
