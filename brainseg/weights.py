"""Weights as a file: read whole, held against a hash and a network, and nothing in it run.

A PyTorch file is a zip with a pickle in it. Before PyTorch sees it, it must be a plain file of a possible size, and a
zip that is whole (it has a checksum a member, which PyTorch does not look at) and holds nothing but tensors.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from brainseg.errors import MachineError, UntrustedBundleError

if TYPE_CHECKING:
    import torch

RESTORE = "restore the weights"
SLACK = 16 * 2**20  # bytes of a file that are no tensor
MOST_STATE = 8 * 2**30  # of a training state: network, mean of networks, optimiser


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; read in pieces, so that its size does not matter."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_weights(
    path: Path, expected: Mapping[str, torch.Tensor], recorded: str | None = None
) -> tuple[dict[str, torch.Tensor], str]:
    """The state_dict in a file and the file's SHA-256.

    Args:
        path: of the weights.
        expected: state_dict of the network that they are for, whose names, shapes and types they get.
        recorded: SHA-256 that the file must have; None where none is known.

    Raises:
        UntrustedBundleError: no file, or one that is damaged, changed, of another network, or no plain state_dict.
        MachineError: the disk or its permissions.
    """
    import torch

    most = SLACK + 2 * sum(value.numel() * max(4, value.element_size()) for value in expected.values())
    content = _content(path, most)
    digest = hashlib.sha256(content).hexdigest()
    if recorded not in (None, digest):
        raise UntrustedBundleError(path, "its SHA-256 is not the recorded one", f"{RESTORE}; they were changed")
    state = _tensors(path, content, most)
    plain = isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())
    if not plain or not all(one.layout is torch.strided and one.device.type == "cpu" for one in state.values()):
        raise UntrustedBundleError(path, "not a plain state_dict", "save network.state_dict() alone")
    wrong = [key for key in expected.keys() | state.keys() if _shape(expected, key) != _shape(state, key)]
    if wrong:
        raise UntrustedBundleError(
            path, f"made for another network ({len(wrong)} of {len(expected)} tensors differ)", "choose its own bundle"
        )
    unsound = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if unsound:
        raise UntrustedBundleError(path, f"holds NaN or infinite values ({unsound[0]})", RESTORE)
    return {key: value.to(expected[key].dtype) for key, value in state.items()}, digest


def read_state(path: Path) -> Any:
    """What a file of tensors, numbers and containers of them holds, such as a training state.

    Raises:
        UntrustedBundleError, MachineError: as `read_weights`.
    """
    return _tensors(path, _content(path, MOST_STATE), MOST_STATE)


def refuse_escape(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses a zip with a member that would land outside of the folder that it is unpacked to.

    Raises:
        UntrustedBundleError: there is one.
    """
    for name in archive.namelist():
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in str(place)[1:2]:
            raise UntrustedBundleError(path, f"holds {name!r}, which would leave its folder", "do not use it")


def _content(path: Path, most: int) -> bytes:
    """The bytes of a plain file of at most so many."""
    try:
        if not path.exists():
            raise UntrustedBundleError(path, "no weights there", "train the bundle, or choose one that ships them")
        if not path.is_file():  # a device or a pipe may never end
            raise UntrustedBundleError(path, "is not a plain file", RESTORE)
        if path.stat().st_size > most:
            cause = f"has {path.stat().st_size / 1e6:.0f} MB, more than such weights can have"
            raise UntrustedBundleError(path, cause, RESTORE)
        return path.read_bytes()
    except OSError as error:
        raise MachineError(path, error.strerror or "cannot be read", "check the disk and permissions") from None


def _tensors(path: Path, content: bytes, most: int) -> Any:
    """What PyTorch finds in `content`, which may not hold more than `most` bytes unpacked."""
    import torch

    damaged = UntrustedBundleError(path, "damaged or not a PyTorch file", RESTORE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            refuse_escape(path, archive)
            if any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist()):
                raise UntrustedBundleError(path, "is TorchScript, which is code", "save network.state_dict() alone")
            if sum(info.file_size for info in archive.infolist()) > most:
                raise UntrustedBundleError(path, "would unpack to more than such weights can have", RESTORE)
            if archive.testzip() is not None:
                raise damaged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols, on the way to an error
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UntrustedBundleError:
        raise
    except pickle.UnpicklingError:
        raise UntrustedBundleError(path, "holds more than tensors", "use a plain state_dict") from None
    except (zipfile.BadZipFile, NotImplementedError, zlib.error):
        raise damaged from None
    except MemoryError:
        raise
    except Exception:  # whatever a damaged pickle leads PyTorch to
        raise damaged from None


def _shape(state: Mapping[str, torch.Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if key in state else None
