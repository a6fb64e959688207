"""`brainseg app` as a process of its own, for the tests that need its page."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")

# What the server would ask of a network, or of a name server, is said on stderr, which must stay silent.
SERVER = """
import sys
asks = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}
sys.addaudithook(lambda event, args: event in asks and print(event, args[-1], file=sys.stderr))
from brainseg.cli import main
main()
"""


@contextmanager
def served(temporary: Path) -> Iterator[str]:
    """The address of a page whose server has `temporary` for its temporary files; SIGTERM ends it with the block.

    The server must have asked nothing of any network, and end as Ctrl-C would end it.
    """
    arguments = [sys.executable, "-c", SERVER, "app", "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary)}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process.stdout.readline().decode().partition(" ")[0]
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait(timeout=60)
            said = process.stderr.read().decode().strip()
    assert (ended, said) == (130, "interrupted")


def files_under(folder: Path) -> list[str]:
    """Names of the files anywhere in `folder`."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
