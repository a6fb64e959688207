"""Options that several commands share."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from brainseg.backends import BACKENDS

if TYPE_CHECKING:
    from brainseg.study import Patient

Command = TypeVar("Command", bound=Callable[..., Any])

existing_path = click.Path(exists=True, readable=False, path_type=Path)  # what may not be read is no usage error
any_path = click.Path(path_type=Path)

out_option = click.option("--out", type=any_path, required=True, help="Folder for the results.")
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where the network runs."
)
backend_option = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What runs the network: torch is the reference, auto the fastest that agrees with it.",
)
bundle_option = click.option(
    "--bundle", default=None, metavar="NAME|PATH", help="A shipped bundle, or a run of `brainseg train`."
)


def given(option: str) -> bool:
    """Whether the running command was given this option, rather than its default."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def warn_of_slices_alone(patients: Sequence[Patient]) -> None:
    """Says, once, where a split by patient cannot be one."""
    from brainseg.slice_split import NO_PATIENT

    if any(patient.alone for patient in patients):
        click.echo(f"warning: {NO_PATIENT}; the figshare set's own .mat files keep the patient", err=True)


def verbosity(command: Command) -> Command:
    """Adds -q and -v, and sets logging up before the command runs; the command itself receives `quiet`."""

    @click.option("-q", "--quiet", is_flag=True, help="Only errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Say what is done; keep tracebacks.")
    @wraps(command)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        set_up_logging(quiet, verbose)
        return command(*args, quiet=quiet, **kwargs)

    return wrapped  # type: ignore[return-value]


def set_up_logging(quiet: bool, verbose: bool) -> None:
    """brainseg's own log on stderr; that of the libraries, and their warnings, only with -v."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING if verbose else logging.CRITICAL, force=True)
    logging.getLogger("brainseg").setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("brainseg")
    logger.handlers = [handler]
    logger.propagate = False
    if not verbose:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
