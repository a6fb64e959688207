"""Progress: a bar on a terminal, plain lines elsewhere, nothing with -q."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Advance = Callable[[str], None]


@contextmanager
def progress(label: str, total: int, *, quiet: bool) -> Iterator[Advance]:
    """A function to call with one line of text for each of `total` items done."""
    if quiet:
        yield lambda line: None
        return
    if not sys.stderr.isatty():
        done, started = 0, time.monotonic()

        def plain(line: str) -> None:
            nonlocal done
            done += 1
            left = (time.monotonic() - started) * (total - done) / done
            click.echo(f"{label} {done}/{total}  {line}" + (f"  (about {_duration(left)} left)" if left > 30 else ""))

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)

        def advance(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False)
            bar.advance(task)

        yield advance


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever a person would say."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
