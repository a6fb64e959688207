"""slices.webp: a scan's axial slices side by side, from which its pictures are drawn again when its mask changes.

The input itself is not among the results, so this is what `brainseg report` draws from. Grey values are kept as a
screen shows them, in eight bits and lossy; nothing is measured on them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainseg.axial import GREYS
from brainseg.errors import InputError
from brainseg.writers.atomic import replacing

if TYPE_CHECKING:
    from PIL.Image import Image

SLICES = "slices.webp"
WIDEST_TILE = 320  # pixels
MOST_PIXELS = 60_000_000
QUALITY = 80

Tiles = NDArray[np.uint8]


@dataclass(frozen=True)
class Sheet:
    """How slices of one size are laid out in one picture, row by row.

    Attributes:
        count: number of slices.
        width, height: of a slice in the picture, in pixels.
        columns: slices side by side.
    """

    count: int
    width: int
    height: int
    columns: int

    @classmethod
    def of(cls, count: int, rows: int, columns: int) -> Sheet:
        """The sheet of `count` slices of `rows` x `columns` pixels, made smaller where they are large or many."""
        scale = min(1.0, WIDEST_TILE / max(rows, columns), math.sqrt(MOST_PIXELS / (count * rows * columns)))
        return cls(count, max(1, int(columns * scale)), max(1, int(rows * scale)), math.ceil(math.sqrt(count)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture."""
        return self.columns * self.width, math.ceil(self.count / self.columns) * self.height


def write_sheet(path: Path, tiles: Sequence[Tiles]) -> None:
    """Writes slices (rows x columns, from foot to head, `AxialSlice.flair` `in_eight_bits`) to one WebP."""
    content = webp(sheet_picture(tiles, Sheet.of(len(tiles), *tiles[0].shape)), QUALITY)
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_slices(path: Path, count: int, rows: int, columns: int) -> tuple[Tiles, Sheet]:
    """The slices that `write_sheet` wrote, `(count, height, width)` of the sheet, 0 to 255.

    Args:
        path: of slices.webp.
        count: of slices of the scan.
        rows, columns: of one, in pixels of the scan.

    Raises:
        InputError: if it is not the picture of such a scan.
    """
    import PIL.Image

    sheet = Sheet.of(count, rows, columns)
    try:
        with PIL.Image.open(path) as image:
            if image.size != sheet.size:
                raise InputError(path, "is not the picture of this scan", "remove it, or segment again")
            grey = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(path, "cannot be read as a picture", "remove it, or segment again") from error
    down = sheet.size[1] // sheet.height
    tiles = grey.reshape(down, sheet.height, sheet.columns, sheet.width).swapaxes(1, 2)
    return tiles.reshape(-1, sheet.height, sheet.width)[:count], sheet


def flair_of(tiles: Tiles, rows: int, columns: int) -> NDArray[np.float32]:
    """The slices of `read_slices` in the scan's own pixels, `(slices, rows, columns)`, 0 to 1."""
    import PIL.Image

    whole = np.empty((len(tiles), rows, columns), np.float32)
    for k, tile in enumerate(tiles):
        picture = PIL.Image.fromarray(tile)
        whole[k] = np.asarray(picture.resize((columns, rows), PIL.Image.Resampling.BILINEAR)) / np.float32(GREYS)
    return whole


def sheet_picture(tiles: Sequence[Tiles] | Tiles, sheet: Sheet) -> Image:
    """`tiles` (0 to 255), brought to the sheet's size of slice, in one grey picture."""
    import PIL.Image

    picture = PIL.Image.new("L", sheet.size)
    for k, tile in enumerate(tiles):
        one = PIL.Image.fromarray(tile)
        if one.size != (sheet.width, sheet.height):
            one = one.resize((sheet.width, sheet.height), PIL.Image.Resampling.BOX)
        picture.paste(one, (k % sheet.columns * sheet.width, k // sheet.columns * sheet.height))
    return picture


def webp(picture: Image, quality: int) -> bytes:
    """A grey picture as WebP, about half as large as a JPEG that looks the same."""
    content = io.BytesIO()
    picture.convert("RGB").save(content, "WEBP", quality=quality, method=2)
    return content.getvalue()
