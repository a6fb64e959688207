"""Changes to a file at random: bytes, numbers, pieces cut, doubled, inserted and swapped, and fields of its header."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from mutants.fields import Number
from mutants.seeds import Seed

HEADER = 512
INTEGERS = [0, 1, 2, 3, 7, 8, 15, 16, 64, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536, 2**24]
INTEGERS += [2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**33, 2**63 - 1, 2**64 - 1]
REALS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-3, 0.5, 352.0, 1e10, 3e38, -3e38, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    b"0",
    b"1",
    b"-1",
    b"2",
    b"3.5",
    b"1e400",
    b"nan",
    b"inf",
    b"65536",
    b"4294967295",
    b"99999999999999999999",
    b"",
]
AS_IT_IS = 0.5  # how often a packed file is changed as it lies, and not what it holds


def mutant(seed: Seed, rng: random.Random) -> bytes:
    """The file of a seed with one to three changes."""
    packed = seed.packed(seed.content)
    as_it_is = packed == seed.content or rng.random() < AS_IT_IS
    data = bytearray(packed if as_it_is else seed.content)
    has_fields = bool(seed.fields) and (packed == seed.content or not as_it_is)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if has_fields and rng.random() < 0.5:
            _field(data, rng, rng.choice(seed.fields))
        else:
            rng.choice(CHANGES)(data, rng, seed.core if not as_it_is or packed == seed.content else 0)
    if seed.file.suffix == ".png" and rng.random() < 0.8:
        mend_png(data)
    return bytes(data) if as_it_is else seed.packed(bytes(data))


def _place(data: bytearray, rng: random.Random, core: int) -> int:
    """Somewhere in the file: anywhere, in its first bytes, or in the first bytes of its core."""
    start, length = rng.choice([(0, len(data)), (0, HEADER), (core, HEADER)])
    return min(start + rng.randrange(max(1, length)), max(0, len(data) - 1))


def _flip(data: bytearray, rng: random.Random, core: int) -> None:
    for _ in range(rng.choice([1, 1, 2, 8, 32])):
        if data:
            data[_place(data, rng, core)] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, rng: random.Random, core: int) -> None:
    for _ in range(rng.choice([1, 2, 4, 16])):
        if data:
            data[_place(data, rng, core)] = rng.choice(
                [0, 1, 127, 128, 255, rng.randrange(256), 48 + rng.randrange(10)]
            )


def _integer(data: bytearray, rng: random.Random, core: int) -> None:
    size, order = rng.choice([2, 4, 8]), rng.choice(["little", "big"])
    at = _place(data, rng, core)
    value = (rng.choice(INTEGERS) % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    data[at : at + size] = value[: len(data) - at]


def _cut(data: bytearray, rng: random.Random, core: int) -> None:
    del data[_place(data, rng, core) :]


def _remove(data: bytearray, rng: random.Random, core: int) -> None:
    at = _place(data, rng, core)
    del data[at : at + rng.choice([1, 2, 4, 16, 256])]


def _double(data: bytearray, rng: random.Random, core: int) -> None:
    at, length = _place(data, rng, core), rng.choice([1, 4, 16, 64, 1024])
    data[at:at] = data[at : at + length] * rng.choice([1, 1, 3])


def _insert(data: bytearray, rng: random.Random, core: int) -> None:
    at = _place(data, rng, core)
    data[at:at] = rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(rng.choice([1, 3, 16, 200]))])


def _splice(data: bytearray, rng: random.Random, core: int) -> None:
    length = rng.choice([2, 4, 8, 64, 512])
    source, target = _place(data, rng, core), _place(data, rng, core)
    piece = data[source : source + length]
    data[target : target + len(piece)] = piece


CHANGES: list[Callable[[bytearray, random.Random, int], None]] = [
    _flip, _byte, _integer, _cut, _remove, _double, _insert, _splice,
]  # fmt: skip


def _field(data: bytearray, rng: random.Random, number: Number) -> None:
    """Another value for a number of the header: a telling one, or one near its own."""
    if number.form == "text":
        data[number.at : number.at + number.length] = rng.choice(TEXTS)
        return
    size = struct.calcsize(number.form)
    if number.at + size > len(data):
        return
    if number.form[-1] == "f":
        struct.pack_into(number.form, data, number.at, rng.choice(REALS))
        return
    (own,) = struct.unpack_from(number.form, data, number.at)
    value = rng.choice([*INTEGERS, own + 1, own - 1, own * 2, own // 2, own << 8, -own, rng.randrange(2**16)])
    order = "big" if number.form[0] == ">" else "little"
    data[number.at : number.at + size] = (value % 2 ** (8 * size)).to_bytes(size, order)  # type: ignore[arg-type]


def mend_png(data: bytearray) -> None:
    """Makes the chunks' checksums right again, so that more than those is put to the test."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return
        struct.pack_into(">I", data, at + 8 + length, zlib.crc32(data[at + 4 : at + 8 + length]))
        at += 12 + length
