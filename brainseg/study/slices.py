"""Slices that stand alone: `images/7.png` with `masks/7.png`, as the figshare brain tumour set is often packed.

Such slices carry no patient: neighbours by number are usually of one patient, or of two, and no file says which. So
each is a case of its own, named after its file. PNG and JPEG are only found in a folder `images` (with `masks` beside,
or alone with numbers for names). TIFF slices there are a patient's stack, unless they are what that set holds and no
stack in the public LGG set is: grayscale, 512x512, with nothing but a number for a name, and one such folder in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainseg.errors import InputError
from brainseg.study.names import Found, natural
from brainseg.study.patient import Patient, Series
from brainseg.study.tiff import IMAGE_FOLDERS, Slice, masks_beside
from brainseg.study.walk import PICTURES, TIFF, Folder

SIDE = 512
WHY = "a slice that stands alone: it cannot say what it is or whose; taken for an axial FLAIR"
A_STACK = "if these are one patient's stack, name them <patient>_<number>.tif"


def find(root: Path, folders: Sequence[Folder]) -> tuple[list[Found], set[Path]]:
    """The slices that stand alone in `folders`, which are those under `root`, and the folders that they fill."""
    found: list[Found] = []
    taken: set[Path] = set()
    tiffs = [folder for folder in folders if folder.tiffs and folder.path.name.lower() in IMAGE_FOLDERS]
    for folder in folders:
        if folder.path.name.lower() not in IMAGE_FOLDERS:
            continue
        masks = masks_beside(folder)
        names = [name for name in folder.others if name.lower().endswith(PICTURES)]
        if not names and masks is not None and tiffs == [folder] and _is_figshare(folder):
            names = folder.tiffs
        if not names or (masks is None and not all(Path(name).stem.isdecimal() for name in names)):
            continue
        taken |= {folder.path, *([masks] if masks else [])}
        above = folder.parts[:-1]
        images = [folder.path / name for name in names]
        found += _slices((root.resolve().name, *above), images, _images(masks) if masks else [])
    return found, taken


def find_one(file: Path) -> list[Found]:
    """The slice that is a single PNG or JPEG file, with its mask where that lies in `masks` beside its folder."""
    masks: Sequence[Path] = ()
    if file.parent.name.lower() in IMAGE_FOLDERS:
        beside = masks_beside(Folder(file.parent, ()))
        masks = [] if beside is None else [one for one in _images(beside) if _key(one) == _key(file)]
    return [Found(_patient(file, tuple(masks[:1])), (file.stem,))]


def _images(folder: Path) -> list[Path]:
    """The picture and TIFF files of a folder, in natural order."""
    suffixes = PICTURES + TIFF
    files = (one for one in folder.iterdir() if one.name.lower().endswith(suffixes) and one.name[0] != ".")
    return sorted((one for one in files if one.is_file()), key=lambda one: natural(one.name))


def _is_figshare(folder: Folder) -> bool:
    """Whether TIFF slices are what the figshare set holds, by their names and the header of the first."""
    import tifffile

    if not all(Path(name).stem.isdecimal() for name in folder.tiffs):
        return False
    try:
        with tifffile.TiffFile(folder.path / folder.tiffs[0]) as tiff:
            page = tiff.pages[0]
            return tuple(page.shape) == (SIDE, SIDE)
    except Exception:  # a damaged file may raise anything; the reader will say what is wrong with it
        return False


def _key(file: Path) -> tuple[str, int | None]:
    """What an image shares with its mask: its number, or its name where it has none."""
    one = Slice.of(file)
    return ("", one.number) if one.number is not None else (one.prefix, None)


def _slices(parts: tuple[str, ...], images: Sequence[Path], masks: Sequence[Path]) -> list[Found]:
    by_key: dict[tuple[str, int | None], tuple[list[Path], list[Path]]] = {}
    for files, at in ((images, 0), (masks, 1)):
        for file in files:
            by_key.setdefault(_key(file), ([], []))[at].append(file)
    found = []
    for own, own_masks in by_key.values():
        patient = _patient((own or own_masks)[0], tuple(own_masks[:1]), _fault(own, own_masks, bool(masks)))
        found.append(Found(patient, (*parts, patient.path.stem)))
    return found


def _fault(images: Sequence[Path], masks: Sequence[Path], others_have: bool) -> InputError | None:
    """What is wrong with one number's images and masks, which should be one of each, or no masks anywhere."""
    if not images:
        return InputError(masks[0], "is a mask without an image", "restore the image, or remove the mask")
    if not masks and others_have:
        return InputError(images[0], "has no mask while others have", "restore its mask, or remove the image")
    for files in (images, masks):
        if len(files) > 1:
            return InputError(files[1], f"has the number of {files[0].name} too", "remove one of them")
    return None


def _patient(file: Path, masks: tuple[Path, ...], problem: InputError | None = None) -> Patient:
    tiff = file.name.lower().endswith(TIFF)
    series = Series("tiff" if tiff else "picture", (file,), description=file.name)
    why = f"{WHY}; {A_STACK}" if tiff else WHY
    return Patient("", file, series, masks=masks, why=why, alone=True, problem=problem)
