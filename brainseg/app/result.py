"""A result in words, as a page shows it; everything that comes from the user's files is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainseg.app.visit import Visit
from brainseg.units import millilitres

MOST_LESIONS = 12


def result_html(visit: Visit) -> str:
    """Volume, lesions, confidence, flags and notes of a visit with a result."""
    from brainseg.appearance import appearance
    from brainseg.case import FLAIR
    from brainseg.measures import case_confidence, dice, find_lesions, volume_ml, volume_voxels
    from brainseg.quality import FLAGS, flags_of

    case, result, patient = visit.case, visit.result, visit.patient
    if case is None or result is None or patient is None:
        raise ValueError("expected a visit with a result")
    look = appearance(case.image[FLAIR], case.affine)
    confidence = case_confidence(result.probability, result.mask)
    lesions = find_lesions(result.mask, result.probability, case.affine, case.spacing_mm)
    spacing_mm = case.spacing_mm
    return _rendered(
        case=case,
        patients=[one.name for one in visit.patients],
        volume_ml=None if spacing_mm is None else volume_ml(result.mask, spacing_mm),
        volume_voxels=volume_voxels(result.mask),
        truth_ml=None if visit.truth is None or spacing_mm is None else volume_ml(visit.truth, spacing_mm),
        dice=None if visit.truth is None else dice(result.mask, visit.truth),
        confidence=confidence,
        lesions=lesions[:MOST_LESIONS],
        count=len(lesions),
        flags=[FLAGS[flag] for flag in flags_of(case, result, lesions, confidence, look, certain=patient.certain)],
        notes=[note for note in (*case.notes, patient.why) if note],
        result=result,
    )


def refusal_html(line: str) -> str:
    """The line of an error."""
    return _rendered(refusal=line)


def _rendered(**values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("result.html.j2").render(millilitres=millilitres, **values)
