"""Masks that exist, mostly of `brainseg segment`, as what an evaluation scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brainseg.bundle import recorded_hash, shipped
from brainseg.case import Case
from brainseg.errors import InputError
from brainseg.members import cautions_of, training_record
from brainseg.record import MASK, Network, read_record

PROBABILITY = "probability.nii.gz"
SAME_GRID_MM = 0.01  # affines are rounded to single precision in NIfTI

Predictor = Callable[[Case], tuple[NDArray[Any], NDArray[Any] | None]]


def from_folder(folder: Path, names: Collection[str]) -> Predictor:
    """Takes the masks of `names` in `folder`, and the probabilities where they were saved for all of them.

    Probabilities of some beside masks of others would be two scales in one ROC curve.

    Raises (when called):
        InputError: no mask for a case, or one on another grid.
    """
    from brainseg.readers.nifti import read_nifti, read_nifti_mask

    saved = _saved(folder, names) == len(names)

    def predict(case: Case) -> tuple[NDArray[Any], NDArray[Any] | None]:
        path = folder / case.name / MASK
        if not path.is_file():
            raise InputError(path, "no prediction there", "segment this patient first")
        _refuse_other_grid(path, case)
        mask = read_nifti_mask(path)
        if not saved:
            return mask, None
        _refuse_other_grid(path.with_name(PROBABILITY), case)
        return mask, read_nifti(path.with_name(PROBABILITY)).array

    return predict


def cautions_of_predictions(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """What must be said of figures over the masks of `names` in `folder`, by what `segment` recorded beside them."""
    cautions = []
    saved = _saved(folder, names)
    if 0 < saved < len(names):
        cautions.append(f"probabilities were saved for {saved} of these {len(names)} patients, so none of them counts")
    records = {name: record for name in names if (record := read_record(folder / name)) is not None}
    edited = sum(record.edited(folder / name) for name, record in records.items())
    if edited:
        cautions.append(f"{edited} of these {len(names)} masks were edited by hand, so they are not the network's own")
    networks: dict[Network, list[str]] = {}
    for name, record in records.items():
        for network in record.made.networks or ():
            networks.setdefault(network, []).append(name)
    for (bundle, weights, _), own in networks.items():
        root = shipped().get(bundle)
        if root is not None and recorded_hash(root) == weights:
            cautions += cautions_of(training_record(root), own)
        else:
            cautions.append(f"it is not recorded here which patients trained {bundle} {weights[:12]}")
    return tuple(dict.fromkeys(cautions))


def _saved(folder: Path, names: Collection[str]) -> int:
    return sum((folder / name / PROBABILITY).is_file() for name in names)


def _refuse_other_grid(path: Path, case: Case) -> None:
    from brainseg.readers.grid import Grid
    from brainseg.readers.nifti import refuse_other_grid

    grid, in_mm = Grid(case.shape, case.affine), case.spacing_mm is not None
    remedy = "predict on the scan's own grid"
    refuse_other_grid(path, grid, in_mm=in_mm, tolerance_mm=SAME_GRID_MM, remedy=remedy)
