"""Volumes in one file each (NIfTI, MHA, NRRD): which is the FLAIR, which the T1, which a mask, by file name alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from brainseg.errors import InputError
from brainseg.study.names import Found
from brainseg.study.patient import Patient, Series
from brainseg.study.walk import NIFTI, Folder

Role = Literal["flair", "pre", "post", "mask", "other", "unknown"]

_ORGANS = ("brain", "skull", "head", "parenchyma")
BIDS_KINDS = ("anat", "dwi", "func", "perf", "fmap", "swi", "pet", "mrs")

_BIDS = re.compile(r"^(?P<name>sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)_")
_PIECES = re.compile(r"[A-Za-z0-9+]+")
_SUFFIX = re.compile(r"\.(?:nii(?:\.gz)?|mha|mhd|nrrd|nhdr)$", re.IGNORECASE)
_MASK = re.compile(
    r"^(?:masks?|msk|(?:tumou?r|lesions?|d|prob)?(?:seg|segm|segmentation|mask)|labels?|roi|gt|groundtruth|ples|ot|"
    r"annotations?)$"
)
# Of a mask too, where they come last or right before the name of the sequence that it was drawn on.
_MARKED = re.compile(r"^(?:lesions?|tumou?rs?|wmh|pred|predictions?)$")
_ENTITIES = re.compile(r"(?:^|(?<=_))(?:sub|ses|space|run)-[A-Za-z0-9]+")  # of BIDS, that say nothing of the sequence
_ONTO = re.compile(r"^(?:to|onto|in|on|reg|coreg|registered|2)$")
_MASK_FOLDERS = re.compile(r"^(?:labels?.*|masks?|seg|segs|segmentations?|groundtruth|gt|annotations?|images_segm)$")
_BRAIN_MASK = re.compile(r"^(?:brain|skull|head)(?:masks?|seg|segmentation)$")
_FLAIR = re.compile(r"^(?:.*flair.*|t2f|darkfluid|tirm)$")
_T1_FLAIR = re.compile(r"^t1w?flair.*$")
_T1_PRE = re.compile(r"^(?:t1w?(?:pre|n|native|3d)?|mprage|spgr|fspgr|bravo)$")
_T1_POST = re.compile(r"^(?:ct1|t1w?(?:c(?!or)|ce|gd|gad|gado|gadolinium|km|post|contrast|\+c).*)$")
_CONTRAST = re.compile(r"^(?:gd|gad|gado|gadolinium|km|post|ce|c|\+c|contrast|postcontrast|postgd|contrastenhanced)$")
_NO_CONTRAST = re.compile(r"^(?:pre|no|non|without|wo|native|nativ|ohne|sans|precontrast|noncontrast|nocontrast)$")
_OTHER = re.compile(r"^(?:t2w?|t2star|pd|pdw|adc|dwi|fa|swi|asl|bold|epi|md|b0|b1000|cbf|cbv|ct|pet|stir)$")
_PLANE = {"ax", "axial", "tra", "sag", "cor", "2d", "3d", "t1", "t1w", "t2", "t2w", "tse", "space", "ce", "pre", "post"}


@dataclass(frozen=True)
class Named:
    """A volume and what its name says: its role, and the words before and after those that say so."""

    file: Path
    role: Role
    prefix: str
    suffix: str

    @classmethod
    def of(cls, file: Path) -> Named:
        """Read the name of `file`."""
        stem = stem_of(file)
        spans = [(m.start(), m.end(), m.group().lower()) for m in _PIECES.finditer(stem)]
        who = [entity.span() for entity in _ENTITIES.finditer(stem)] if stem.startswith("sub-") else []
        tokens = ["" if any(a <= at < b for a, b in who) else token for at, _, token in spans]
        role, first, last = role_of(tokens)
        while first > 0 and role in ("flair", "pre", "post") and tokens[first - 1] in _PLANE:
            first -= 1
        prefix = stem[: spans[first][0]] if first < len(spans) else stem
        suffix = stem[spans[last][1] :] if last < len(spans) else ""
        return cls(file, role, prefix.strip(" ._-"), suffix.strip(" ._-").lower())


def stem_of(file: Path) -> str:
    """Name of `file` without .nii.gz, .nii, .mha, .mhd, .nrrd or .nhdr."""
    return _SUFFIX.sub("", file.name)


def role_of(tokens: Sequence[str]) -> tuple[Role, int, int]:
    """What a file name made of `tokens` says it holds, and the first and last token that say so.

    A mask is a mask of whatever sequence its name goes on to mention; `t1_flair` is a T1 (an inversion-recovery T1),
    and so is `t1_to_flair`, while `flair_to_t1` is a FLAIR; a brain mask is no ground truth.
    """
    for i, token in enumerate(tokens):
        if _BRAIN_MASK.match(token) or (i and tokens[i - 1] in _ORGANS and _MASK.match(token)):
            return "other", i, i
    for i, token in enumerate(tokens):
        on_flair = i + 1 == len(tokens) or _FLAIR.match(tokens[i + 1])
        if _MASK.match(token) or (_MARKED.match(token) and on_flair):
            first = next((j for j in range(i) if _FLAIR.match(tokens[j]) or _T1_PRE.match(tokens[j])), i)
            return "mask", first, i
    moved = (i for i, token in enumerate(tokens) if _ONTO.match(token) and any(map(_is_sequence, tokens[:i])))
    tokens = tokens[: next(moved, len(tokens))]
    for i, token in enumerate(tokens):
        if token == "dark" and tokens[i + 1 : i + 2] == ["fluid"]:
            return "flair", i, i + 1
        if _T1_FLAIR.match(token):
            return _t1(tokens, i)
        if _FLAIR.match(token):
            if i and _T1_PRE.match(tokens[i - 1]):
                return _t1(tokens, i - 1)
            return "flair", i, i
    for i, token in enumerate(tokens):
        if _T1_POST.match(token):
            return "post", i, i
        if _T1_PRE.match(token):
            return _t1(tokens, i)
    for i, token in enumerate(tokens):
        if _OTHER.match(token):
            return "other", i, i
    for i, token in enumerate(tokens):
        if token in ("contrast", "postcontrast", "gadolinium", "gd") and not any(map(_NO_CONTRAST.match, tokens)):
            return "post", i, i
    return "unknown", len(tokens), len(tokens)


def _is_sequence(token: str) -> bool:
    return any(kind.match(token) for kind in (_FLAIR, _T1_PRE, _T1_POST, _OTHER))


def _t1(tokens: Sequence[str], at: int) -> tuple[Role, int, int]:
    """Pre- or post-contrast, for a name whose token `at` says T1."""
    said = [
        i
        for i, token in enumerate(tokens)
        if (_CONTRAST.match(token) and (token != "c" or i == at + 1)) or _NO_CONTRAST.match(token)
    ]
    first, last = min([at, *said]), max([at, *said])
    if any(_NO_CONTRAST.match(token) for token in tokens):
        return "pre", first, last
    return ("post" if said else "pre"), first, last


def find_one(file: Path) -> list[Found]:
    """The patient that is a single volume given by the user, whatever its name says."""
    role = Named.of(file).role
    why = "given as a single file"
    if role == "flair":
        why = f"{why}; its name says FLAIR"
    elif role != "unknown":
        why = f"{why}; its name does not say FLAIR"
    return [Found(Patient("", file, _series(file), why=why), (stem_of(file),))]


def find(root: Path, folders: Sequence[Folder]) -> list[Found]:
    """The patients whose volumes lie in `folders`, which are those under `root`."""
    found: list[Found] = []
    sessions: dict[tuple[Path, str], list[Path]] = {}
    spare: dict[tuple[Path, str], int] = {}
    apart = _by_sequence(folders)
    for parent, own in apart.items():
        volumes = [_named_by_folder(folder) for folder in own]
        others = sum(len(folder.tiffs) + len(folder.others) for folder in own)
        item = _choose(own[0].path.parent, (root.resolve().name, *parent), volumes, others)
        found += [item] if item else []
    merged = {folder.path for own in apart.values() for folder in own}
    for folder in folders:
        if folder.path in merged or (folder.parts and _MASK_FOLDERS.match(folder.parts[-1].lower())):
            continue
        plain = []
        for name in folder.volumes:
            bids = _BIDS.match(name)
            if bids is None:
                plain.append(folder.path / name)
                continue
            kind = folder.path.name
            session = (folder.path.parent if folder.parts and kind in BIDS_KINDS else folder.path, bids["name"])
            if folder.parts and kind in BIDS_KINDS[1:]:
                spare[session] = spare.get(session, 0) + 1
            else:
                sessions.setdefault(session, []).append(folder.path / name)
        others = len(folder.tiffs) + len(folder.others)
        found += _folder(folder.path, (root.resolve().name, *folder.parts), plain, others)
    for (path, name), files in sessions.items():
        volumes = [Named.of(file) for file in files]
        item = _choose(path, (path.resolve().name, name), volumes, spare.get((path, name), 0))
        found += [item] if item else []
    return found


def _by_sequence(folders: Sequence[Folder]) -> dict[tuple[str, ...], list[Folder]]:
    """Folders that hold one volume each and are named after sequences, FLAIR among them, by the folder they lie in."""
    beside: dict[tuple[str, ...], list[Folder]] = {}
    for folder in folders:
        if not folder.parts or len(folder.volumes) != 1 or _BIDS.match(folder.volumes[0]):
            continue
        if _role_of_folder(folder) in ("flair", "pre", "post", "other"):
            beside.setdefault(folder.parts[:-1], []).append(folder)
    return {parent: own for parent, own in beside.items() if len(own) > 1 and "flair" in map(_role_of_folder, own)}


def _role_of_folder(folder: Folder) -> Role:
    return role_of([token.lower() for token in _PIECES.findall(folder.parts[-1])])[0]


def _named_by_folder(folder: Folder) -> Named:
    """The one volume of a folder named after a sequence, which counts where the file's own name says nothing."""
    volume = Named.of(folder.path / folder.volumes[0])
    return replace(volume, role=_role_of_folder(folder)) if volume.role == "unknown" else volume


def _folder(path: Path, parts: tuple[str, ...], files: Sequence[Path], others: int) -> list[Found]:
    """The patients of one folder: one for each prefix in front of the word FLAIR."""
    volumes = [Named.of(file) for file in files]
    prefixes = dict.fromkeys(v.prefix for v in volumes if v.role == "flair")
    if not prefixes:
        label = stem_of(volumes[0].file) if len(volumes) == 1 else ""
        item = _choose(path, (*parts, label) if label else parts, volumes, others)
        return [item] if item else []
    groups = {prefix: [v for v in volumes if v.prefix == prefix] for prefix in prefixes}
    names = {_name(prefix) for prefix in prefixes}
    says_who = len(prefixes) > 1 or any(v.role in ("pre", "post", "other") and v.prefix in groups for v in volumes)
    for v in volumes if says_who else ():  # T1 of patients without a FLAIR
        own_name = _name(v.prefix)
        if v.role in ("pre", "post") and v.prefix and not (own_name and any(_alike(own_name, one) for one in names)):
            groups.setdefault(v.prefix, [w for w in volumes if w.prefix == v.prefix])
    if len(prefixes) == 1:
        (prefix,) = prefixes
        own = [v for v in volumes if v.prefix == prefix or (not groups.get(v.prefix) and _fits(v, prefix, says_who))]
        groups[prefix] = own
    spare = others + len(volumes) - sum(map(len, groups.values()))
    chosen = (_choose(path, (*parts, prefix) if prefix else parts, group, spare) for prefix, group in groups.items())
    return [item for item in chosen if item]


def _name(prefix: str) -> tuple[str, ...]:
    """What of a prefix can be a patient's name: not the numbers that converters give series."""
    return tuple(token for token in map(str.lower, _PIECES.findall(prefix)) if not token.isdigit())


def _alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two names can be of one patient: the same, or one is all that the other begins with."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter] and (shorter > 0 or one == other)


def _fits(volume: Named, prefix: str, says_who: bool) -> bool:
    """Whether a volume of another prefix than the only FLAIR's can be of its patient."""
    if not (volume.prefix and prefix):
        return True
    if not _alike(_name(volume.prefix), _name(prefix)):
        return False
    numbers = [[token for token in _PIECES.findall(one) if token.isdigit()] for one in (volume.prefix, prefix)]
    return not says_who or numbers[0] == numbers[1] or not (numbers[0] and numbers[1])


def _choose(path: Path, parts: tuple[str, ...], volumes: Sequence[Named], others: int) -> Found | None:
    """The patient made of `volumes`; None where there is nothing but masks."""
    images = [v for v in volumes if v.role != "mask"]
    if not images:
        return None
    flairs = [v for v in images if v.role == "flair"]
    problem: InputError | None = None
    why = "its file name says FLAIR"
    if flairs:
        flair, tied = _plainest(flairs)
        if tied:
            problem = InputError(path, f"several volumes say FLAIR: {_listed(tied)}", "give the one to use by its path")
        elif len(flairs) > 1:
            why = f"{why}, and is plainer than that of {_listed([v for v in flairs if v is not flair])}"
    else:
        flair = images[0]
        why = "the only volume of its folder; its name does not say what it is"
        if len(images) > 1 or flair.role != "unknown":
            problem = InputError(
                path, f"no file name says FLAIR: {_listed(images)}", "rename the FLAIR to ..._flair, or give its path"
            )
    masks = [v for v in volumes if v.role == "mask"]
    if len(masks) > 1:
        why = f"{why}; {len(masks)} masks lie beside it and none is taken"
        masks = []
    pre, post = (_partner([v for v in images if v.role == role], flair) for role in ("pre", "post"))
    used = 1 + len(masks) + (pre is not None) + (post is not None)
    patient = Patient(
        "",
        path if len(volumes) > 1 else flair.file,
        _series(flair.file),
        pre=_series(pre.file) if pre else None,
        post=_series(post.file) if post else None,
        masks=tuple(v.file for v in masks),
        why=why,
        skipped=others + len(volumes) - used,
        problem=problem,
    )
    return Found(patient, parts)


def _plainest(volumes: Sequence[Named]) -> tuple[Named, list[Named]]:
    """The volume with the fewest words after its role, and those that it is tied with."""
    fewest = min(len(v.suffix.split("_")) if v.suffix else 0 for v in volumes)
    best = [v for v in volumes if (len(v.suffix.split("_")) if v.suffix else 0) == fewest]
    return best[0], best if len(best) > 1 else []


def _partner(volumes: Sequence[Named], flair: Named) -> Named | None:
    """The T1 that was processed as the FLAIR was, else the plainest; None rather than a guess among several."""
    alike = [v for v in volumes if v.suffix == flair.suffix]
    if not volumes:
        return None
    best, tied = _plainest(alike or volumes)
    return None if tied else best


def _series(file: Path) -> Series:
    layout: Literal["nifti", "itk"] = "nifti" if file.name.lower().endswith(NIFTI) else "itk"
    return Series(layout, (file,), description=file.name)


def _listed(volumes: Sequence[Named], most: int = 12) -> str:
    names = [v.file.name for v in volumes]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
