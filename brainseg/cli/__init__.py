"""The command line: one file a command, no logic; whatever is slow to import is imported inside the commands."""

from __future__ import annotations

import logging
import sys

import click

from brainseg import __version__
from brainseg.cli.app import app
from brainseg.cli.bundle import bundle
from brainseg.cli.compare import compare
from brainseg.cli.data import data
from brainseg.cli.demo import demo
from brainseg.cli.evaluate import evaluate
from brainseg.cli.follow import follow
from brainseg.cli.report import report
from brainseg.cli.saliency import saliency
from brainseg.cli.segment import segment
from brainseg.cli.train import train
from brainseg.errors import BrainsegError, MachineError, bug_place, bug_trace, one_line

INTERRUPTED = 130
BUG = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="brainseg")
def cli() -> None:
    """Measure FLAIR abnormality (lower-grade glioma) in brain MRI. Research use only; never a diagnosis."""


for command in (demo, segment, report, follow, app, train, evaluate, compare, saliency, data, bundle):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; ends the process with the exit code of DESIGN's contract.

    0 all done, 2 usage, 3 none succeeded, 4 some failed, 5 environment, 6 untrusted model, 130 interrupted.
    """
    try:
        code = cli.main(arguments, prog_name="brainseg", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        _show(error)
        sys.exit(error.exit_code)
    except BrainsegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError:
        click.echo("error: memory: not enough; use a smaller volume, or a machine with more", err=True)
        sys.exit(MachineError.exit_code)
    except Exception as error:
        from brainseg.writers.atomic import refused_by_machine

        if isinstance(error, OSError) and (machine := refused_by_machine(error)) is not None:
            click.echo(f"error: {machine}", err=True)
            sys.exit(machine.exit_code)
        if logging.getLogger("brainseg").isEnabledFor(logging.DEBUG):
            click.echo(bug_trace(error), err=True)
        click.echo(f"error: brainseg: {bug_place(error)}; this is a bug, -v shows how it came there", err=True)
        sys.exit(BUG)
    sys.exit(code if isinstance(code, int) else 0)


def _show(error: click.ClickException) -> None:
    """One line on what was typed wrongly; the help where nothing was."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "brainseg"
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
    else:
        click.echo(f"error: {where}: {one_line(error.format_message()).rstrip('.')}; see {where} --help", err=True)
