"""`kill -9` at a few moments, then the same command again; scripts/kill_harness.py does more of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).resolve().parents[1] / "scripts" / "kill_harness.py"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills and forks")
@pytest.mark.parametrize("command", ["segment", "train"])
def test_a_killed_run_given_again_leaves_what_one_left_in_peace_does(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--points", "3", "--work", str(tmp_path / "work"), command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = [line for line in done.stdout.splitlines() if line.endswith(" yes |")]
    assert (len(rows), done.returncode) == (3, 0), done.stdout + done.stderr[-2000:]
    assert "0 moments with a difference" in done.stdout
