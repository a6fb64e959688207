"""Which series of a DICOM study is the FLAIR, by its words and by its physics, and which T1 goes with it.

A FLAIR nulls fluid with a long inversion time and weighs T2 with a long echo time. The words of SeriesDescription come
first, ProtocolName only where there is no description (some scanners write the whole examination's protocol there);
the physics speaks where the words do not, and overrules them where it contradicts (a T1 FLAIR, a STIR).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainseg.study.headers import Header, told

_FLAIR = re.compile(r"flair|dark[ _-]*fluid|\btirm|_tirm")
_T1 = re.compile(r"(?<![a-z0-9])(?:[23]d|se|ax|sag|cor)?t1|mprage|mp2?[ _-]rage|spgr|bravo|(?<![a-z])tfl")
_T1_FLAIR = re.compile(r"(?<![a-z0-9])t1w?[ _-]*(?:w[ _-]*)?(?:tirm|flair|dark[ _-]*fluid)")
_NOT_T1 = re.compile(
    r"(?<![a-z])(?:t2|perf|dce|dsc|dyn|tof|angio|mr[av]|map|mapping|sub|subtraction|diff|dwi|dti|swi)(?![a-z])"
)
_CONTRAST = re.compile(
    r"(?<![a-z])(?:post(?![ -]?op)|gd|gad\w*|ce|km|contrast|c\+|mdc|inj\w*)(?![a-z])|\+ ?(?:c|gd|gad\w*|km)(?![a-z])|"
    r"(?<=t1)(?:ce|gd|c)(?![a-z])|t1post"
)
_NO_CONTRAST = re.compile(
    r"(?<![a-z])(?:pre(?![ -]?op)|nativ\w*|plain|non?[ _-]*(?:gd|gad\w*|contrast)|w/?o|without|"
    r"ohne|vor|sans|avant|senza|sin)(?![a-z])"
)
_ASIDE = re.compile(
    r"(?<![a-z])(?:loc|localizer|localiser|scout|survey|3[ -]?plane|adc|e?adc|fa|colfa|trace\w*|mip|mpr|reformat\w*|"
    r"screen ?s\w+|phoenix\w*|sub(?![ _-]?[0-9])|subtraction|fieldmap|cbf|cbv|mtt|ttp|calibration|asset)(?![a-z])"
)
_ASIDE_TYPES = {"LOCALIZER", "ADC", "FA", "TRACEW", "MPR", "MIN_IP", "PROJECTION IMAGE", "REFORMATTED", "SCREEN SAVE"}
_OTHER_MODALITIES = {"CT", "PT", "NM", "US", "XA", "CR", "DX", "MG", "RF", "OT"}
_NO_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "FID", "RWV", "PLAN", "M3D"}


@dataclass(frozen=True)
class Choice:
    """The series chosen from a study, as indices, and the reason.

    Attributes:
        flair: the FLAIR, or the series nearest to one where none is; None where the study holds no images.
        certain: whether its header says FLAIR.
        tied: the series among which nothing decides; empty where something did.
    """

    flair: int | None
    why: str
    certain: bool = False
    tied: tuple[int, ...] = ()
    pre: int | None = None
    post: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A series as far as the choice goes: the header of one instance and the number of slices."""

    header: Header
    slices: int


def flair_evidence(header: Header) -> tuple[bool, str]:
    """Whether a header says FLAIR, and the reason as a clause ("its description says FLAIR")."""
    if header.modality != "MR":
        said = header.modality if header.modality in _OTHER_MODALITIES else "something else"
        return False, f"its modality is {said if header.modality else 'not given'}, not MR"
    words = _words(header)
    by_physics = _physics(header)
    if _FLAIR.search(words) and not _T1_FLAIR.search(words):
        if by_physics is False:
            return False, f"its description says FLAIR but {_times(header)} is none"
        return True, "its description says FLAIR"
    if by_physics and not _T1.search(words):
        return True, f"{_times(header)} is that of a FLAIR"
    if words:
        return False, "its description does not say FLAIR"
    return False, "nothing in its header says FLAIR"


def choose(candidates: Sequence[Candidate], series: str | None = None) -> Choice:
    """The FLAIR, and the T1 before and after contrast, among the series of one study.

    Args:
        series: SeriesInstanceUID of the series to take for the FLAIR, whatever it says.
    """
    images = [i for i, c in enumerate(candidates) if c.header.image and c.header.modality not in _NO_IMAGES]
    if not images:
        return Choice(None, "it holds no images")
    original = [i for i in images if not _aside(candidates[i].header)]
    says = {i: flair_evidence(candidates[i].header) for i in images}
    if series is not None:
        wanted = next((i for i in images if candidates[i].header.series_uid == series), None)
        if wanted is None:
            return Choice(None, "it does not hold the series asked for")
        choice = Choice(wanted, f"asked for; {says[wanted][1]}", certain=says[wanted][0])
    else:
        flairs = [i for i in original if says[i][0]] or [i for i in images if says[i][0]]
        choice = _best_flair(candidates, flairs, says) if flairs else _no_flair(candidates, original or images, says)
    if choice.flair is None or (series is None and not choice.certain):
        return choice
    plane = _plane(candidates[choice.flair].header)
    t1 = [i for i in original if i != choice.flair and _is_t1(candidates[i].header)]
    chosen: dict[bool, int | None] = {}
    for contrast in (False, True):
        group = [i for i in t1 if _contrast(candidates[i].header) is contrast]
        chosen[contrast] = min(group, key=lambda i: _rank(candidates[i], plane), default=None)
    return Choice(choice.flair, choice.why, choice.certain, choice.tied, chosen[False], chosen[True])


def _best_flair(candidates: Sequence[Candidate], flairs: list[int], says: dict[int, tuple[bool, str]]) -> Choice:
    """The axial FLAIR, without contrast rather than with, with the most slices; of equals the one scanned first."""
    ranks = {i: _flair_rank(candidates[i]) for i in flairs}
    best = min(flairs, key=lambda i: ranks[i])
    tied = tuple(i for i in flairs if ranks[i] == ranks[best])
    why = says[best][1]
    others = [i for i in flairs if i != best]
    if others:
        taken, *rest = (
            f"{_plane(one.header)} with {_counted(one)}" for one in (candidates[i] for i in (best, *others))
        )
        why = f"{why}; of {len(flairs)} FLAIR series the one taken is {taken}, not the {' or '.join(rest)}"
    return Choice(best, why, certain=True, tied=tied if len(tied) > 1 else ())


def _no_flair(candidates: Sequence[Candidate], images: list[int], says: dict[int, tuple[bool, str]]) -> Choice:
    """The largest series of a study without FLAIR; where there are several, nothing decides."""
    best = min(images, key=lambda i: _rank(candidates[i], "axial"))
    if len(images) == 1:
        return Choice(best, says[best][1])
    return Choice(best, f"none of {len(images)} series says FLAIR", tied=tuple(images))


def listed(candidates: Sequence[Candidate], which: Sequence[int], most: int = 12) -> str:
    """Series for a person to choose from, by UID, description and size."""
    items = [_described(candidates[i]) for i in which[:most]]
    return "; ".join(items) + (f"; and {len(which) - most} more" if len(which) > most else "")


def _described(candidate: Candidate) -> str:
    header = candidate.header
    what = told(header.description or header.protocol) or "no description"
    return f"{header.series_uid} ({what}, {_counted(candidate)})"


def _counted(candidate: Candidate) -> str:
    return f"{candidate.slices} slice{'s' * (candidate.slices != 1)}"


def _words(header: Header) -> str:
    return (header.description or header.protocol).lower()


def _times(header: Header) -> str:
    values = (("TE", header.te_ms), ("TR", header.tr_ms), ("TI", header.ti_ms))
    return ", ".join(f"{name} {value:.0f} ms" for name, value in values if value is not None)


def _physics(header: Header) -> bool | None:
    """Whether echo, repetition and inversion time are those of a T2 FLAIR; None where too few are given.

    The repetition time may fall to 4800 ms in 3-D acquisitions, hence 4500.
    """
    te, tr, ti = header.te_ms, header.tr_ms, header.ti_ms
    if te is not None and 0 < te < 40:
        return False
    if not te or not tr or not ti:
        return None
    return te > 70 and 1500 <= ti <= 3000 and tr >= 4500


def _aside(header: Header) -> bool:
    """Whether a series is a localiser, a map, a reformat or otherwise derived from what was scanned."""
    if _ASIDE_TYPES & {value.upper() for value in header.image_type}:
        return True
    return header.image_type[:1] == ("DERIVED",) or _ASIDE.search(_words(header)) is not None


def _is_t1(header: Header) -> bool:
    if header.modality != "MR" or flair_evidence(header)[0]:
        return False
    words = _words(header)
    if _T1.search(words):
        return _NOT_T1.search(words) is None
    te, tr = header.te_ms, header.tr_ms
    return not words and "SE" in header.scanning and te is not None and tr is not None and te < 30 and 300 < tr < 1200


def _contrast(header: Header) -> bool:
    words = _words(header)
    if _NO_CONTRAST.search(words):
        return False
    return header.contrast or _CONTRAST.search(words) is not None


def _plane(header: Header) -> str:
    """Axial, sagittal or coronal: the axis that the normal of the slices is nearest to."""
    if header.orientation is None:
        return "of unknown plane"
    normal = np.cross(header.orientation[:3], header.orientation[3:])
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(normal)))]


def _flair_rank(candidate: Candidate) -> tuple[bool, bool, int, float]:
    """Lower is better."""
    other_plane, slices, number = _rank(candidate, "axial")
    return other_plane, _contrast(candidate.header), slices, number


def _rank(candidate: Candidate, plane: str) -> tuple[bool, int, float]:
    """Lower is better: in this plane, more slices, scanned earlier."""
    header = candidate.header
    number = float("inf") if header.number is None else float(header.number)
    return _plane(header) != plane, -candidate.slices, number
