"""What to fetch of a collection: of each study with a FLAIR the series that `segment` would take, by their words.

The rules are those of brainseg/study/choice.py on what the index tells. It has no orientation, so the plane is read
from the description; where nothing decides between two FLAIR series both are fetched, for their headers to decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

from brainseg.errors import InputError, UsageError
from brainseg.study.choice import Candidate, choose
from brainseg.study.headers import Header, shown
from brainseg.study.names import natural, safe_name
from brainseg.tcia.index import Listed, Source

MOST_SHOWN = 20  # patients
_PLANES = (
    (re.compile(r"(?<![a-z])(?:ax|axial|tra|transverse)(?![a-z])"), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
    (re.compile(r"(?<![a-z])(?:sag|sagittal)(?![a-z])"), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)),
    (re.compile(r"(?<![a-z])(?:cor|coronal)(?![a-z])"), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)),
)


@dataclass(frozen=True)
class Planned:
    """A series to fetch, and what it is taken for: FLAIR, T1 pre, T1 post or SEG."""

    listed: Listed
    role: str

    @property
    def folder(self) -> PurePath:
        """Where it goes under the output folder: patient, study (its date and the end of its UID), series."""
        one = self.listed
        study = f"{one.study_date or 'undated'}-{one.study.replace('.', '')[-6:]}"
        return PurePath(safe_name(one.patient), study, f"{safe_name(one.modality)}_{one.series}")


@dataclass(frozen=True)
class Plan:
    """The series to fetch, patient by patient.

    Attributes:
        without: patients of the collection that were looked at and have no FLAIR.
    """

    collection: str
    series: tuple[Planned, ...]
    without: int = 0

    @property
    def patients(self) -> list[str]:
        """Their PatientIDs, in order."""
        return list(dict.fromkeys(one.listed.patient for one in self.series))

    @property
    def size_bytes(self) -> int:
        """Of all series together."""
        return sum(one.listed.size_bytes for one in self.series)


def plan_of(
    collection: str,
    series: Sequence[Listed],
    *,
    patients: Sequence[str] = (),
    limit: int | None = None,
    with_seg: bool = False,
) -> Plan:
    """The series to fetch.

    Args:
        collection: its name.
        series: all that it holds.
        patients: only these PatientIDs.
        limit: no more than this many patients, the first in natural order.
        with_seg: the DICOM SEGs of the same studies as well.

    Raises:
        UsageError: a patient that the collection does not have.
        InputError: none of the patients has a FLAIR.
    """
    known = {one.patient for one in series}
    for name in patients:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            remedy = f"perhaps {', '.join(near)}" if near else f"its PatientIDs look like {min(known, key=natural)}"
            raise UsageError("--patient", f"{collection} has no patient {name}", remedy)
    studies: dict[str, dict[str, list[Listed]]] = {}
    for one in series:
        if not patients or one.patient in patients:
            studies.setdefault(one.patient, {}).setdefault(one.study, []).append(one)
    planned: list[Planned] = []
    taken = without = 0
    for patient in sorted(studies, key=natural):
        if limit is not None and taken == limit:
            break
        own = [item for study in _by_date(studies[patient]) for item in _of_study(study, with_seg)]
        planned += own
        taken += bool(own)
        without += not own
    if not planned:
        cause = f"none of {without} patient{'s' * (without != 1)} has a series that says FLAIR"
        raise InputError(collection, cause, "choose another collection or patient")
    return Plan(collection, tuple(planned), without)


def _by_date(studies: dict[str, list[Listed]]) -> list[list[Listed]]:
    return [studies[uid] for uid in sorted(studies, key=lambda uid: (studies[uid][0].study_date, uid))]


def _of_study(series: Sequence[Listed], with_seg: bool) -> list[Planned]:
    """The series to fetch of one study; none where no series says FLAIR."""
    choice = choose([_candidate(one) for one in series])
    if choice.flair is None or not choice.certain:
        return []
    planned = [Planned(series[index], "FLAIR") for index in choice.tied or (choice.flair,)]
    for index, role in ((choice.pre, "T1 pre"), (choice.post, "T1 post")):
        if index is not None:
            planned.append(Planned(series[index], role))
    if with_seg:
        planned += [Planned(one, "SEG") for one in series if one.modality == "SEG"]
    return planned


def _candidate(one: Listed) -> Candidate:
    words = one.description.lower()
    header = Header(
        study_uid=one.study,
        series_uid=one.series,
        patient_id=one.patient,
        modality=one.modality,
        description=shown(one.description),
        number=one.number,
        orientation=next((orientation for pattern, orientation in _PLANES if pattern.search(words)), None),
        image=True,
    )
    return Candidate(header, one.instances)


def summary(plan: Plan, sources: Sequence[Source]) -> str:
    """What a person must know before the download: patients, series, sizes, licences and what to cite."""
    roles: dict[str, int] = {}
    for one in plan.series:
        roles[one.role] = roles.get(one.role, 0) + 1
    patients, studies = plan.patients, len({one.listed.study for one in plan.series})
    counts = ", ".join(f"{count} {role}" for role, count in roles.items())
    lines = [
        f"{plan.collection}: {_many(len(patients), 'patient')}, {_many(studies, 'study')}, "
        f"{len(plan.series)} series ({counts}), {megabytes(plan.size_bytes)}"
    ]
    for patient in patients[:MOST_SHOWN]:
        own = [one for one in plan.series if one.listed.patient == patient]
        words = "; ".join(f"{one.role}: {shown(one.listed.description) or 'no description'}" for one in own)
        lines.append(f"  {shown(patient)}  {megabytes(sum(one.listed.size_bytes for one in own))}  {words}")
    if len(patients) > MOST_SHOWN:
        lines.append(f"  and {len(patients) - MOST_SHOWN} more")
    if plan.without:
        lines.append(f"  {_many(plan.without, 'patient')} without FLAIR left out")
    lines += terms(plan, sources)
    return "\n".join(lines)


def terms(plan: Plan, sources: Sequence[Source]) -> list[str]:
    """Licence and citation of each source, as lines."""
    lines = []
    for doi in dict.fromkeys(one.listed.doi for one in plan.series):
        roles = "/".join(dict.fromkeys(one.role for one in plan.series if one.listed.doi == doi))
        licences = ", ".join(dict.fromkeys(one.listed.licence for one in plan.series if one.listed.doi == doi))
        known = next((one for one in sources if one.doi.lower() == doi.lower()), None)
        url = f" ({known.licence_url})" if known and known.licence_url else ""
        lines.append(f"licence of {roles}: {licences}{url}")
        cite = known.citation if known and known.citation else f"https://doi.org/{doi}" if doi else "not known"
        lines.append(f"cite: {cite}")
    return lines


def write_terms(out: Path, plan: Plan, sources: Sequence[Source]) -> None:
    """Adds to `<collection>_terms.txt`, so that licence and citation of all that was fetched lie beside the data."""
    from brainseg.writers.atomic import replacing

    path = out / f"{safe_name(plan.collection)}_terms.txt"
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() and not path.is_symlink() else []
    lines = dict.fromkeys([*before, plan.collection, *terms(plan, sources)])
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def megabytes(size_bytes: int) -> str:
    """A size as people say it."""
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:,.1f} GB"


def _many(count: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
