"""Which scans are of one person, as far as files say so: BIDS by `sub-`, DICOM by its PatientID."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from brainseg.study.patient import Patient
from brainseg.study.session import session_of

_BIDS = re.compile(r"^sub-[A-Za-z0-9]+")


def subjects_of(patients: Sequence[Patient]) -> dict[str, str]:
    """Name of each scan -> the first name, in order of the alphabet, of the scans of its person.

    What files do not say is not guessed: a folder with a folder for every visit counts as so many persons. A PatientID
    that all scans share says nothing.
    """
    keys = {patient.name: _person(patient) for patient in patients}
    if len(set(keys.values())) == 1 and any(isinstance(key, str) for key in keys.values()):
        keys = dict.fromkeys(keys)
    first: dict[object, str] = {}
    return {name: name if (key := keys[name]) is None else first.setdefault(key, name) for name in sorted(keys)}


def _person(patient: Patient) -> tuple[Path, str] | str | None:
    """What the scans of one person have in common and nobody else's: a place and BIDS' label, or the PatientID."""
    file = patient.flair.files[0] if patient.flair.files else patient.path
    for folder in (file.parent, *file.parent.parents):
        if found := _BIDS.fullmatch(folder.name):
            return folder.parent, found[0]
    if found := _BIDS.match(file.name):
        return file.parent, found[0]
    return session_of(patient.flair).patient_id or None
