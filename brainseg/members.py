"""What an evaluation predicts with: bundles, or the runs of a cross-validation, each for the patients it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainseg.bundle import RUN_FILE, TRAINING_FILE, WEIGHTS, Bundle
from brainseg.errors import InputError, UntrustedBundleError
from brainseg.foreign import plain_json

PARTS = ("trained_on", "validated_on", "chosen_by", "before", "unknown")
DID = {
    "trained_on": "trained the network",
    "chosen_by": "chose the weights among the epochs",
    "before": "had a part in the weights that the training started from",
}
FLATTERS = ", so the figures flatter it"


@dataclass(frozen=True)
class Member:
    """One opinion on every patient.

    Attributes:
        what: name, and for a cross-validation its runs.
        bundle: what predicts a patient whom no run claims; None for a cross-validation, which then has no opinion.
        runs: patient -> the run that validates on it.
    """

    what: str
    bundle: Bundle | None
    runs: Mapping[str, Bundle]

    def of(self, patient: str) -> Bundle | None:
        """The bundle that predicts `patient`, or None where there is no honest one."""
        return self.runs.get(patient, self.bundle)


def open_member(name_or_path: str, *, device: str = "auto", backend: str = "auto") -> Member:
    """A bundle, or a folder whose subfolders are runs of `brainseg train`, one a fold.

    Raises:
        UsageError, UntrustedBundleError: as `open_bundle`.
        InputError: runs that cannot make one cross-validation.
    """
    from brainseg.bundle import open_bundle

    folder = Path(name_or_path)
    finished = finished_runs(folder)
    if not finished:
        bundle = open_bundle(name_or_path, device=device, backend=backend)
        return Member(bundle.title, bundle, {})
    runs: dict[str, Bundle] = {}
    for root in finished:
        bundle, record = open_bundle(str(root), device=device, backend=backend), training_record(root)
        both = set(record["validated_on"]) & (set(record["trained_on"]) | set(runs))
        if both:
            raise InputError(
                root, f"{min(both)} trains here, or validates in another run too", "give the runs of one set of folds"
            )
        runs.update(dict.fromkeys(record["validated_on"], bundle))
    names = {bundle.title for bundle in runs.values()}
    if len(names) > 1:
        several = ", ".join(sorted(names))
        raise InputError(folder, f"holds runs of several bundles ({several})", "give each bundle its own --bundle")
    return Member(f"{names.pop()} cross-validated ({', '.join(root.name for root in finished)})", None, runs)


def finished_runs(folder: Path) -> list[Path]:
    """The runs of a cross-validation in `folder`: those that have weights and validated on somebody."""
    roots = [] if (folder / RUN_FILE).is_file() else sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))
    return [root for root in roots if (root / WEIGHTS).is_file() and training_record(root)["validated_on"]]


def training_record(root: Path) -> dict[str, Sequence[str]]:
    """Who had a part in the weights at `root`, each empty where nothing is recorded.

    `trained_on`, `validated_on`; `chosen_by`, the validation patients by whom the epoch was chosen: all of them, unless
    the record says otherwise; `before`, who had a part in the weights that the training started from; and the file of
    these, `unknown`, where it is not known who had.

    Raises:
        InputError: a record that is not JSON.
    """
    path = root / TRAINING_FILE
    try:
        record = plain_json(path) if path.exists() else {}
    except UntrustedBundleError:
        raise InputError(path, "is not JSON", "restore it: it says which patients trained") from None
    record = {"chosen_by": record.get("validated_on"), **(record.get("began_with") or {}), **record}
    return {key: tuple(map(str, record.get(key) or ())) for key in PARTS}


def began_with(weights: Path) -> dict[str, list[str]]:
    """`before` and `unknown` of a training that starts from a file of weights, by the record that lies beside it."""
    root = weights.absolute().parent.parent
    if not (root / TRAINING_FILE).is_file() or weights.parent.name != TRAINING_FILE.parent.name:
        return {"before": [], "unknown": [weights.name]}
    record = training_record(root)
    before = {name for key in ("trained_on", "chosen_by", "before") for name in record[key]}
    return {"before": sorted(before), "unknown": list(record["unknown"])}


def record_of(member: Member) -> dict[str, Sequence[str]]:
    """The `training_record` of a member; of a cross-validation, of each patient with the run that scores it."""
    if member.bundle is not None:
        return training_record(member.bundle.root)
    return record_of_runs(sorted({bundle.root for bundle in member.runs.values()}))


def record_of_runs(roots: Sequence[Path]) -> dict[str, Sequence[str]]:
    """The `training_record` of a cross-validation: none of its runs scores who trained it."""
    records = [training_record(root) for root in roots]
    return {
        "trained_on": (),
        "chosen_by": [name for record in records for name in record["chosen_by"]],
        "before": [name for record in records for name in set(record["before"]) & set(record["validated_on"])],
        "unknown": [name for record in records for name in record["unknown"]],
    }


def cautions_of(record: Mapping[str, Sequence[str]], patients: Sequence[str]) -> tuple[str, ...]:
    """What must be said of figures over `patients`, by a `training_record`."""
    cautions = []
    for key, did in DID.items():
        known = len(set(patients) & set(record.get(key, ())))
        if known:
            cautions.append(f"{known} of these {len(patients)} patients {did}{FLATTERS}")
    for weights in dict.fromkeys(record.get("unknown", ())):
        cautions.append(f"it is not recorded who trained {weights}, from which the training started")
    return tuple(cautions)
