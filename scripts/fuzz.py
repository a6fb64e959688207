#!/usr/bin/env python3
"""Thousands of files changed at random through what `brainseg segment` reads with; prints what became of them.

    python scripts/fuzz.py --out fuzzed                  # 5,000 files; run again, it goes on where it stopped
    python scripts/fuzz.py --out fuzzed --only "DICOM, JPEG" --count 20000

A crash, a hang of more than 20 s, more than 1.5 GB, an exception that is no error of the user's or a voxel that is not
finite ends it with exit code 1; the files lie in OUT/offenders then. Equal seeds make equal files. Needs `.[test]`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mutants.seeds import SEEDS
from mutants.trial import HARMLESS, Trial, trials

from brainseg.guarded import GuardedReader, Limits

HANG_SECONDS = 20.0
MOST_MEGABYTES = 1500
COUNT, SEED = 5000, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="for the journal and the offenders")
    parser.add_argument("--count", type=int, default=COUNT, help="files in all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", choices=list(SEEDS), action="append", help="these formats only")
    args = parser.parse_args()
    formats = args.only or list(SEEDS)
    args.out.mkdir(parents=True, exist_ok=True)
    journal = args.out / "journal.jsonl"
    done = recorded(journal)
    with journal.open("a", encoding="utf-8") as stream:
        for place, name in enumerate(formats):
            count = args.count // len(formats) + (place < args.count % len(formats))
            numbers = [number for number in range(count) if (name, number) not in done]
            for number, trial in trials_of(name, numbers, args.seed, args.out):
                done[name, number] = trial
                print(json.dumps({"format": name, "number": number, **asdict(trial)}), file=stream, flush=True)
    print(table(formats, done))
    print(f"\nThis process, which searches and unpacks, took up to {own_megabytes():.0f} MB.")
    sys.exit(any(offends(trial) for trial in done.values()) or own_megabytes() > MOST_MEGABYTES)


def recorded(journal: Path) -> dict[tuple[str, int], Trial]:
    """What was tried before."""
    done = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        row = json.loads(line)
        which = row.pop("format"), row.pop("number")
        done[which] = Trial(**row)
    return done


def trials_of(name: str, numbers: Sequence[int], seed: int, out: Path) -> Iterator[tuple[int, Trial]]:
    """Each of these mutants of a format, tried; those that offend are kept."""
    limits = Limits(seconds=HANG_SECONDS, seconds_per_mb=0)
    with GuardedReader(limits) as reader:
        for number, one, trial in trials(name, numbers, seed, reader):
            if offends(trial):
                kept = out / "offenders" / f"{name} {number}"
                shutil.rmtree(kept, ignore_errors=True)
                kept.mkdir(parents=True)
                (shutil.copytree if one.given.is_dir() else shutil.copy)(one.given, kept / one.given.name)
                print(f"{trial.outcome}: {kept}: {trial.said}", file=sys.stderr)
            yield number, trial


def offends(trial: Trial) -> bool:
    return trial.outcome not in HARMLESS or trial.seconds > HANG_SECONDS or trial.megabytes > MOST_MEGABYTES


def own_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def table(formats: Sequence[str], done: dict[tuple[str, int], Trial]) -> str:
    """A row a format, and one for all."""
    lines = [
        "| format | files | read | refused | crashes | hangs | other | slowest, s | peak memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in [*formats, "all"]:
        rows = [trial for (own, _), trial in done.items() if own == name or (name == "all" and own in formats)]
        if not rows:
            continue
        counts = [sum(row.outcome == outcome for row in rows) for outcome in ("read", "refused", "crash", "hang")]
        cells = [len(rows), *counts, len(rows) - sum(counts)]
        slowest, most = max(row.seconds for row in rows), max(row.megabytes for row in rows)
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {slowest:.2f} | {most:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
