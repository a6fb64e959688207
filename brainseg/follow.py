"""`follow`: one patient's visits measured, put in order and compared with the first of them.

Volumes are those of each visit's own mask on its own grid. Dates only make intervals: none is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from brainseg.case import Spacing, spacing_of
from brainseg.errors import InputError
from brainseg.guarded import GuardedReader
from brainseg.job import Options
from brainseg.measures import volume_ml, volume_voxels
from brainseg.quality import FLAGS
from brainseg.record import MASK, Network, made_of
from brainseg.side_by_side import SideBySide, side_by_side
from brainseg.visits import Given, days_between, networks_of, open_visits, recorded
from brainseg.volume_error import LEVEL, VOLUME_ERRORS, VolumeError, known_error, volume_interval
from brainseg.weights import file_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

DAYS_PER_MONTH = 365.25 / 12
SHORTEST_DAYS = 28
SAME_VOXEL = 0.1  # of the volume of a voxel
FOLLOW_FLAGS: Mapping[str, str] = {
    **FLAGS,
    "short_interval": f"less than {SHORTEST_DAYS} days from the baseline: a rate per month multiplies the error",
    "other_network": "not measured with the baseline's weights and threshold; the difference may be theirs",
    "other_sequences": "not measured from the sequences that the baseline has; the difference may come from that",
    "other_voxels": "voxels of another size than the baseline's; thick slices make a volume coarser",
    "mask_changed": "the mask is not the one that segment wrote; what it holds now is measured",
}


@dataclass(frozen=True)
class Visit:
    """One visit, measured on its own grid.

    Attributes:
        name: from the path that was given.
        days: since the baseline; None where not known.
        volume_ml: None where the spacing is unknown.
        low, high: the true volumes, mL, that 95% of such measurements come from; `high` is None for a volume of 0,
            both where the cross-validation's errors are not those of such a measurement.
        voxels: of the mask.
        voxel_ml: volume of one; None where the spacing is unknown.
        flags: keys of `FOLLOW_FLAGS`.
        networks: that segmented it; None where that is not recorded.
        error: how far such a volume may err; None where that is not known.
    """

    name: str
    days: int | None
    volume_ml: float | None
    low: float | None
    high: float | None
    voxels: int
    voxel_ml: float | None
    flags: tuple[str, ...]
    networks: tuple[Network, ...] | None
    error: VolumeError | None = None


@dataclass(frozen=True)
class Change:
    """From the baseline to a later visit; whatever cannot be known is None.

    Attributes:
        ml: difference of the volumes.
        percent: of the baseline's volume.
        percent_per_month: `percent` by the number of months (30.44 days) between them; not compounded.
        exceeds: the percentage of pairs of measurements of an unchanged volume that differ by less, see `VolumeError`.
    """

    ml: float | None = None
    percent: float | None = None
    percent_per_month: float | None = None
    exceeds: int | None = None

    @property
    def beyond_error(self) -> bool | None:
        """Whether 95% of such pairs differ by less."""
        return None if self.exceeds is None else self.exceeds >= LEVEL


@dataclass(frozen=True)
class Followed:
    """A patient over time.

    Attributes:
        visits: by time where it is known, else as given; the first is the baseline.
        changes: of each visit after the first.
        when: where the intervals come from, or why there are none.
        notes: what else to know of the whole, a sentence each.
        picture: slices of all visits on the baseline's grid, or why there are none.
    """

    visits: tuple[Visit, ...]
    changes: tuple[Change, ...]
    when: str
    notes: tuple[str, ...]
    picture: SideBySide


def follow(
    inputs: Sequence[Path],
    out: Path,
    options: Options,
    *,
    dates: Sequence[date] | None = None,
    days: Sequence[int] | None = None,
    same_patient: bool = False,
    advance: Callable[[str], None] = lambda line: None,
) -> Followed:
    """Measures a patient's visits and compares each with the earliest.

    Args:
        inputs: a scan, or a folder of results of `segment`, for each visit; scans are segmented into `out`/<visit>.
        out: folder for the results of scans.
        options: how scans are segmented; `spacing_mm` also counts for results without one.
        dates, days: when the visits were, in the order of `inputs`, in place of what the scans say.
        same_patient: whether differing PatientIDs are those of one patient.
        advance: called with a line for each visit that is measured.

    Raises:
        UsageError: see `open_visits` and `days_between`.
        InputError: a visit that cannot be read or segmented.
        MachineError: `out` cannot be written.
        UntrustedBundleError: the bundle is not what it should be.
    """
    with GuardedReader() as reader, ExitStack() as stack:
        given = open_visits(inputs, options, stack, reader, same_patient=same_patient)
        since, when = days_between(given, dates, days)
        order = list(range(len(given))) if since is None else sorted(range(len(given)), key=lambda k: (since[k], k))
        notes = []
        if order[0] != 0:
            notes.append(f"{given[order[0]].name} is the earliest and therefore the baseline, not {given[0].name}")
        folders = []
        for visit in given:
            folders.append(visit.folder or _segmented(visit, out, options))
            advance(f"{visit.name}: measured")
        measured = [
            _measured(given[k].name, folders[k], None if since is None else since[k], options.spacing_mm) for k in order
        ]
        visits = [measured[0], *(_beside(visit, measured[0]) for visit in measured[1:])]
        captions = [when_of(visit, number) for number, visit in enumerate(visits)]
        picture = side_by_side([given[k] for k in order], [folders[k] for k in order], captions, options, reader)
    notes += _notes(visits)
    return Followed(tuple(visits), tuple(change(visits[0], one) for one in visits[1:]), when, tuple(notes), picture)


def when_of(visit: Visit, number: int) -> str:
    """A visit in a word or two: "baseline", then "day 92", or "visit 2" where its day is not known."""
    if number == 0:
        return "baseline"
    return f"visit {number + 1}" if visit.days is None else f"day {visit.days}"


def change(before: Visit, after: Visit) -> Change:
    """From one visit to a later one."""
    if before.volume_ml is None or after.volume_ml is None:
        return Change()
    ml = after.volume_ml - before.volume_ml
    percent = 100 * ml / before.volume_ml if before.volume_ml > 0 else None
    days = None if before.days is None or after.days is None else after.days - before.days
    return Change(
        ml=ml,
        percent=percent,
        percent_per_month=None if percent is None or not days else percent / (days / DAYS_PER_MONTH),
        exceeds=_exceeds(before, after),
    )


def _exceeds(before: Visit, after: Visit) -> int | None:
    """By the errors of either visit, the larger ones; None where those of one are not known."""
    found = [
        None if one.error is None else one.error.exceeds(before.volume_ml or 0, after.volume_ml or 0)
        for one in (before, after)
    ]
    return None if None in found else min(one for one in found if one is not None)


def _segmented(visit: Given, out: Path, options: Options) -> Path:
    """The folder of a scan's case, segmented into `out`/<visit> unless it was before; without a SEG, which is dated."""
    from brainseg.cohort import run_cohort

    root = out / visit.name
    options = replace(options, formats=("nifti",))
    outcome = run_cohort([visit.path], root, options, lambda total: nullcontext(lambda line: None))
    if outcome.failures:
        failure = outcome.failures[0]
        raise InputError(visit.path, failure.cause, failure.remedy)
    return root / outcome.rows[0].case


def _measured(name: str, folder: Path, days: int | None, given_spacing: Spacing | None) -> Visit:
    from brainseg.readers.nifti import nifti_grid, read_nifti_mask

    record = recorded(folder)
    row, made = record["row"], made_of(record)
    mask, grid = read_nifti_mask(folder / MASK), nifti_grid(folder / MASK)
    flags = {str(flag) for flag in row["flags"]}
    spacing = given_spacing if "spacing_unknown" in flags else spacing_of(grid.affine)
    volume = None if spacing is None else volume_ml(mask, spacing)
    edited = file_sha256(folder / MASK) != made.mask
    error = None if edited else known_error(made.errors_of)
    low, high = volume_interval(volume, error)
    flags -= {"spacing_unknown"} if spacing is not None else set()
    voxels = volume_voxels(mask)
    return Visit(
        name=name,
        days=days,
        volume_ml=volume,
        low=low,
        high=high,
        voxels=voxels,
        voxel_ml=None if spacing is None else spacing[0] * spacing[1] * spacing[2] / 1000,
        flags=_in_order(flags | ({"mask_changed"} if edited and "mask_edited" not in flags else set())),
        networks=networks_of(folder, made),
        error=error,
    )


def _beside(visit: Visit, baseline: Visit) -> Visit:
    """`visit` with the flags of what makes it hard to compare with the baseline."""
    flags = set(visit.flags)
    if visit.days is not None and baseline.days is not None and visit.days - baseline.days < SHORTEST_DAYS:
        flags.add("short_interval")
    if visit.networks is not None and baseline.networks is not None and visit.networks != baseline.networks:
        flags.add("other_network")
    if ("sequences_missing" in visit.flags) != ("sequences_missing" in baseline.flags):
        flags.add("other_sequences")
    if visit.voxel_ml and baseline.voxel_ml and abs(visit.voxel_ml / baseline.voxel_ml - 1) > SAME_VOXEL:
        flags.add("other_voxels")
    return replace(visit, flags=_in_order(flags))


def _in_order(flags: set[str]) -> tuple[str, ...]:
    return tuple(flag for flag in FOLLOW_FLAGS if flag in flags)


def _notes(visits: Sequence[Visit]) -> list[str]:
    notes = []
    blind = [visit.name for visit in visits if visit.volume_ml is None]
    if blind:
        notes.append(
            f"{', '.join(blind)}: the slices carry no spacing, so there is no volume in mL. Counts of voxels compare "
            "only where all voxels have one size, which the files cannot say; give --spacing X Y Z"
        )
    if any(visit.networks is None for visit in visits):
        notes.append("For some visits it is not recorded which network measured them; make sure that it was the same")
    unknown = [visit.name for visit in visits if visit.volume_ml is not None and visit.low is None]
    if unknown:
        notes.append(
            f"{', '.join(unknown)}: how far such a volume may err is not known, so no range is given and no change is "
            f"held against one. It is known of {'; '.join(one.of for one in VOLUME_ERRORS)}: with the threshold that "
            "ships, and of no mask that a person changed"
        )
    return notes
