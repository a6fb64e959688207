"""Numbered TIFF slices: which of them make a patient, and which are masks.

Slices of one folder belong together when their names are equal but for the last number: `TCGA_CS_4941_19960909_7.tif`
is slice 7. One such group is a patient named after its folder; several (all patients in one folder) are named after
what their slices share. A mask is named `..._mask.tif`, or lies under its image's name or number in a folder `masks`
beside `images`; the patient is then named after the folder that holds the two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from brainseg.errors import InputError
from brainseg.study.names import Found, natural
from brainseg.study.patient import Patient, Series
from brainseg.study.walk import TIFF, Folder

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label")
WHY = "TIFF slices cannot say what they are; taken for pre-contrast, FLAIR and post-contrast, or FLAIR alone"

_MASK = re.compile(r"[ ._-](?:masks?|seg|segmentation|labels?)$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(?P<prefix>.*?)(?P<number>[0-9]{1,9})$", re.DOTALL)
_GENERIC = re.compile(r"(?:^|[ ._-])(?:images?|imgs?|masks?|labels?|seg|slices?)(?=$|[ ._-])", re.IGNORECASE)


@dataclass(frozen=True)
class Slice:
    """A TIFF file: what its name shares with its neighbours, and its number."""

    file: Path
    prefix: str
    number: int | None
    mask: bool

    @classmethod
    def of(cls, file: Path) -> Slice:
        """Read the name of `file`, without its suffix and the word that makes it a mask."""
        stem, marked = _MASK.subn("", file.stem)
        match = _NUMBERED.match(stem)
        if match is None:
            return cls(file, stem, None, bool(marked))
        return cls(file, match["prefix"], int(match["number"]), bool(marked))


def find(root: Path, folders: Sequence[Folder]) -> list[Found]:
    """The patients whose TIFF slices lie in `folders`, which are those under `root`."""
    holding = {folder.path: folder for folder in folders if folder.tiffs}
    beside = {path: masks_beside(folder) for path, folder in holding.items()}
    used = {path for path in beside.values() if path is not None}
    found: list[Found] = []
    for path, folder in holding.items():
        if path in used:
            continue
        slices = [Slice.of(path / name) for name in folder.tiffs]
        if _component((path.name,), MASK_FOLDERS) is not None:
            slices = [Slice(s.file, s.prefix, s.number, True) for s in slices]
        images = [s for s in slices if not s.mask]
        masks = [s for s in slices if s.mask]
        masks_folder = beside[path]
        if masks_folder is not None and not masks:
            masks = [Slice.of(file) for file in _tiffs(masks_folder)]
        parts = (root.resolve().name, *folder.parts)
        if masks_folder is not None and path.name.lower() in IMAGE_FOLDERS:
            path = path.parent
            parts = parts[:-1] if folder.parts else (path.resolve().name,)
        skipped = len(folder.volumes) + len(folder.others)
        found += _patients(path, parts, images, masks, skipped)
    return found


def find_one(file: Path) -> list[Found]:
    """The patient that is a single TIFF file, with its mask where that lies beside it."""
    mask = next((m for m in (file.with_name(f"{file.stem}_mask{suffix}") for suffix in TIFF) if m.is_file()), None)
    series = Series("tiff", (file,), description=file.name)
    return [Found(Patient("", file, series, masks=(mask,) if mask else (), why=WHY), (file.stem,))]


def _tiffs(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_file() and e.name.lower().endswith(TIFF) and e.name[0] != "."]
    return [folder / name for name in sorted(names, key=natural)]


def _component(parts: Sequence[str], words: Sequence[str]) -> int | None:
    """Index of the last of `parts` that is one of `words`."""
    return next((i for i in reversed(range(len(parts))) if parts[i].lower() in words), None)


def masks_beside(folder: Folder) -> Path | None:
    """The folder that holds the masks of an images folder: the same path with `masks` for `images`."""
    parts = folder.path.parts if not folder.parts else (folder.path.parts[-len(folder.parts) - 1 :])
    at = _component(parts, IMAGE_FOLDERS)
    if at is None:
        return None
    above = folder.path.parents[len(parts) - at - 1]
    below = parts[at + 1 :]
    try:
        siblings = sorted(above.iterdir())
    except OSError:
        return None
    for sibling in siblings:
        if sibling.name.lower() in MASK_FOLDERS and sibling.joinpath(*below).is_dir():
            return sibling.joinpath(*below)
    return None


def _patients(path: Path, parts: tuple[str, ...], images: list[Slice], masks: list[Slice], skipped: int) -> list[Found]:
    """The patients of one folder: one for each prefix that its slices share."""
    groups = _grouped(images)
    mask_groups = _grouped(masks)
    if len(groups) == len(mask_groups) == 1:
        mask_groups = {prefix: next(iter(mask_groups.values())) for prefix in groups}
    found = []
    numbered = [prefix for prefix, group in groups.items() if group[0].number is not None]
    stray = [group[0] for group in groups.values() if group[0].number is None]
    if numbered and stray and len(groups[numbered[0]]) > 1:
        # A slice without a number has no place in the stack, and it is no patient either.
        group = [s for prefix in numbered for s in groups[prefix]]
        misplaced = InputError(
            stray[0].file,
            f"has no slice number, among {len(group)} slices that have one",
            "number it, or move it to another folder",
        )
        return [_found(path, parts, group, (), skipped + len(stray), misplaced)]
    for prefix in {**groups, **mask_groups}:
        group, own_masks = groups.get(prefix, []), mask_groups.get(prefix, [])
        faults = (_number_fault(path, group or own_masks), _mask_fault(path, group, own_masks))
        label = parts
        if len({**groups, **mask_groups}) > 1:
            shared = (group or own_masks)[0]
            label = (*parts, prefix.rstrip(" ._-") if len(group) > 1 else _MASK.sub("", shared.file.stem))
        mask_files = tuple(s.file for s in own_masks)
        problem = next((fault for fault in faults if fault), None)
        found.append(_found(path, label, group or own_masks, mask_files, skipped, problem))
    return found


def _found(
    path: Path,
    parts: tuple[str, ...],
    group: Sequence[Slice],
    masks: tuple[Path, ...],
    skipped: int,
    problem: InputError | None,
) -> Found:
    series = Series("tiff", tuple(s.file for s in group), description=path.name)
    return Found(Patient("", path, series, masks=masks, why=WHY, skipped=skipped, problem=problem), parts)


def _grouped(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """Slices by the prefix they share, each group in order of number."""
    groups: dict[str, list[Slice]] = {}
    for item in slices:
        groups.setdefault(_GENERIC.sub("", item.prefix), []).append(item)
    return {
        prefix: sorted(group, key=lambda s: (s.number if s.number is not None else -1, s.file.name))
        for prefix, group in groups.items()
    }


def _number_fault(path: Path, group: Sequence[Slice]) -> InputError | None:
    """What is wrong with the numbers of slices in order: one that is missing, or there twice."""
    for before, after in pairwise(group):
        names = f"{before.file.name} and {after.file.name}"
        if before.number is None or after.number is None:
            return InputError(path, f"{names} have no slice number", "number them")
        if before.number == after.number:
            return InputError(path, f"slice {after.number} is there twice ({names})", "remove one of them")
        first, last = before.number + 1, after.number - 1
        if first <= last:
            which = f"slice {first} is" if first == last else f"slices {first} to {last} are"
            return InputError(path, f"{which} missing between {names}", "export the patient again complete")
    return None


def _mask_fault(path: Path, images: Sequence[Slice], masks: Sequence[Slice]) -> InputError | None:
    """What is wrong with masks, which are none or one an image."""
    if not masks:
        return None
    image_numbers, mask_numbers = {s.number for s in images}, {s.number for s in masks}
    for mask in masks:
        if mask.number not in image_numbers:
            return InputError(path, f"mask {mask.file.name} has no image", "restore the image, or remove the mask")
    for image in images:
        if image.number not in mask_numbers:
            cause = f"image {image.file.name} has no mask while others have"
            return InputError(path, cause, "restore its mask, or remove them all")
    if len(masks) != len(images):
        return InputError(path, f"{len(masks)} masks for {len(images)} images", "keep one mask an image")
    return None
