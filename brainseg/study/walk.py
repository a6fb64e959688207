"""The folders under a path and the files in each, sorted by what kind they can be; nothing is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from brainseg.errors import MachineError
from brainseg.study.names import natural

TIFF = (".tif", ".tiff")
PICTURES = (".png", ".jpg", ".jpeg")
MATLAB = (".mat",)
NIFTI = (".nii", ".nii.gz")
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")
OWN_OUTPUT = {"run.json", "cohort.csv"}
BIDS_ASIDE = {"derivatives", "sourcedata"}
RECORD = "case.json"  # in the folder of a case's results
LOCK = ".brainseg.lock"  # in a folder of results while they are written, and after


@dataclass
class Folder:
    """One folder and the names of its files.

    Attributes:
        path: where it is.
        parts: its path relative to the root of the search; empty for the root.
        tiffs, volumes: file names by suffix, in natural order.
        others: all other names, pictures and MATLAB files among them, any of which may be DICOM.
        unreadable: why nothing is known of it; empty where it could be read.
    """

    path: Path
    parts: tuple[str, ...]
    tiffs: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: str = ""

    def add(self, name: str) -> None:
        """Sort one file name into its list."""
        lower = name.lower()
        if lower.endswith(TIFF):
            self.tiffs.append(name)
        elif lower.endswith(NIFTI + ITK):
            self.volumes.append(name)
        else:
            self.others.append(name)

    def __len__(self) -> int:
        return len(self.tiffs) + len(self.volumes) + len(self.others)


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the directory of a disc, which stands for the folder that it lies in."""
    return path.name.upper() == "DICOMDIR" and path.is_file()


def walk(root: Path) -> Iterator[Folder]:
    """Every folder from `root` down, in natural order.

    Hidden files and folders, `__MACOSX`, results of brainseg itself, finished or not, and, beside BIDS subjects or
    their rawdata, derivatives and sourcedata are passed over; a scan among results is not, if its file lies beside
    their tables. Links are followed, each folder once; one that leads nowhere is a file, so that what it stands for is
    missed where it is read.

    Raises:
        MachineError: if `root` may not be read; a folder below it that may not is `unreadable`.
    """
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while waiting:
        path, parts = waiting.pop()
        folder = Folder(path, parts)
        below: list[str] = []
        own = False
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    own = own or entry.name == LOCK
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if _leads_nowhere(entry) or entry.is_file():
                        folder.add(entry.name)
                    elif entry.is_dir():
                        below.append(entry.name)
        except OSError as error:
            if not parts:
                raise MachineError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
            yield Folder(path, parts, unreadable=f"cannot be read ({error.strerror})")
            continue
        if parts and RECORD in folder.others:
            continue
        if parts and (own or OWN_OUTPUT.issubset(folder.others)):
            if not folder.tiffs and not folder.volumes:
                continue
            below = []  # a scan beside whose file its results were written
        if any(name.startswith("sub-") or name == "rawdata" for name in below):
            below = [name for name in below if name not in BIDS_ASIDE]
        for names in (folder.tiffs, folder.volumes, folder.others):
            names.sort(key=natural)
        below.sort(key=natural, reverse=True)
        waiting.extend((path / name, (*parts, name)) for name in below)
        yield folder


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()
