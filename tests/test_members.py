"""Cross-validation: each patient is predicted by the run that never saw it, or by none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from brainseg.bundle import shipped
from brainseg.errors import InputError
from brainseg.members import began_with, cautions_of, open_member, record_of, training_record


def make_run(root: Path, bundle: str, trained_on: list[str], validated_on: list[str]) -> Path:
    """What `brainseg train` leaves, with the shipped weights."""
    (root / "models").mkdir(parents=True)
    shutil.copy(shipped()[bundle] / "models" / "model.pt", root / "models")
    (root / "run.json").write_text(json.dumps({"bundle": bundle, "weights_sha256": None}))
    (root / "models" / "training.json").write_text(json.dumps({"trained_on": trained_on, "validated_on": validated_on}))
    return root


def test_a_bundle_has_an_opinion_on_everybody() -> None:
    member = open_member("basic_unet", device="cpu")
    assert member.what == "basic_unet"
    assert member.of("anybody") is member.bundle is not None


def test_runs_of_a_cross_validation_predict_only_those_they_validate(tmp_path: Path) -> None:
    make_run(tmp_path / "fold_0", "basic_unet", ["b", "c"], ["a"])
    make_run(tmp_path / "fold_1", "basic_unet", ["a", "c"], ["b"])
    member = open_member(str(tmp_path), device="cpu")
    assert member.what == "basic_unet cross-validated (fold_0, fold_1)"
    assert [bundle and bundle.root.name for bundle in map(member.of, "abc")] == ["fold_0", "fold_1", None]


def test_patients_chose_the_epoch_of_a_run_unless_it_says_that_its_last_was_kept(tmp_path: Path) -> None:
    make_run(tmp_path / "fold_0", "basic_unet", ["b", "c"], ["a"])
    record = make_run(tmp_path / "fold_1", "basic_unet", ["a", "c"], ["b"]) / "models" / "training.json"
    member = open_member(str(tmp_path), device="cpu")
    assert record_of(member) == {"trained_on": (), "chosen_by": ["a", "b"], "before": [], "unknown": []}
    record.write_text(json.dumps({**json.loads(record.read_text()), "chosen_by": []}))
    assert record_of(member)["chosen_by"] == ["a"]
    assert record_of(open_member(str(tmp_path / "fold_1"), device="cpu"))["trained_on"] == ("a", "c")


def test_who_had_a_part_in_the_weights_that_a_training_started_from_is_not_forgotten(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", "basic_unet", ["b", "c"], ["a"])
    started = began_with(first / "models" / "model.pt")
    assert started == {"before": ["a", "b", "c"], "unknown": []}
    record = make_run(tmp_path / "cv" / "fold_0", "basic_unet", ["d"], ["b"]) / "models" / "training.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "chosen_by": [], "began_with": started}))
    assert began_with(record.with_name("model.pt"))["before"] == ["a", "b", "c", "d"]
    said = "1 of these 2 patients had a part in the weights that the training started from, so the figures flatter it"
    assert cautions_of(training_record(record.parents[1]), ["b", "x"]) == (said,)
    assert cautions_of(record_of(open_member(str(tmp_path / "cv"), device="cpu")), ["b", "x"]) == (said,)


def test_weights_without_a_record_leave_it_open_who_trained_them(tmp_path: Path) -> None:
    (tmp_path / "some.pt").write_bytes(b"")
    (tmp_path / "models").mkdir()
    for path in (tmp_path / "some.pt", tmp_path / "models" / "model.pt"):
        started = {"trained_on": (), "chosen_by": (), **began_with(path)}
        assert cautions_of(started, ["a"]) == (
            f"it is not recorded who trained {path.name}, from which the training started",
        )


def test_a_run_on_all_patients_and_one_that_is_not_finished_take_no_part(tmp_path: Path) -> None:
    make_run(tmp_path / "fold_0", "basic_unet", ["b"], ["a"])
    make_run(tmp_path / "all", "basic_unet", ["a", "b"], [])
    (make_run(tmp_path / "fold_1", "basic_unet", ["a"], ["b"]) / "models" / "training.json").unlink()
    assert open_member(str(tmp_path), device="cpu").what == "basic_unet cross-validated (fold_0)"


@pytest.mark.parametrize("other", [(["b"], ["a"]), (["b"], ["b"])])
def test_folds_that_overlap_are_refused(tmp_path: Path, other: tuple[list[str], list[str]]) -> None:
    make_run(tmp_path / "fold_0", "basic_unet", ["b"], ["a"])
    make_run(tmp_path / "fold_1", "basic_unet", *other)
    with pytest.raises(InputError, match="validates in another run too"):
        open_member(str(tmp_path), device="cpu")


def test_runs_of_two_bundles_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "fold_0", "basic_unet", ["b"], ["a"])
    make_run(tmp_path / "fold_1", "residual_unet", ["a"], ["b"])
    with pytest.raises(InputError, match=r"runs of several bundles \(basic_unet, residual_unet\)"):
        open_member(str(tmp_path), device="cpu")
