"""Masks as TIFF slices, named and sized like the slices they belong to."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainseg.case import Case
from brainseg.errors import InputError
from brainseg.writers.atomic import replacing_all


def write_tiff_masks(folder: Path, case: Case, mask: NDArray[Any]) -> list[Path]:
    """Writes one `<slice>_mask.tif` for each of `case.files`, uint8 0/255, and returns their paths.

    Rows and columns are those of the source slice (column = X, row = Y). A case of one multipage file gives one
    multipage mask.

    Args:
        mask: (X, Y, Z) on the case's grid; nonzero voxels become 255.

    Raises:
        InputError: if two slices would have the same mask file.
        ValueError: if `mask` or `case.files` does not fit the case's grid.
    """
    import tifffile

    if np.shape(mask) != case.shape:
        raise ValueError(f"mask must have the case's shape {case.shape}, got {np.shape(mask)}")
    slices = np.where(np.transpose(mask, (2, 1, 0)) != 0, 255, 0).astype(np.uint8)
    pages = {folder / f"{file.stem}_mask.tif": page for file, page in zip(case.files, slices, strict=False)}
    if len(case.files) == 1:
        pages = dict.fromkeys(pages, slices)
    elif len(case.files) != len(slices):
        raise ValueError(f"expected one file for each of {len(slices)} slices, got {len(case.files)}")
    elif len(pages) != len(slices):
        raise InputError(case.name, "two slices differ only in their suffix", "give one file for each slice")
    with replacing_all(list(pages)) as partials:
        for partial, page in zip(partials, pages.values(), strict=True):
            written = BytesIO()  # not the file: of a full disk tifffile says nothing that tells it from other errors
            # no description and no software tag: equal masks give equal bytes
            tifffile.imwrite(written, page, photometric="minisblack", metadata=None, software=False)
            partial.write_bytes(written.getbuffer())
    return list(pages)
