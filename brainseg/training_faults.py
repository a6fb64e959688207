"""What stops a training that is no fault of the training: a GPU without memory, a disk that is full."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brainseg.errors import MachineError, UntrustedBundleError
from brainseg.weights import read_state
from brainseg.writers.atomic import of_machine

log = logging.getLogger(__name__)
LOUD = (
    "monai.handlers.StatsHandler",
    "ignite.handlers.terminate_on_nan.TerminateOnNan",
)  # loggers that print on their own


@contextmanager
def faults_of_machine(root: Path) -> Iterator[None]:
    """Says of a GPU without memory and of a full disk what they are; of these PyTorch makes errors of its own.

    What MONAI and ignite print of an error, with its traceback, is left out unless with -v.

    Raises:
        MachineError: in place of such an error.
    """
    import torch

    def progress_alone(record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING or log.isEnabledFor(logging.DEBUG)

    loggers = [logging.getLogger(name) for name in LOUD]
    for logger in loggers:
        logger.addFilter(progress_alone)
    try:
        yield
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # MONAI wraps what a config's expression raises
            cause = cause.__cause__
        if isinstance(cause, torch.cuda.OutOfMemoryError):
            remedy = "lower batch_size or slices_per_patient, or free the GPU; then --resume"
            raise MachineError(root, "the GPU is out of memory", remedy) from error
        if isinstance(cause, OSError) and (machine := of_machine(cause, root)) is not None:
            raise machine from error
        if "PytorchStreamWriter" not in str(cause) and "unexpected pos" not in str(cause):
            raise
        for partial in (root / "models").glob("*.pt"):
            try:
                read_state(partial)
            except UntrustedBundleError:
                partial.unlink()
        raise MachineError(root, "a checkpoint could not be written", "free some space; then --resume") from error
    finally:
        for logger in loggers:
            logger.removeFilter(progress_alone)
