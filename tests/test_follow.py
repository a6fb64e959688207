"""`brainseg follow`: what it takes for a visit, what it refuses, what it says of change and interval."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import dicom_files
import numpy as np
import pytest
import torch
from command import brainseg, open_bundles_with
from page import assert_asks_nothing_of_any_network

from brainseg.follow import Visit, change
from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti
from brainseg.phantom.scan import Phantom
from brainseg.readers.nifti import read_nifti_mask
from brainseg.study import Series
from brainseg.study.session import session_of
from brainseg.visits import visit_names
from brainseg.volume_error import VOLUME_ERRORS
from brainseg.weights import file_sha256
from brainseg.writers.nifti import write_mask

NETWORK = {"name": "residual_unet", "weights_sha256": "a" * 64, "threshold": 0.5}
SMALL = {"shape": (64, 64, 16), "spacing_mm": (3.6, 3.6, 10.0)}
DATES = ("20190307", "20190612")


class Bright(torch.nn.Module):
    """Stands in for a network: abnormal is where FLAIR is 1.3 times the head's mean or brighter."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.where(image[:, 1:2] > 1.3, 20.0, -10.0)


def results(
    root: Path,
    volume_ml: int,
    *,
    flags: tuple[str, ...] = (),
    network: dict[str, object] = NETWORK,
    alone: bool = False,
) -> Path:
    """A case as `segment` writes it, whose mask has `volume_ml` voxels of 1 mL; the folder of the case."""
    folder = root / "case"
    mask = np.zeros((10, 10, 10), np.uint8)
    mask.flat[:volume_ml] = 1
    write_mask(folder / "mask.nii.gz", mask, np.diag([10.0, 10.0, 10.0, 1.0]))
    row = {"case": "case", "volume_voxels": volume_ml, "flags": list(flags)}
    made = {
        "mask": file_sha256(folder / "mask.nii.gz"), "confidence": 0.9, "flags": list(flags), "head": None,
        "networks": [list(network.values())], "errors_of": "" if network["name"] == "mine" else VOLUME_ERRORS[alone].of,
    }  # fmt: skip
    (folder / "case.json").write_text(json.dumps({"inputs": {"flair.nii": str(root)}, "row": row, "made": made}))
    (root / "run.json").write_text(json.dumps({"bundles": [network]}))
    return folder


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "follow.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def page(out: Path) -> str:
    return (out / "follow.html").read_text()


def test_help_is_quick() -> None:
    listing = "atexit.register(lambda: print(list(sys.modules)))"
    code = f"import sys, atexit; from brainseg.cli import main; {listing}; main(['follow', '--help'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'numpy'", "'matplotlib'", "'itk'"):
        assert heavy not in loaded


def test_change_a_month_is_that_worked_out_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """30 to 36 mL in 61 days: +20% in 61 / 30.4375 = 2.0041 months, 9.98% a month; to 6 mL: -80% in a year."""
    visits = [results(tmp_path / name, ml) for name, ml in (("first", 30), ("second", 36), ("third", 6))]
    out = tmp_path / "out"
    assert brainseg("follow", visits[0].parent, *visits[1:], "--days", "10,71,375", "--out", out) == 0
    first, second, third = rows(out)
    assert [row["visit"] for row in (first, second, third)] == ["first", "second_case", "third_case"]
    assert [row["days"] for row in (first, second, third)] == ["0", "61", "365"]
    assert [row["volume_ml"] for row in (first, second, third)] == ["30", "36", "6"]
    assert (first["change_ml"], first["percent_per_month"], first["beyond_error"]) == ("", "", "")
    assert (second["change_ml"], second["change_percent"], second["beyond_error"]) == ("6", "20", "no")
    assert float(second["percent_per_month"]) == pytest.approx(20 / (61 / 30.4375), abs=1e-4)
    assert float(third["percent_per_month"]) == pytest.approx(-80 / (365 / 30.4375), abs=1e-4)
    assert (third["change_percent"], third["beyond_error"]) == ("-80", "yes")
    assert float(first["low"]) < 30 < float(first["high"])
    said = capsys.readouterr().out
    assert "second_case, day 61: 36.0 mL" in said
    assert "+20%, +10.0% a month, within error" in said
    assert "-80%, -6.7% a month, beyond error" in said


def test_the_page_explains_error_and_interval_and_why_there_is_no_picture(tmp_path: Path) -> None:
    visits = [results(tmp_path / name, ml) for name, ml in (("a<b>", 30), ("c", 36))]
    assert brainseg("follow", *visits, "--days", "0,20", "--out", tmp_path / "out", "-q") == 0
    text = page(tmp_path / "out")
    assert_asks_nothing_of_any_network(text)
    assert "<b>" not in text
    assert "This is not a test-retest difference" in text
    assert "Intervals given with --days" in text
    assert "No picture: results hold no scan" in text
    assert "less than 28 days from the baseline" in text
    assert rows(tmp_path / "out")[1]["flags"] == "short_interval"
    assert text.count("data:image/png;base64,") == 1  # the chart


def test_visits_are_ordered_by_their_dates_and_the_dates_are_written_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    visits = [results(tmp_path / name, ml) for name, ml in (("late", 40), ("early", 20))]
    assert brainseg("follow", *visits, "--dates", "2021-03-01,2020-03-01", "--out", tmp_path / "out") == 0
    first, second = rows(tmp_path / "out")
    assert (first["visit"], second["visit"], second["days"]) == ("early_case", "late_case", "365")
    assert second["change_percent"] == "100"
    said = capsys.readouterr()
    assert "early_case is the earliest and therefore the baseline, not late_case" in said.out
    for content in (said.out + said.err, *(path.read_text() for path in (tmp_path / "out").iterdir())):
        assert "2021" not in content
        assert "2020-" not in content


def test_without_dates_the_order_is_as_given_and_nothing_is_said_a_month(tmp_path: Path) -> None:
    visits = [results(tmp_path / name, ml) for name, ml in (("x", 40), ("y", 20))]
    assert brainseg("follow", *visits, "--out", tmp_path / "out", "-q") == 0
    first, second = rows(tmp_path / "out")
    assert (first["visit"], second["change_percent"]) == ("x_case", "-50")
    assert (first["days"], second["days"], second["percent_per_month"]) == ("", "", "")
    assert "Intervals unknown: the visits carry no dates; give --days or --dates" in page(tmp_path / "out")


def test_on_one_day_nothing_is_said_a_month(tmp_path: Path) -> None:
    visits = [results(tmp_path / name, ml) for name, ml in (("x", 40), ("y", 44))]
    assert brainseg("follow", *visits, "--days", "5,5", "--out", tmp_path / "out", "-q") == 0
    second = rows(tmp_path / "out")[1]
    assert (second["days"], second["change_percent"], second["percent_per_month"]) == ("0", "10", "")


def test_without_spacing_there_are_voxels_but_no_volume_and_no_change(tmp_path: Path) -> None:
    visits = [results(tmp_path / name, ml, flags=("spacing_unknown",)) for name, ml in (("x", 40), ("y", 44))]
    assert brainseg("follow", *visits, "--days", "0,90", "--out", tmp_path / "out", "-q") == 0
    second = rows(tmp_path / "out")[1]
    assert second["volume_voxels"] == "44"
    assert all(second[name] == "" for name in ("volume_ml", "low", "high", "change_ml", "change_percent"))
    assert all(second[name] == "" for name in ("percent_per_month", "beyond_error"))
    assert "no volume in mL. Counts of voxels compare only where all voxels have one size" in page(tmp_path / "out")
    spacing = ("--spacing", 10, 10, 5)
    assert brainseg("follow", *visits, "--days", "0,90", *spacing, "--out", tmp_path / "out", "-q") == 0
    second = rows(tmp_path / "out")[1]
    assert (second["volume_ml"], second["change_ml"], second["flags"]) == ("22", "2", "")


def test_what_makes_a_visit_hard_to_compare_is_flagged(tmp_path: Path) -> None:
    first = results(tmp_path / "x", 40)
    second = results(tmp_path / "y", 44, flags=("sequences_missing",), network={**NETWORK, "threshold": 0.4})
    mask = np.zeros((10, 10, 20), np.uint8)
    mask.flat[:100] = 1  # corrected by hand, on thinner slices
    write_mask(second / "mask.nii.gz", mask, np.diag([10.0, 10.0, 5.0, 1.0]))
    assert brainseg("follow", first, second, "--days", "0,90", "--out", tmp_path / "out", "-q") == 0
    row = rows(tmp_path / "out")[1]
    assert row["volume_ml"] == "50"
    assert row["flags"].split(";") == [
        "sequences_missing", "other_network", "other_sequences", "other_voxels", "mask_changed",
    ]  # fmt: skip


def test_a_change_between_visits_measured_differently_is_held_against_the_larger_error(tmp_path: Path) -> None:
    """FLAIR alone errs more: a change between the two errors is beyond that of three sequences, and within FLAIR's."""
    three, alone = (error.pairs[-1] for error in VOLUME_ERRORS)
    later = round(20 * math.sqrt(three * alone))
    visits = [results(tmp_path / "x", 20), results(tmp_path / "y", later), results(tmp_path / "z", later, alone=True)]
    for kind, visit, beyond in (("same", visits[1], "yes"), ("other", visits[2], "no")):
        assert brainseg("follow", visits[0], visit, "--days", "0,90", "--out", tmp_path / kind, "-q") == 0
        first, second = rows(tmp_path / kind)
        assert second["beyond_error"] == beyond
        assert float(second["high"]) == pytest.approx(VOLUME_ERRORS[kind == "other"].interval(later)[1], rel=1e-2)
        assert float(first["high"]) == pytest.approx(VOLUME_ERRORS[0].interval(20)[1], rel=1e-2)
    assert "the larger one where its two visits were measured differently" in page(tmp_path / "other")
    assert "the larger one" not in page(tmp_path / "same")


def test_errors_of_another_network_are_not_passed_off_as_known(tmp_path: Path) -> None:
    visits = [results(tmp_path / name, 40, network={**NETWORK, "name": "mine"}) for name in ("x", "y")]
    assert brainseg("follow", *visits, "--out", tmp_path / "out", "-q") == 0
    assert "x_case, y_case: how far such a volume may err is not known, so no range is given" in page(tmp_path / "out")
    first, second = rows(tmp_path / "out")
    assert (first["low"], first["high"], second["change_ml"], second["beyond_error"]) == ("", "", "0", "")


def test_a_mask_that_a_person_changed_has_no_range_and_its_change_is_held_against_none(tmp_path: Path) -> None:
    """Neither before `report` measured it nor after."""
    first, second = results(tmp_path / "x", 40), results(tmp_path / "y", 40)
    mask = np.zeros((10, 10, 10), np.uint8)
    mask.flat[60:100] = 1  # as many voxels, elsewhere
    write_mask(second / "mask.nii.gz", mask, np.diag([10.0, 10.0, 10.0, 1.0]))
    for flag in ("mask_changed", "mask_edited"):
        record = json.loads((second / "case.json").read_text())
        record["row"]["flags"] = [flag] if flag == "mask_edited" else []
        (second / "case.json").write_text(json.dumps(record))
        assert brainseg("follow", first, second, "--out", tmp_path / "out", "-q") == 0
        before, after = rows(tmp_path / "out")
        assert (float(before["low"]) < 40, after["low"], after["high"], after["beyond_error"]) == (True, "", "", "")
        assert after["flags"] == flag


def test_an_earlier_versions_record_leaves_the_network_to_run_json_and_the_range_out(tmp_path: Path) -> None:
    visits = [results(tmp_path / name, 40) for name in ("x", "y")]
    for folder in visits:
        record = json.loads((folder / "case.json").read_text())
        record |= {"made": record["made"]["mask"], "confidence": 0.9}
        (folder / "case.json").write_text(json.dumps(record))
    (tmp_path / "y" / "run.json").unlink()
    assert brainseg("follow", *visits, "--out", tmp_path / "out", "-q") == 0
    assert "For some visits it is not recorded which network measured them" in page(tmp_path / "out")
    assert [row["low"] for row in rows(tmp_path / "out")] == ["", ""]


def test_from_and_to_nothing_a_change_has_no_percent_and_no_error() -> None:
    def visit(volume_ml: float) -> Visit:
        return Visit("v", 0, volume_ml, 0, None, 0, 0.001, (), None)

    assert (change(visit(0), visit(5)).ml, change(visit(0), visit(5)).percent) == (5, None)
    assert change(visit(5), visit(0)).percent == -100
    assert change(visit(5), visit(0)).beyond_error is None


def test_one_visit_alone_one_scan_twice_and_a_missing_path_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = results(tmp_path / "x", 40)
    out = ("--out", tmp_path / "out", "-q")
    assert brainseg("follow", one, *out) == 2
    assert brainseg("follow", one, one.parent, *out) == 2
    assert f"error: {one.parent}: is the same scan as {one}; give each visit once" in capsys.readouterr().err
    assert brainseg("follow", one, tmp_path / "nothing", *out) == 2
    assert not list((tmp_path / "out").iterdir())


def test_days_that_are_too_few_or_no_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visits = [results(tmp_path / name, 40) for name in ("x", "y")]
    for wrong, why in (
        (("--days", "0"), "--days: has 1 values for 2 visits; give one for each"),
        (("--days", "0,soon"), "is not whole numbers joined by commas"),
        (("--dates", "2020-01-01,2020-13-01"), "is not dates joined by commas"),
        (("--days", "0,1", "--dates", "2020-01-01,2020-01-02"), "both say when the visits were"),
    ):
        assert brainseg("follow", *visits, *wrong, "--out", tmp_path / "out", "-q") == 2
        assert why in capsys.readouterr().err


def test_results_of_several_cases_and_damaged_records_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = results(tmp_path / "x", 40), results(tmp_path / "y", 44)
    (tmp_path / "y" / "second").mkdir()
    (tmp_path / "y" / "second" / "case.json").write_text("{")
    assert brainseg("follow", one, tmp_path / "y", "--out", tmp_path / "out", "-q") == 2
    assert "holds the results of 2 cases; give the folder of one of them" in capsys.readouterr().err
    assert brainseg("follow", one, tmp_path / "y" / "second", "--out", tmp_path / "out", "-q") == 3
    assert "is not the record of a case; run brainseg segment again" in capsys.readouterr().err
    (other / "mask.nii.gz").unlink()
    assert brainseg("follow", one, other, "--out", tmp_path / "out", "-q") == 3
    assert "holds no mask.nii.gz" in capsys.readouterr().err


def test_names_are_as_long_as_tells_the_visits_apart() -> None:
    assert visit_names([Path("p/a.nii.gz"), Path("p/b.zip")]) == ["a", "b"]
    assert visit_names([Path("1/flair.nii.gz"), Path("2/flair.nii.gz")]) == ["1_flair", "2_flair"]
    assert visit_names([Path("1/case"), Path("2/case"), Path("third")]) == ["1_case", "2_case", "third"]
    first, second = visit_names([Path("/x/y/z/a.nii"), Path("/x/y/z/a.nii.gz")])
    assert (first, second) == ("y_z_a", "y_z_a-2")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"StudyDate": "20190307", "AcquisitionDate": "20190308"}, date(2019, 3, 8)),
        ({"StudyDate": "20190307", "AcquisitionDate": ""}, date(2019, 3, 7)),
        ({}, None),
    ],
)
def test_a_scan_says_when_it_was_made_and_its_repr_does_not(
    tags: dict[str, str], expected: date | None, tmp_path: Path
) -> None:
    files = dicom_files.write(tmp_path, dicom_files.series(**tags))
    session = session_of(Series("dicom", tuple(files)))
    assert (session.date, session.patient_id) == (expected, dicom_files.PATIENT_ID)
    assert repr(session) == "Session()"


@pytest.fixture(scope="module")
def scans() -> tuple[Phantom, Phantom]:
    """A patient, and the same in another position half as large again."""
    grown = make_phantom(**SMALL, growth=1.5, rotation_deg=(4, -3, 6))  # type: ignore[arg-type]
    motion = np.eye(4)
    motion[:3, 3] = (5, -8, 4)
    return make_phantom(**SMALL), dataclasses.replace(grown, affine=motion @ grown.affine)  # type: ignore[arg-type]


def test_dicom_scans_are_segmented_ordered_and_shown_and_no_date_or_identity_leaves(
    scans: tuple[Phantom, Phantom], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    for phantom, name, day in zip(scans, ("before", "after"), DATES, strict=True):
        write_phantom_dicom(phantom, tmp_path / "scans", name, date=day)
    out = tmp_path / "out"
    arguments = ("follow", tmp_path / "scans" / "after", tmp_path / "scans" / "before", "--out", out)
    assert brainseg(*arguments) == 0
    first, second = rows(out)
    assert (first["visit"], second["visit"], second["days"]) == ("before", "after", "97")
    assert (out / "before" / "before" / "mask.nii.gz").is_file()
    assert float(second["percent_per_month"]) == pytest.approx(
        float(second["change_percent"]) / (97 / 30.4375), rel=1e-4
    )
    text = page(out)
    assert "from the scans&#39; own headers" in text
    assert text.count("data:image/png;base64,") == 2  # the chart and the picture
    said = capsys.readouterr()
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    planted = re.compile(rb"2019-?0[36]-?(07|12)|2019|PHANTOM-0|Phantom\^")
    for content in (said.out.encode(), said.err.encode(), *(written[path] for path in sorted(written))):
        assert not planted.search(re.sub(rb"base64,[^\"]*|[0-9a-f]{64}|\.[0-9]+", b"", content[:200_000]))
    assert brainseg(*arguments, "-q") == 0  # again: nothing is computed twice, and the bytes are the same
    assert {path: path.read_bytes() for path in written} == written


def test_two_patient_ids_are_refused_and_not_printed_unless_they_are_said_to_be_one(
    scans: tuple[Phantom, Phantom], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for phantom, name, seed in zip(scans, ("before", "after"), (71, 72), strict=True):
        write_phantom_dicom(dataclasses.replace(phantom, seed=seed), tmp_path / "scans", name)
    arguments = ("follow", tmp_path / "scans" / "before", tmp_path / "scans" / "after", "--out", tmp_path / "out", "-q")
    assert brainseg(*arguments) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: follow: the scans carry 2 different PatientIDs; "
        "give one patient's scans, or pass --same-patient if the patient was renamed\n"
    )
    assert not list((tmp_path / "out").iterdir())
    open_bundles_with(Bright(), monkeypatch)
    assert brainseg(*arguments, "--same-patient") == 0
    assert "PHANTOM-7" not in page(tmp_path / "out")


def test_a_scan_that_cannot_be_laid_over_the_baseline_costs_the_picture_alone(
    scans: tuple[Phantom, Phantom], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    monkeypatch.setattr("brainseg.registration.LEAST_CORRELATION", 1.1)
    for phantom, name in zip(scans, ("before", "after"), strict=True):
        write_phantom_nifti(phantom, tmp_path / "scans", name)
    folders = (tmp_path / "scans" / "before", tmp_path / "scans" / "after")
    assert brainseg("follow", *folders, "--days", "0,90", "--out", tmp_path / "out", "-q") == 0
    mask = read_nifti_mask(tmp_path / "out" / "after" / "after" / "mask.nii.gz")
    own_grid_ml = int(mask.sum()) * 3.6 * 3.6 * 10 / 1000
    assert float(rows(tmp_path / "out")[1]["volume_ml"]) == pytest.approx(own_grid_ml, rel=1e-5)
    assert "No picture: after could not be laid over before; is it the same head?" in page(tmp_path / "out")


def test_a_scan_that_cannot_be_read_is_one_line_and_exit_3(
    scans: tuple[Phantom, Phantom], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_phantom_nifti(scans[0], tmp_path, "before")
    broken = tmp_path / "after.nii.gz"
    broken.write_bytes((one / "flair.nii.gz").read_bytes()[:5000])
    assert brainseg("follow", one / "flair.nii.gz", broken, "--out", tmp_path / "out", "-q") == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {broken}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "follow.csv").exists()
