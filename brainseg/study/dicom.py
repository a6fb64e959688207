"""DICOM files to studies: found by reading headers, whatever the files and folders are called.

Every study is a patient of its own (a session). A folder that holds DICOM files is one patient with all below it, so
that two PatientIDs there are refused; folders beside each other may be different patients. A single study is named
after the folder that was given, several after the topmost folder that holds nothing but that study.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from brainseg.errors import InputError
from brainseg.study import headers
from brainseg.study.choice import Candidate, choose, listed
from brainseg.study.headers import Header
from brainseg.study.names import Found
from brainseg.study.patient import Patient, Series
from brainseg.study.segmentation import SOP_CLASSES, choose_truth
from brainseg.study.walk import Folder

CHOOSE = "choose one with --series UID"
AGAIN = "copy or export the series again"


@dataclass
class _Gathered:
    """The files of one series, and the header of the first."""

    header: Header
    files: list[Path] = field(default_factory=list)
    folders: dict[tuple[str, ...], None] = field(default_factory=dict)


@dataclass
class _Study:
    """The series of one study, and where they lie."""

    series: dict[str, _Gathered] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)
    folders: dict[tuple[str, ...], None] = field(default_factory=dict)

    @property
    def homes(self) -> list[tuple[str, ...]]:
        """Its folders, but for those that lie above others of them."""
        return [
            one for one in self.folders if not any(other[: len(one)] == one for other in self.folders if other != one)
        ]

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(s.header, max(len(s.files), s.header.frames)) for s in self.series.values()]


@dataclass
class _Scan:
    """All that was found: studies, and files that are DICOM but damaged, by folder; and junk, counted."""

    studies: dict[str, _Study] = field(default_factory=dict)
    broken: dict[tuple[str, ...], list[Path]] = field(default_factory=dict)
    skipped: dict[tuple[str, ...], int] = field(default_factory=dict)


def find(root: Path, folders: Sequence[Folder], series: str | None = None) -> list[Found]:
    """The studies in `folders`, which are those under `root`."""
    scan = _scan((folder.parts, folder.path / name) for folder in folders for name in folder.others)
    for folder in folders:
        _count(scan.skipped, folder.parts, len(folder.tiffs) + len(folder.volumes))
    conflicts = _conflicts(scan)
    tops = _tops(scan)
    found: dict[tuple[str, ...], list[Patient]] = {}
    for uid, study in scan.studies.items():
        patient = _patient(root, scan, study, tops[uid], series)
        if patient is None:
            continue
        conflict = next((conflicts[parts] for parts in study.folders if parts in conflicts), None)
        if conflict is None:
            found.setdefault(tops[uid], []).append(patient)
        elif not found.get(conflict):
            problem = _two_patients(root.joinpath(*conflict))
            found[conflict] = [replace(patient, path=root.joinpath(*conflict), problem=problem)]
    if series is None:
        for parts, files in scan.broken.items():
            if not any(parts[: len(top)] == top for top in tops.values()):
                found[parts] = [_all_broken(root.joinpath(*parts), files)]
    if sum(map(len, found.values())) == 1:
        ((patient,),) = found.values()
        below = _common([parts for study in scan.studies.values() for parts in study.folders] or [()])
        if below and any(folder.tiffs or folder.volumes for folder in folders):  # one of several patients under root
            return [Found(replace(patient, path=root / below[0]), below[:1])]
        return [Found(patient, (root.resolve().name,))]
    shared = len(_common(list(found)))
    result = []
    for top, patients in found.items():
        label = top[min(shared, len(top) - 1) :] if top else (root.resolve().name,)
        result += [Found(patient, label, len(label)) for patient in patients]
    return result


def find_one(file: Path, series: str | None = None) -> list[Found]:
    """The patient that is a single DICOM file."""
    scan = _scan([((), file)])
    found = []
    for study in scan.studies.values():
        item = _patient(file, scan, study, (), series)
        if item is not None:
            found.append(Found(item, (file.stem if file.suffix.lower() == ".dcm" else file.name,)))
    return found


def _scan(files: Iterable[tuple[tuple[str, ...], Path]]) -> _Scan:
    """Read the header of every file that has the DICOM prefix."""
    scan = _Scan()
    with headers.quiet():
        for parts, file in files:
            if not headers.says_dicom(file):
                if (file.suffix.lower() == ".dcm" and _is_empty(file)) or headers.lacks_prefix(file):
                    scan.broken.setdefault(parts, []).append(file)
                else:
                    _count(scan.skipped, parts, 1)
                continue
            if file.name.upper() == "DICOMDIR":
                # Its references are never followed: the files are found by themselves.
                _count(scan.skipped, parts, 1)
                continue
            try:
                ds = headers.dataset(file, headers.TAGS)
            except ValueError:
                scan.broken.setdefault(parts, []).append(file)
                continue
            uid = headers.text(ds, "SeriesInstanceUID")
            if not uid:
                scan.broken.setdefault(parts, []).append(file)
                continue
            study = scan.studies.setdefault(headers.text(ds, "StudyInstanceUID"), _Study())
            study.folders[parts] = None
            study.patients |= {headers.text(ds, "PatientID")} - {""}
            if uid not in study.series:
                study.series[uid] = _Gathered(headers.header_of(ds))
            study.series[uid].files.append(file)
            study.series[uid].folders[parts] = None
    return scan


def _patient(root: Path, scan: _Scan, study: _Study, top: tuple[str, ...], series: str | None) -> Patient | None:
    """The patient of one study; None where it holds no images, or not the series asked for."""
    gathered = list(study.series.values())
    candidates = study.candidates
    choice = choose(candidates, series)
    if choice.flair is None:
        return None
    path = root.joinpath(*top)

    used = {index for index in (choice.flair, choice.pre, choice.post) if index is not None}
    truth, said = _truth(gathered, gathered[choice.flair]) if choice.certain else (None, "")
    rest = sum(len(item.files) for i, item in enumerate(gathered) if i not in used) - (truth is not None)
    junk = sum(count for parts, count in scan.skipped.items() if parts[: len(top)] == top)
    broken = [file for parts in gathered[choice.flair].folders for file in scan.broken.get(parts, ())]
    problem: InputError | None = None
    if len(study.patients) > 1:
        problem = _two_patients(path)
    elif broken:
        problem = _broken(broken)
    elif choice.tied and choice.certain:
        problem = InputError(path, f"several FLAIR series: {listed(candidates, choice.tied)}", CHOOSE)
    elif choice.tied:
        problem = InputError(path, f"{choice.why}: {listed(candidates, choice.tied)}", CHOOSE)
    return Patient(
        "",
        path,
        _series(gathered[choice.flair]),
        pre=None if choice.pre is None else _series(gathered[choice.pre]),
        post=None if choice.post is None else _series(gathered[choice.post]),
        masks=() if truth is None else (truth,),
        why=f"{choice.why}; {said}" if said else choice.why,
        certain=choice.certain,
        skipped=rest + junk,
        problem=problem,
    )


def _truth(gathered: Sequence[_Gathered], flair: _Gathered) -> tuple[Path | None, str]:
    """The DICOM SEG that is the ground truth of the FLAIR, and what there is to say of the SEGs of its study."""
    files = [file for item in gathered if item.header.sop_class in SOP_CLASSES for file in item.files]
    if not files:
        return None, ""
    seg, said = choose_truth(files, flair.files[0], flair.header.series_uid)
    return (None if seg is None else seg.file), said


def _broken(files: Sequence[Path]) -> InputError:
    """What to say of files that cannot be read, by the first of them."""
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    if not files[0].exists():
        return InputError(files[0], f"is a link that leads nowhere{others}", "bring back its target, or remove it")
    if not _is_empty(files[0]) and not headers.says_dicom(files[0]):
        remedy = "rewrite it with DCMTK's dcmconv, or export the series again"
        return InputError(files[0], f"is DICOM without its prefix DICM{others}", remedy)
    return InputError(files[0], f"is a damaged DICOM file{others}", AGAIN)


def _two_patients(path: Path) -> InputError:
    return InputError(path, "holds DICOM files of two patients", "give each patient a folder of their own")


def _series(gathered: _Gathered) -> Series:
    return Series("dicom", tuple(gathered.files), gathered.header.series_uid, gathered.header.description)


def _all_broken(path: Path, files: Sequence[Path]) -> Patient:
    """A patient of whom nothing but damaged files is left."""
    return Patient("", path, Series("dicom", tuple(files)), why="damaged", problem=_broken(files))


def _conflicts(scan: _Scan) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The folders that hold two patients, together with those below them, and the topmost folder where that is so.

    A file that strayed into a folder above its own study's does not make that folder one of this patient.
    """
    own: dict[tuple[str, ...], set[str]] = {}
    homes: set[tuple[str, ...]] = set()
    for study in scan.studies.values():
        homes.update(study.homes)
        for parts in study.folders:
            own.setdefault(parts, set()).update(study.patients)
    homes |= {parts for parts, patients in own.items() if len(patients) > 1}
    heads: dict[tuple[str, ...], set[str]] = {}
    head_of: dict[tuple[str, ...], tuple[str, ...]] = {}
    for parts, patients in own.items():
        head = next((parts[:length] for length in range(len(parts) + 1) if parts[:length] in homes), parts)
        head_of[parts] = head
        heads.setdefault(head, set()).update(patients)
    return {parts: head for parts, head in head_of.items() if len(heads[head]) > 1}


def _tops(scan: _Scan) -> dict[str, tuple[str, ...]]:
    """For each study the topmost folder that holds no other study, or the one that holds all of it."""
    holders: dict[tuple[str, ...], set[str]] = {}
    for uid, study in scan.studies.items():
        for parts in study.folders:
            for length in range(len(parts) + 1):
                holders.setdefault(parts[:length], set()).add(uid)
    begun = {parts[:1] for study in scan.studies.values() for parts in study.folders}
    for parts in scan.broken:
        if parts and parts[:1] not in begun and () not in begun:
            # Another folder beside those of the studies, with nothing but damaged files: probably a patient as well.
            for length in range(len(parts) + 1):
                holders.setdefault(parts[:length], set()).add("")
    tops = {}
    for uid, study in scan.studies.items():
        common = _common(study.homes)
        alone = (common[:length] for length in range(len(common) + 1) if holders[common[:length]] == {uid})
        tops[uid] = next(alone, common)
    return tops


def _common(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all of `folders` begin with."""
    shared = folders[0] if folders else ()
    for parts in folders[1:]:
        length = 0
        while length < min(len(shared), len(parts)) and shared[length] == parts[length]:
            length += 1
        shared = shared[:length]
    return shared


def _is_empty(file: Path) -> bool:
    try:
        return file.stat().st_size == 0
    except OSError:  # it may not be looked at, or is a link that leads nowhere
        return True


def _count(counts: dict[tuple[str, ...], int], parts: tuple[str, ...], number: int) -> None:
    if number:
        counts[parts] = counts.get(parts, 0) + number
