"""What an evaluation predicts with: bundles, or the runs of a cross-validation, each for the patients it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainseg.bundle import RUN_FILE, TRAINING_FILE, WEIGHTS, Bundle
from brainseg.errors import InputError, UntrustedBundleError
from brainseg.foreign import plain_json


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
    """`trained_on`, `validated_on` and `chosen_by` of the weights at `root`; empty where nothing is recorded.

    `chosen_by` are the validation patients by whom the epoch was chosen: all of them, unless the record says otherwise.

    Raises:
        InputError: a record that is not JSON.
    """
    path = root / TRAINING_FILE
    try:
        record = plain_json(path) if path.exists() else {}
    except UntrustedBundleError:
        raise InputError(path, "is not JSON", "restore it: it says which patients trained") from None
    record = {"chosen_by": record.get("validated_on"), **record}
    return {key: tuple(map(str, record.get(key) or ())) for key in ("trained_on", "validated_on", "chosen_by")}


def record_of(member: Member) -> dict[str, Sequence[str]]:
    """The `training_record` of a member; no run of a cross-validation scores who trained it, so there `chosen_by`."""
    if member.bundle is not None:
        return training_record(member.bundle.root)
    records = [training_record(root) for root in sorted({bundle.root for bundle in member.runs.values()})]
    return {"trained_on": (), "chosen_by": [name for record in records for name in record["chosen_by"]]}
