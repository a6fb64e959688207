"""The visits of one patient side by side: later scans laid over the first, each with the contour of its own mask.

For the eye only. Volumes are never measured on what is resampled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainseg.case import FLAIR, Case
from brainseg.guarded import GuardedReader
from brainseg.job import Options
from brainseg.readers.volume import Volume
from brainseg.record import MASK
from brainseg.visits import Given

if TYPE_CHECKING:
    from brainseg.axial import AxialSlice

MOST_VISITS = 6


@dataclass(frozen=True)
class SideBySide:
    """Matched axial slices on the baseline's grid.

    Attributes:
        rows: one for each place in the head, of one slice a visit; none where `why` says why.
        captions: of each visit shown.
        why: why there is no picture, or why not all visits are in it; empty where all are.
    """

    rows: tuple[tuple[AxialSlice, ...], ...] = ()
    captions: tuple[str, ...] = ()
    why: str = ""


def side_by_side(
    visits: Sequence[Given],
    folders: Sequence[Path],
    captions: Sequence[str],
    options: Options,
    reader: GuardedReader,
) -> SideBySide:
    """The picture of `visits`, the baseline first, whose results are in `folders`."""
    without = [visit.name for visit in visits if visit.job is None]
    if without:
        return SideBySide(why=f"results hold no scan; give the scans themselves ({', '.join(without)})")
    shown = [0, *range(1, len(visits))[-(MOST_VISITS - 1) :]]
    baseline = _case(visits[0], options, reader)
    if baseline.spacing_mm is None:
        return SideBySide(why="without a spacing scans cannot be laid over each other; give --spacing X Y Z")
    placed = [_placed(baseline, _mask(folders[0]))]
    for k in shown[1:]:
        moved = _laid_over(baseline, _case(visits[k], options, reader), _mask(folders[k]))
        if moved is None:
            return SideBySide(why=f"{visits[k].name} could not be laid over {visits[0].name}; is it the same head?")
        placed.append(moved)
    places = _places(np.array([[np.count_nonzero(one.mask) for one in slices] for slices in placed]).sum(axis=0))
    why = "" if len(shown) == len(visits) else f"the baseline and the last {len(shown) - 1} visits are shown"
    return SideBySide(
        tuple(tuple(slices[place] for slices in placed) for place in places), tuple(captions[k] for k in shown), why
    )


def _case(visit: Given, options: Options, reader: GuardedReader) -> Case:
    if visit.job is None:
        raise ValueError("a visit without a scan cannot be shown")
    return reader.read_patient(
        visit.job.patient, spacing_mm=options.spacing_mm, force=options.force, allow_gap=options.allow_gap
    )


def _mask(folder: Path) -> NDArray[np.uint8]:
    from brainseg.readers.nifti import read_nifti_mask

    return read_nifti_mask(folder / MASK)


def _placed(case: Case, mask: NDArray[np.uint8]) -> list[AxialSlice]:
    """All axial slices, from foot to head."""
    from brainseg.axial import axial_slices

    return list(axial_slices(case, mask))


def _laid_over(baseline: Case, case: Case, mask: NDArray[np.uint8]) -> list[AxialSlice] | None:
    """The slices of `case` on the grid of the baseline; None where the two cannot be brought together."""
    from brainseg.registration import carried, register

    fixed, moving = (Volume(one.image[FLAIR], one.affine, one.spacing_mm, one.files) for one in (baseline, case))
    try:
        found = register(fixed, moving)
    except RuntimeError:  # whatever ITK throws: the picture is left out, the measurements stand
        return None
    if not found.sound:
        return None
    flair = carried(moving, found.transform, fixed).array
    contour = carried(replace(moving, array=mask.astype(np.float32)), found.transform, fixed).array >= 0.5
    image = np.broadcast_to(flair, baseline.image.shape)
    return _placed(replace(baseline, image=image), contour.astype(np.uint8))


def _places(areas: NDArray[np.intp]) -> list[int]:
    """The slice with most of the masks, and those halfway to their ends; ascending."""
    marked = np.flatnonzero(areas)
    if not marked.size:
        return [len(areas) // 2]
    largest = int(areas.argmax())
    return sorted({largest, (largest + int(marked[0])) // 2, (largest + int(marked[-1]) + 1) // 2})
