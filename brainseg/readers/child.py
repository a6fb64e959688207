"""What the reading process runs: it answers the requests of `brainseg.guarded` until their sender is gone.

A request is a pickle (the parent's own words). It is answered twice, when it has begun and when it is done, each time
with the length of a JSON object, the object, and the bytes of the array that it announces. Replies hold no pickle: this
process decodes hostile files, and its parent need not trust it.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from brainseg import readers
from brainseg.case import CHANNELS, Case
from brainseg.errors import BrainsegError
from brainseg.study import matlab

Reply = tuple[dict[str, Any], list[NDArray[Any]]]
LENGTH_BYTES = 8
PREPARE = "prepare"
MODULES = {  # what takes time to import, by the layout of what is to be read
    "nifti": ("brainseg.readers.nifti", "scipy.ndimage"),
    "dicom": ("brainseg.readers.dicom", "scipy.ndimage"),
    "itk": ("brainseg.readers.itk_formats", "scipy.ndimage"),
    "tiff": ("brainseg.readers.tiff",),
    "picture": ("brainseg.readers.pictures",),
    "matlab": ("brainseg.readers.pictures",),
}
FIRST_TO_GO = "500"  # where memory runs out all the same, this process is ended, and not the one that has the results


def main() -> None:
    """Serves requests from standard input; `sys.argv[-1]` is the most memory in bytes that may be taken, 0 for any."""
    requests, replies = _channels()
    _limit_memory(int(sys.argv[-1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with suppress(EOFError, BrokenPipeError):
        while True:
            call, args, kwargs = pickle.load(requests)
            if call == PREPARE:
                _prepare(*args)
                continue
            _end_with_sender(requests)
            _send(replies, ({"begun": True}, []))
            reply = _answer(call, args, kwargs)
            _await_requests()  # before the sender can know that it may send the next
            _send(replies, reply)


def _prepare(layouts: Iterable[str]) -> None:
    """Imports what will be needed, while nobody waits for it; this is not answered."""
    for layout in layouts:
        for module in MODULES[layout]:
            with suppress(ImportError):  # whoever asks for it will be told
                import_module(module)


def _channels() -> tuple[IO[bytes], IO[bytes]]:
    """Where requests come from and replies go to; what a library prints goes nowhere."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    return requests, replies


def _limit_memory(most_bytes: int) -> None:
    """The cap on memory, where the system has one; and no core dump, which would hold a patient's scan."""
    if sys.platform == "win32":
        return
    import resource

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):
        if most_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)


def _end_with_sender(requests: IO[bytes]) -> None:
    """From here on the system ends this process when the sender is gone, also inside a decoder that never returns.

    The sender waits for the reply, so that nothing can happen to its end of the pipe but its being closed.
    """
    if sys.platform == "win32":
        return
    import fcntl
    import select

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(requests, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(requests, fcntl.F_SETFL, fcntl.fcntl(requests, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([requests], [], [], 0)[0]:  # it went before that
        raise EOFError


def _await_requests() -> None:
    """From here on what comes through the pipe is no reason to end."""
    if sys.platform != "win32":
        signal.signal(signal.SIGIO, signal.SIG_IGN)


def _answer(call: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reply:
    try:
        return CALLS[call](*args, **kwargs)
    except BrainsegError as known:
        return {"error": type(known).__name__, "said": [known.where, known.cause, known.remedy]}, []
    except MemoryError:
        return {"memory": True}, []
    except Exception as bug:
        return {"bug": f"{type(bug).__name__}: {bug}", "traceback": traceback.format_exc()}, []


def _case(*args: Any, **kwargs: Any) -> Reply:
    return packed(readers.read_patient(*args, **kwargs))


def packed(case: Case) -> Reply:
    """A case as a reply: FLAIR and the channels that are no copies of it."""
    channels = [channel for channel, name in enumerate(CHANNELS) if name not in case.missing]
    said = {
        "name": case.name,
        "shape": case.image.shape,
        "channels": channels,
        "affine": case.affine.tolist(),
        "spacing_mm": case.spacing_mm,
        "layout": case.layout,
        "files": [str(file) for file in case.files],
        "missing": case.missing,
        "notes": case.notes,
        "finer": case.finer,
        "apart": case.apart,
    }
    return said, [case.image[channel] for channel in channels]


def _ground_truth(*args: Any) -> Reply:
    mask = readers.read_ground_truth(*args)
    if mask is None:
        return {"shape": None}, []
    return {"shape": mask.shape}, [np.ascontiguousarray(mask)]


def _matlab_header(file: Path) -> Reply:
    header = matlab.read_header(file)
    return {"pid": header.pid.hex(), "shape": header.shape, "mask": header.mask}, []


CALLS: dict[str, Callable[..., Reply]] = {
    "read_patient": _case,
    "read_ground_truth": _ground_truth,
    "matlab_header": _matlab_header,
}


def _send(replies: IO[bytes], reply: Reply) -> None:
    said, arrays = reply
    header = json.dumps(said).encode()
    parts: list[Any] = [len(header).to_bytes(LENGTH_BYTES, "little"), header]
    for part in [*parts, *(array.data.cast("B") for array in arrays)]:
        view = memoryview(part)
        while view:
            view = view[replies.write(view) :]
