"""What one open page holds: its upload, the patient chosen from it, and the result. Nothing outlives it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import SLICES, Case, Segmentation
from brainseg.errors import BrainsegError, InputError, UsageError

if TYPE_CHECKING:
    from brainseg.app.view import View
    from brainseg.bundle import Bundle
    from brainseg.guarded import GuardedReader
    from brainseg.study import Patient

MOST_VISITS = 8
LONGEST_UPLOAD_SECONDS = 3600
UPLOAD = "scan"  # the name of an upload whose files share no word

_NUMBER = re.compile(r"[ ._-]*[0-9]*$")
_MASK_WORD = re.compile(r"[ ._-](?:mask|seg|label)s?$", re.IGNORECASE)


class Networks:
    """The networks that a page offers, each loaded once and run for one visitor at a time."""

    def __init__(self, names: Sequence[str], device: str = "auto") -> None:
        self.names = tuple(names)
        self._device = device
        self._opened: dict[str, Bundle] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Bundle:
        """The bundle of that name.

        Raises:
            UsageError: if it is not among those offered.
            UntrustedBundleError: as `brainseg.bundle.open_bundle`.
        """
        from brainseg.bundle import open_bundle

        if name not in self.names:
            raise UsageError("bundle", "is not one of those offered", "choose one from the list")
        with self._lock:
            if name not in self._opened:
                self._opened[name] = open_bundle(name, device=self._device)
            return self._opened[name]

    def segment(self, case: Case, name: str) -> Segmentation:
        """`case` segmented by the bundle of that name, after whoever came before."""
        from brainseg.inference import segment

        bundle = self.get(name)
        with self._lock:
            return segment(case, bundle)


class Visit:
    """One open page.

    Attributes:
        folder: its own, for uploads while they are read and for the mask to download.
        patients: those found in the upload.
        patient, case, truth: the one chosen; `truth` is the mask that lay beside it, None where none did.
        result, view: of the case, and its slices; None before.
        lock: held by whoever changes any of it.
    """

    def __init__(self, root: Path, reader: GuardedReader) -> None:
        self._reader = reader
        self.folder = Path(tempfile.mkdtemp(dir=root))
        self.lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.patients: tuple[Patient, ...] = ()
        self.patient: Patient | None = None
        self.case: Case | None = None
        self.truth: NDArray[np.uint8] | None = None
        self.result: Segmentation | None = None
        self.view: View | None = None
        self._network = ""
        self._places: list[Path] = []
        self._uploads = ExitStack()

    def close(self) -> None:
        """Removes all that the visit left on the disk and in memory, once nobody works on it."""
        with self.lock:
            self.clear()
            shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Back to a page without an upload."""
        self._uploads.close()
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)
        self._forget()

    def take(self, files: Sequence[Path]) -> None:
        """Finds the patients in uploaded `files`, which are moved away, and reads the first.

        Raises:
            UsageError, InputError, MachineError: as `find_patients` and `read_patient`.
        """
        from brainseg.readers.archive import opened
        from brainseg.study import find_patients
        from brainseg.study.names import unique

        self.clear()
        zips, rest = self._moved(files)
        found: list[Patient] = []
        for path in zips:
            folder = self._uploads.enter_context(opened(path))
            self._places.append(folder)
            found += find_patients(folder, name=path.stem, matlab_header=self._reader.matlab_header)
        if rest is not None:
            found += find_patients(rest, matlab_header=self._reader.matlab_header)
        names = unique(patient.name for patient in found)
        self.patients = tuple(replace(one, name=name) for one, name in zip(found, names, strict=True))
        self.choose(names[0])

    def choose(self, name: str) -> None:
        """Reads the patient of that name; the upload is removed when there is no other.

        Raises:
            UsageError, InputError, MachineError: as `read_patient`, or if no patient has that name.
        """
        patient = next((one for one in self.patients if one.name == name), None)
        if patient is None:
            raise UsageError("patient", "is no longer there", "upload the scan again")
        self.patient, self.case, self.truth, self.result, self.view = patient, None, None, None, None
        case = self._reader.read_patient(patient)
        try:
            self.truth = self._reader.read_ground_truth(patient)
        except InputError as error:
            case = replace(case, notes=(*case.notes, f"the mask beside it is not shown: {error.cause}"))
        self.case = case
        if len(self.patients) == 1:
            self._uploads.close()

    def segment(self, networks: Networks, name: str, threshold: float) -> View:
        """The result at a threshold, and its slices; the network runs only where it has not yet.

        Raises:
            UsageError: if there is no case, no such bundle or no such threshold.
        """
        from brainseg.app.view import View
        from brainseg.bundle import with_threshold
        from brainseg.inference import remask

        if self.case is None:
            raise UsageError("scan", "is no longer there", "upload it again")
        if not 0 < threshold < 1:
            raise UsageError("threshold", f"is {threshold:g}", "choose one between 0 and 1")
        bundle = networks.get(name)
        if self.result is None or self._network != name:
            self.result, self._network = networks.segment(self.case, name), name
        if self.result.threshold != threshold:
            self.result = remask(self.result, with_threshold(bundle, threshold))
        self.view = View.of(self.case, self.result.mask, self.truth)
        return self.view

    def download(self) -> Path:
        """The mask of the result as a file: NIfTI, or for slices a zip of NIfTI and the slices' masks."""
        from brainseg.writers.nifti import write_mask
        from brainseg.writers.tiff import write_tiff_masks

        if self.case is None or self.result is None:
            raise ValueError("expected a visit with a result")
        shutil.rmtree(self.folder / "mask", ignore_errors=True)
        folder = self.folder / "mask" / self.case.name
        path = folder.parent / f"{self.case.name}_mask.nii.gz"
        if self.case.layout in SLICES:
            path = folder / "mask.nii.gz"
        write_mask(path, self.result.mask, self.case.affine, in_mm=self.case.spacing_mm is not None)
        if self.case.layout not in SLICES:
            return path
        write_tiff_masks(folder, self.case, self.result.mask)
        packed = shutil.make_archive(str(folder.with_name(f"{folder.name}_masks")), "zip", folder.parent, folder.name)
        shutil.rmtree(folder)
        return Path(packed)

    def words(self, error: BrainsegError) -> str:
        """The line of an error without the places where an upload lies for the moment."""
        line = str(error)
        for place in self._places:
            line = line.replace(f"{place}{os.sep}", "").replace(str(place), UPLOAD)
        return line

    def _moved(self, files: Sequence[Path]) -> tuple[list[Path], Path | None]:
        """The uploaded files in a folder of the visit's own: the zips, and the folder (or one file) with the rest.

        Where two have one name (an upload does not tell in which folders they were) the second goes deeper.
        """
        parent = self.folder / "upload"
        folder = parent / _shared_name(files)
        self._places = [parent / "zips", folder, parent]
        self._uploads.callback(shutil.rmtree, parent, ignore_errors=True)
        zips: list[Path] = []
        rest: list[Path] = []
        for file in dict.fromkeys(files):
            zipped = file.suffix.lower() == ".zip"
            target = _free(parent / "zips" if zipped else folder, file.name)
            try:
                file.replace(target)
            except FileNotFoundError:
                raise UsageError(file.name, "is no longer there", "upload it again") from None
            with suppress(OSError):  # another file still lies beside it
                file.parent.rmdir()
            (zips if zipped else rest).append(target)
        return zips, rest[0] if len(rest) == 1 else folder if rest else None


def _free(folder: Path, name: str) -> Path:
    """A place for a file of that name in `folder`, or in a numbered folder below; its folder is made."""
    place, count = folder / name, 1
    while place.exists():
        count += 1
        place = folder / str(count) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


class Visits:
    """The open pages by session, at most `MOST_VISITS`: the one longest unused makes room.

    Args:
        root: folder of everything uploaded; what lies there is a visit's, or is on its way to one, or was left behind.
        reader: reads for all of them, one at a time.
    """

    def __init__(self, root: Path, reader: GuardedReader) -> None:
        self._root = root
        self._reader = reader
        self._open: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, session: str) -> Visit:
        """The visit of a session, a new one where there is none."""
        with self._lock:
            if session not in self._open:
                self._sweep(LONGEST_UPLOAD_SECONDS)
                self._open[session] = Visit(self._root, self._reader)
            self._open.move_to_end(session)
            gone = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - MOST_VISITS)]
            visit = self._open[session]
        for one in gone:
            one.close()
        return visit

    def leave(self, session: str) -> None:
        """Ends the visit of a session; with the last one goes whatever was uploaded and never read."""
        with self._lock:
            visit = self._open.pop(session, None)
        if visit is not None:
            visit.close()
        with self._lock:
            self._sweep(LONGEST_UPLOAD_SECONDS if self._open else 0)

    def close(self) -> None:
        """Ends all visits."""
        for session in list(self._open):
            self.leave(session)

    def _sweep(self, seconds: float) -> None:
        """Removes what is no visit's and has not changed for so long."""
        kept = {visit.folder for visit in self._open.values()}
        for path in self._root.iterdir() if self._root.is_dir() else ():
            with suppress(OSError):
                if path not in kept and time.time() - path.stat().st_mtime >= seconds:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def uploaded(value: Any, root: Path) -> list[Path]:
    """The files that an upload component names, all of which must lie under `root`.

    Raises:
        UsageError: if one does not, or there are none.
    """
    entries = value if isinstance(value, list) else [value]
    paths = [entry.get("path") if isinstance(entry, dict) else None for entry in entries]
    files = [Path(path).resolve() for path in paths if isinstance(path, str)]
    if not files or len(files) != len(paths) or not all(file.is_relative_to(root.resolve()) for file in files):
        raise UsageError("upload", "holds no files", "choose a scan")
    return files


def _shared_name(files: Sequence[Path]) -> str:
    """What the names of slices share before their number: what their folder was called, as a rule."""
    stems = [_MASK_WORD.sub("", file.name.split(".")[0]) for file in files]
    same = [letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*stems, strict=False))]
    return _NUMBER.sub("", "".join(same)) or UPLOAD
