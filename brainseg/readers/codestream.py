"""What a JPEG, JPEG-LS or JPEG 2000 codestream says of its own size, which is what its decoder allocates."""

from __future__ import annotations

import re
import struct

BOXED = b"\x00\x00\x00\x0cjP"  # a JP2 file around the codestream
MOST_BOXES = 4096
_J2K = b"\xff\x4f\xff\x51"  # ISO 15444-1 A.5.1: SOC, SIZ
_JPEG = b"\xff\xd8"
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # ISO 10918-1 B.1.1.3: SOF; ISO 14495-1 C.1.1
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_FILL = re.compile(rb"\xff+")


def frame_size(stream: bytes) -> tuple[int, int, int] | None:
    """Columns, rows and components of a codestream; None where it does not say."""
    if stream.startswith(BOXED):
        stream = stream[max(0, stream.find(_J2K, 0, MOST_BOXES)) :]
    if stream.startswith(_J2K) and len(stream) >= 42:
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        (components,) = struct.unpack_from(">H", stream, 40)
        return right - left, bottom - top, components
    if not stream.startswith(_JPEG):
        return None
    at = len(_JPEG)
    while fill := _FILL.match(stream, at):
        at = fill.end()
        if at + 8 > len(stream):
            return None
        marker = stream[at]
        if marker in _FRAMES:
            rows, columns, components = struct.unpack_from(">HHB", stream, at + 4)
            return columns, rows, components
        at += 1 if marker in _WITHOUT_LENGTH else 1 + int(struct.unpack_from(">H", stream, at + 1)[0])
    return None
