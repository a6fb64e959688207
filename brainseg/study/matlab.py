"""The figshare brain tumour set as it was published: `<number>.mat`, MATLAB 7.3 (HDF5), one slice and its mask a file.

Each holds a struct `cjdata` with `image`, `tumorMask` and `PID`, the patient. The files of one PID are one patient,
whatever folders they lie in. The PID itself goes into no name and no message: a patient is `figshare_0017` where 17 is
the lowest of its slice numbers, which no other patient of the set can have, also where only a part of it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainseg.errors import BrainsegError, InputError, MachineError
from brainseg.study.names import Found, natural
from brainseg.study.patient import Patient, Series
from brainseg.study.walk import MATLAB, Folder

STRUCT, IMAGE, MASK, PID = "cjdata", "image", "tumorMask", "PID"
LONGEST_SIDE = 8192
LONGEST_PID = 64
WHY = "slices of one patient in MATLAB files, which do not tell their planes; each taken for an axial FLAIR by itself"
AGAIN = "download it again"


@dataclass(frozen=True)
class Header:
    """What one file says without its pixels.

    Attributes:
        pid: to tell two patients apart; kept out of every message, name and repr.
        shape: (X, Y) of the image.
    """

    file: Path
    pid: bytes = field(repr=False)
    shape: tuple[int, int]
    mask: bool


ReadHeader = Callable[[Path], Header]


def find(root: Path, folders: Sequence[Folder], header_of: ReadHeader) -> list[Found]:
    """The patients whose slices lie in `folders`, which are those under `root`; a damaged file is one of its own."""
    files = [
        folder.path / name
        for folder in folders
        for name in folder.others
        if name.lower().endswith(MATLAB) and Path(name).stem.isdecimal()
    ]
    files.sort(key=lambda file: (int(file.stem), natural(file)))
    headers: dict[bytes, list[Header]] = {}
    found = []
    for file in files:
        try:
            header = header_of(file)
        except InputError as error:
            if _lacks_h5py(error):
                return [_found(root, [file], error)]
            found.append(_found(file, [file], error))
        else:
            headers.setdefault(header.pid, []).append(header)
    return [_patient(root, own) for own in headers.values()] + found


def find_one(file: Path, header_of: ReadHeader) -> list[Found]:
    """The slice that is a single file."""
    header = header_of(file)
    series = Series("matlab", (file,), description=file.name)
    return [Found(Patient("", file, series, masks=(file,) if header.mask else (), why=WHY), (file.stem,))]


def read_header(file: Path) -> Header:
    """Size and patient of a slice.

    Raises:
        InputError: if the file is damaged, or of another kind, or h5py is not installed.
        MachineError: if it may not be read.
    """
    with opened(file) as struct:
        x, y = dataset(file, struct, IMAGE).shape
        pid = dataset(file, struct, PID, most=LONGEST_PID)[()].tobytes()
        return Header(file, pid, (int(x), int(y)), MASK in struct)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The struct of a file, as an h5py group; and whatever is raised while it is read, as an InputError."""
    try:
        import h5py
    except ImportError:
        raise InputError(file, "is a MATLAB file, which needs the package h5py", "pip install h5py") from None
    try:
        with h5py.File(file, "r") as content:
            struct = content.get(STRUCT, getlink=True)
            if not isinstance(struct, h5py.HardLink) or not isinstance(content[STRUCT], h5py.Group):
                raise InputError(file, f"holds no struct {STRUCT}", "give the figshare set's own files, or PNG slices")
            yield content[STRUCT]
    except BrainsegError:
        raise
    except PermissionError as error:
        raise MachineError(file, f"cannot be read ({error.strerror})", "check its permissions") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything
        cause = f"is not a MATLAB 7.3 (HDF5) file that can be read ({type(error).__name__})"
        raise InputError(file, cause, f"{AGAIN}, or save it with -v7.3") from None


def dataset(file: Path, struct: Any, name: str, *, most: int | None = None) -> Any:
    """A field of the struct as an h5py dataset that lies in this very file, not yet read.

    Args:
        most: how many values it may hold at most; without it, it must be an image of (X, Y).

    Raises:
        InputError: if it is not there, refers to another file, holds no numbers or too many.
    """
    import h5py

    if not isinstance(struct.get(name, getlink=True), h5py.HardLink) or not isinstance(struct[name], h5py.Dataset):
        raise InputError(file, f"holds no {name} in {STRUCT}", AGAIN)
    values = struct[name]
    if values.is_virtual or values.external:
        raise InputError(file, f"keeps its {name} in another file", "give the figshare set's own files")
    declared = " x ".join(map(str, values.shape or ()))
    if values.dtype.kind not in "biuf":
        raise InputError(file, f"has a {name} that is not of numbers", AGAIN)
    if most is not None:
        if not 0 < values.size <= most:
            raise InputError(file, f"has a {name} of {declared} values", AGAIN)
    elif values.ndim != 2 or not all(1 < side <= LONGEST_SIDE for side in values.shape):
        raise InputError(
            file, f"has an {name} of {declared or 'no'} pixels, not a slice of up to {LONGEST_SIDE}", AGAIN
        )
    return values


def _patient(root: Path, slices: Sequence[Header]) -> Found:
    """The patient of these slices, in order of number; those that are not of its most common size are left out."""
    (shape, count), *_ = Counter(one.shape for one in slices).most_common(1)
    kept = [one for one in slices if one.shape == shape]
    why = WHY
    if count < len(slices):
        left = ", ".join(one.file.name for one in slices if one.shape != shape)
        why = f"{why}; left out, as of another size than {shape[0]} x {shape[1]}: {left}"
    files = [one.file for one in kept]
    masks = tuple(files) if all(one.mask for one in kept) else ()
    patient = Patient(
        "",
        files[0].parent if len({file.parent for file in files}) == 1 else root,
        Series("matlab", tuple(files), description=files[0].name),
        masks=masks,
        why=why,
        skipped=len(slices) - count,
    )
    return Found(patient, (root.resolve().name, *_between(root, slices[0].file), _name(slices[0].file)))


def _found(path: Path, files: Sequence[Path], problem: InputError) -> Found:
    series = Series("matlab", tuple(files), description=files[0].name)
    return Found(Patient("", path, series, masks=tuple(files), why=WHY, problem=problem), (_name(files[0]),))


def _name(file: Path) -> str:
    return f"figshare_{int(file.stem):04d}"


def _between(root: Path, file: Path) -> tuple[str, ...]:
    """The folders between `root` and a file."""
    return file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()


def _lacks_h5py(error: InputError) -> bool:
    return "package h5py" in error.cause
