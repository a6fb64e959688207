"""Names for patients, made from folder and file names: safe as a file name, unique, in natural order."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brainseg.study.patient import Patient

LONGEST = 100


@dataclass(frozen=True)
class Found:
    """A patient without its final name.

    Attributes:
        patient: complete but for `name`.
        parts: words that tell it from others, outermost folder first.
        least: how many of the last parts the name has at least; more are added only to tell two patients apart.
    """

    patient: Patient
    parts: tuple[str, ...]
    least: int = 1


def natural(text: str | Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which 2 comes before 10."""
    pieces = re.split(r"([0-9]+)", str(text))
    return tuple((0, int(piece), piece) if i % 2 else (1, 0, piece.casefold()) for i, piece in enumerate(pieces))


def safe_name(text: str) -> str:
    """`text` in letters, digits and `._-`: accents dropped, the rest replaced; "case" when nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain)[:LONGEST].strip("._-") or "case"


def unique(names: Iterable[str]) -> list[str]:
    """`names` with -2, -3 appended to those that came before, however they are capitalised."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate.casefold() in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate.casefold())
        result.append(candidate)
    return result


def named(found: Sequence[Found]) -> list[Patient]:
    """The patients with their names, in natural order."""
    takes = [min(item.least, len(item.parts)) for item in found]

    def attempt() -> list[str]:
        return [safe_name("_".join(item.parts[-take:])) for item, take in zip(found, takes, strict=True)]

    names = attempt()
    while True:
        count = Counter(name.casefold() for name in names)
        longer = [i for i, name in enumerate(names) if count[name.casefold()] > 1 and takes[i] < len(found[i].parts)]
        if not longer:
            break
        for i in longer:
            takes[i] += 1
        names = attempt()
    order = sorted(range(len(found)), key=lambda i: (natural(names[i]), natural(found[i].patient.path)))
    final = unique(names[i] for i in order)
    return [replace(found[i].patient, name=name) for i, name in zip(order, final, strict=True)]
