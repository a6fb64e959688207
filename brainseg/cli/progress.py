"""Progress: a bar on a terminal, plain lines elsewhere, nothing with -q."""

from __future__ import annotations

import sys
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
        done = 0

        def plain(line: str) -> None:
            nonlocal done
            done += 1
            click.echo(f"{label} {done}/{total}  {line}")

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
