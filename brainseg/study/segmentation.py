"""Published DICOM SEGs as ground truth: which of those in a study is the tumour on its FLAIR, by their headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brainseg.study import headers

if TYPE_CHECKING:
    from brainseg.study.patient import Patient

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # Segmentation, Label Map Segmentation
_TAGS = ["SOPClassUID", "SeriesDescription", "FrameOfReferenceUID", "ReferencedSeriesSequence", "SegmentSequence"]
_TUMOUR = re.compile(
    r"tumou?r|o?edema|necro|enhanc|lesion|gliom|gliobl|neoplas|flair|hyperintens|infiltrat|morphologically (?:abnormal|"
    r"altered)"
)
_BY_HAND = re.compile(r"correct|manual|radiolog|expert|consensus|(?<![a-z])(?:gt|ground ?truth)(?![a-z])")
_OWN = "brainseg"

Drawn = Literal["by hand", "by an algorithm"]


@dataclass(frozen=True)
class Segment:
    """One segment: its number, what it says it is (label, type, category; lower case), and its algorithm type."""

    number: int
    words: str
    algorithm: str

    @property
    def tumour(self) -> bool:
        """Whether it is one of a tumour or of a part of it."""
        return _TUMOUR.search(self.words) is not None


@dataclass(frozen=True)
class SegHeader:
    """What a DICOM SEG says of itself.

    Attributes:
        refers_to: SeriesInstanceUIDs of the series that it was drawn on.
        frame: FrameOfReferenceUID.
    """

    file: Path
    description: str
    refers_to: frozenset[str]
    frame: str
    segments: tuple[Segment, ...]

    @property
    def tumour(self) -> tuple[int, ...]:
        """Numbers of the segments that are of the tumour."""
        return tuple(one.number for one in self.segments if one.tumour)

    @property
    def drawn(self) -> Drawn:
        """By hand where its description says so, or no segment's SegmentAlgorithmType is AUTOMATIC."""
        if _BY_HAND.search(self.description.lower()):
            return "by hand"
        automatic = any(one.algorithm not in ("MANUAL", "SEMIAUTOMATIC") for one in self.segments)
        return "by an algorithm" if automatic else "by hand"


def read_seg_header(file: Path) -> SegHeader:
    """The header of a DICOM SEG.

    Raises:
        ValueError: it is none, or is damaged.
    """
    with headers.quiet():
        ds = headers.dataset(file, _TAGS)
        if headers.text(ds, "SOPClassUID") not in SOP_CLASSES:
            raise ValueError("not a segmentation")
        try:
            return SegHeader(
                file=file,
                description=headers.shown(headers.text(ds, "SeriesDescription")),
                refers_to=frozenset(
                    headers.text(item, "SeriesInstanceUID") for item in _items(ds, "ReferencedSeriesSequence")
                )
                - {""},
                frame=headers.text(ds, "FrameOfReferenceUID"),
                segments=tuple(_segment(item) for item in _items(ds, "SegmentSequence")),
            )
        except Exception as error:  # sequences are parsed only now, and may raise anything
            raise ValueError(type(error).__name__) from None


def choose_truth(files: Iterable[Path], flair: Path, flair_uid: str) -> tuple[SegHeader | None, str]:
    """The SEG among `files` that is the ground truth of a FLAIR, and a clause that says which, or why there is none.

    It must name a tumour and share the frame of reference of the FLAIR. One that was drawn on the FLAIR comes before
    one on another series, then one by hand before one by an algorithm; where that leaves several, none is taken. What
    brainseg itself wrote is never ground truth.

    Args:
        files: the SEGs of the FLAIR's study.
        flair: one instance of the FLAIR.
        flair_uid: its SeriesInstanceUID.
    """
    read: list[SegHeader] = []
    for file in files:
        try:
            read.append(read_seg_header(file))
        except ValueError:
            continue
    found = [one for one in read if _OWN not in one.description.lower()]
    if not found:
        return None, "a DICOM SEG lies beside it and is not used: damaged, or written by brainseg"
    named = [one for one in found if one.tumour]
    if not named:
        return None, "a DICOM SEG lies beside it and names no tumour"
    frame = _frame_of(flair)
    usable = [one for one in named if one.frame == frame and frame]
    if not usable:
        return None, "a DICOM SEG lies beside it in another frame of reference"
    own = [one for one in usable if flair_uid in one.refers_to] or usable
    best = [one for one in own if one.drawn == "by hand"] or own
    if len(best) > 1:
        return None, f"{len(best)} DICOM SEGs of the tumour lie beside it and none is taken"
    where = "" if flair_uid in best[0].refers_to else ", on another series"
    return best[
        0
    ], f"its mask is the DICOM SEG {headers.told(best[0].description) or best[0].file.name}, {best[0].drawn}{where}"


def truth_cautions(patients: Sequence[Patient]) -> tuple[str, ...]:
    """What must be said of figures against the DICOM SEGs of `patients`: that an algorithm drew them."""
    segs = [one.masks[0] for one in patients if one.flair.layout == "dicom" and one.masks]
    automatic = sum(read_seg_header(file).drawn == "by an algorithm" for file in segs)
    if not automatic:
        return ()
    drew = f"an algorithm drew {automatic} of the {len(patients)} masks"
    return (f"{drew}, and against those the figures say how alike it and what is scored are",)


def _frame_of(file: Path) -> str:
    with headers.quiet():
        try:
            return headers.text(headers.dataset(file, ["FrameOfReferenceUID"]), "FrameOfReferenceUID")
        except ValueError:
            return ""


def _items(ds: Any, keyword: str) -> list[Any]:
    return list(ds.get(keyword) or ())


def _segment(item: Any) -> Segment:
    meanings = [
        headers.text(code, "CodeMeaning")
        for keyword in ("SegmentedPropertyTypeCodeSequence", "SegmentedPropertyCategoryCodeSequence")
        for code in _items(item, keyword)
    ]
    words = " ".join((headers.text(item, "SegmentLabel"), headers.text(item, "SegmentDescription"), *meanings))
    return Segment(int(item.SegmentNumber), words.lower(), headers.text(item, "SegmentAlgorithmType"))
