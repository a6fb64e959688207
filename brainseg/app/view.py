"""The slices of a result, to go through one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import AxialSlice, axial_slices, head_box
from brainseg.case import Case
from brainseg.writers.overlay import MASK_COLOUR, TRUTH_COLOUR
from brainseg.writers.slice_view import Box, slice_svg


@dataclass(frozen=True)
class View:
    """The slices of a result, from foot to head, and the part of them that is shown."""

    slices: tuple[AxialSlice, ...]
    box: Box

    @classmethod
    def of(cls, case: Case, mask: NDArray[np.uint8], truth: NDArray[np.uint8] | None) -> View:
        """The slices of `case` with its `mask`, and the true one where it is known, all (X, Y, Z)."""
        slices = tuple(axial_slices(case, mask, truth))
        return cls(slices, head_box(slices))

    def picture(self, place: int) -> str:
        """The slice at `place`, counted from 1 at the foot, as HTML; the nearest one where there is none."""
        one = self.slices[min(max(place, 1), len(self.slices)) - 1]
        legend = f'<span style="color: {MASK_COLOUR}">━ brainseg</span>'
        if one.truth is not None:
            legend += f' <span style="color: {TRUTH_COLOUR}">╍ mask beside the scan</span>'
        return f"{slice_svg(one, self.box)}<p>Slice {one.number} of {one.count} {legend}</p>"

    def fullest(self) -> int:
        """The place of the slice with most of the mask, else of the true one, else of the middle one."""
        for masks in ([one.mask for one in self.slices], [one.truth for one in self.slices]):
            areas = [0 if mask is None else int(np.count_nonzero(mask)) for mask in masks]
            if any(areas):
                return areas.index(max(areas)) + 1
        return (len(self.slices) + 1) // 2
