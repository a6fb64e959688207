"""`brainseg report`: corrected masks are measured, never lost, and what cannot be one is refused alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import nibabel
import numpy as np
import pytest
from command import Bright, brainseg, open_bundles_with
from PIL import Image

from brainseg.phantom import make_phantom, write_phantom_nifti, write_phantom_tiff
from brainseg.results import CohortRow
from brainseg.writers.tables import read_cohort, read_lesions

SCAN = ("flair_unconfirmed", "few_or_thick_slices")  # of so coarse a phantom
KNOWN = ("flair_unconfirmed", "cut_off", "few_or_thick_slices")  # and of its mask, which reaches the last slice
VOXEL_ML = 3.6 * 3.6 * 12.0 / 1000


@pytest.fixture(autouse=True)
def quick_network(monkeypatch: pytest.MonkeyPatch) -> None:
    open_bundles_with(Bright(), monkeypatch)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))
    for number in range(2):
        write_phantom_nifti(phantom, folder, f"p{number}")
    return folder


@pytest.fixture(scope="module")
def segmented(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("segmented")
    with pytest.MonkeyPatch.context() as patch:
        open_bundles_with(Bright(), patch)
        assert brainseg("segment", patients, "--out", out, "-q") == 0
    return out


@pytest.fixture
def out(segmented: Path, tmp_path: Path) -> Path:
    """A copy of the results to change."""
    return Path(shutil.copytree(segmented, tmp_path / "out"))


def edit(case: Path, values: int = 1, size: int = 10) -> None:
    """Replaces the mask by a cube of 10 x 10 x 2 voxels, as an editor would save it."""
    path = case / "mask.nii.gz"
    image = nibabel.load(path)
    mask = np.zeros(image.shape, np.int16)
    mask[20 : 20 + size, 20:30, 4:6] = values
    nibabel.save(nibabel.Nifti1Image(mask, image.affine), path)


def row_of(out: Path, case: str) -> CohortRow:
    return next(row for row in read_cohort(out / "cohort.csv") if row.case == case)


def test_unchanged_results_give_the_same_tables_and_page(out: Path) -> None:
    names = ("cohort.csv", "failures.json", "report.html", "run.json", "p1/lesions.csv", "p1/case.json")
    before = {name: (out / name).read_bytes() for name in names}
    (out / "cohort.csv").unlink()
    (out / "report.html").unlink()
    assert brainseg("report", out, "-q") == 0
    assert {name: (out / name).read_bytes() for name in names} == before


def test_a_corrected_mask_is_measured_drawn_and_flagged(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (out / "p1" / "overlay.png").read_bytes()
    edit(out / "p1")
    edited = (out / "p1" / "mask.nii.gz").read_bytes()
    assert brainseg("report", out) == 0
    row = row_of(out, "p1")
    assert row.volume_voxels == 200
    assert row.volume_ml == pytest.approx(200 * VOXEL_ML)
    assert (row.lesions, row.confidence, row.flags) == (1, None, (*SCAN, "mask_edited"))
    (lesion,) = read_lesions(out / "p1" / "lesions.csv")
    assert (lesion.voxels, lesion.first_slice, lesion.last_slice, lesion.confidence) == (200, 4, 5, None)
    assert (out / "p1" / "mask.nii.gz").read_bytes() == edited
    assert (out / "p1" / "overlay.png").read_bytes() != before
    page = (out / "report.html").read_text()
    assert "The mask was changed after the network made it" in page
    assert "31.1 mL" in page
    said = capsys.readouterr().out
    assert "p1: 31.1 mL, 1 lesion, confidence unknown  [flair_unconfirmed, few_or_thick_slices, mask_edited]\n" in said
    assert "p0: " in said
    assert said.count("(unchanged)") == 1


def test_the_picture_of_a_corrected_mask_shows_the_scan_as_before(out: Path) -> None:
    before = np.asarray(Image.open(out / "p1" / "overlay.png").convert("L"), float)
    (out / "p1" / "overlay.png").unlink()
    assert brainseg("report", out, "-q") == 0
    after = np.asarray(Image.open(out / "p1" / "overlay.png").convert("L"), float)
    assert after.shape == before.shape
    assert np.abs(after - before).mean() < 2
    assert row_of(out, "p1").flags == KNOWN


def test_where_the_probability_was_saved_it_gives_the_confidence_of_a_corrected_mask(
    patients: Path, tmp_path: Path
) -> None:
    assert brainseg("segment", patients / "p0", "--out", tmp_path, "--save-probability", "-q") == 0
    edit(tmp_path / "p0")
    probability = nibabel.load(tmp_path / "p0" / "probability.nii.gz").get_fdata()
    assert brainseg("report", tmp_path, "-q") == 0
    row = row_of(tmp_path, "p0")
    assert row.confidence == pytest.approx(probability[20:30, 20:30, 4:6].mean(), abs=1e-4)
    assert row.flags == (*SCAN, "low_confidence", "mask_edited")


def test_an_emptied_mask_is_flagged_and_putting_the_first_back_undoes_all(out: Path) -> None:
    before = {name: (out / name).read_bytes() for name in ("p1/mask.nii.gz", "cohort.csv")}
    edit(out / "p1", values=0)
    assert brainseg("report", out, "-q") == 0
    assert row_of(out, "p1").flags == (*SCAN, "empty_mask", "mask_edited")
    assert row_of(out, "p1").volume_ml == 0
    (out / "p1" / "mask.nii.gz").write_bytes(before["p1/mask.nii.gz"])
    assert brainseg("report", out, "-q") == 0
    row = row_of(out, "p1")
    unedited = row_of(out, "p0")
    assert (row.flags, row.volume_voxels, row.confidence) == (KNOWN, unedited.volume_voxels, unedited.confidence)


def test_a_correction_is_judged_as_a_mask_of_the_network_is(out: Path) -> None:
    """By the head that it lies in and the slices that it reaches, and nothing of it stays when it is undone."""
    path = out / "p1" / "mask.nii.gz"
    original = path.read_bytes()
    image = nibabel.load(path)
    first, huge = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.uint8)
    first[20:30, 20:30, 0:2] = 1
    huge[10:55, 10:55, 2:10] = 1
    for mask, flags in (
        (first, ("flair_unconfirmed", "cut_off", "few_or_thick_slices", "mask_edited")),
        (huge, (*SCAN, "implausible_volume", "mask_edited")),
    ):
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), path)
        assert brainseg("report", out, "-q") == 0
        assert row_of(out, "p1").flags == flags
    path.write_bytes(original)
    assert brainseg("report", out, "-q") == 0
    assert row_of(out, "p1") == replace(row_of(out, "p0"), case="p1", input=row_of(out, "p1").input, seconds=ANY)


def test_a_case_of_another_run_says_what_segmented_it(patients: Path, out: Path) -> None:
    record = json.loads((out / "p1" / "case.json").read_text())
    record["made"]["networks"] = [["basic_unet", "ab" * 32, 0.5]]
    (out / "p1" / "case.json").write_text(json.dumps(record))
    assert brainseg("report", out, "-q") == 0
    page = (out / "report.html").read_text()
    assert page.count("in another run than the others") == 1
    assert "egmented by basic_unet abababababab, threshold 0.5, in another run than the others" in page


def test_a_record_of_an_earlier_version_still_keeps_a_corrected_mask(patients: Path, out: Path) -> None:
    record = json.loads((out / "p1" / "case.json").read_text())
    record |= {"made": record["made"]["mask"], "confidence": record["made"]["confidence"]}
    (out / "p1" / "case.json").write_text(json.dumps(record))
    edit(out / "p1")
    edited = (out / "p1" / "mask.nii.gz").read_bytes()
    assert brainseg("segment", patients, "--out", out, "-q") == 0
    assert (out / "p1" / "mask.nii.gz").read_bytes() == edited
    assert row_of(out, "p1").flags == (*KNOWN, "mask_edited")  # how large the head is was not recorded then


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda mask, affine: (mask[:-1], affine), "has 63 x 64 x 12 voxels, the scan 64 x 64 x 12"),
        (lambda mask, affine: (mask, affine + 5 * np.eye(4, k=3)), "lies up to 5 mm from the scan"),
        (lambda mask, affine: (2 * mask, affine), "holds labels other than 0 and 1 (up to 2)"),
        (lambda mask, affine: (0.5 * mask, affine), "is no mask: its values are not whole numbers"),
    ],
)
def test_a_mask_that_is_none_of_this_scan_is_refused_alone(
    change: object, cause: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = out / "p1" / "mask.nii.gz"
    image = nibabel.load(path)
    mask, affine = change(np.asarray(image.dataobj).astype(np.float32), image.affine)  # type: ignore[operator]
    nibabel.save(nibabel.Nifti1Image(mask, affine), path)
    saved = path.read_bytes()
    assert brainseg("report", out, "-q") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: {cause}")
    assert path.read_bytes() == saved
    assert [(row.case, row.status) for row in read_cohort(out / "cohort.csv")] == [
        ("p0", "done"), ("p1", "failed"),
    ]  # fmt: skip
    assert brainseg("report", out, "-q") == 4  # it is a failure of that case's mask, not of its being there
    shutil.copy(out / "p0" / "mask.nii.gz", path)
    edit(out / "p1")
    assert brainseg("report", out, "-q") == 0
    assert json.loads((out / "failures.json").read_text()) == []


def test_segment_keeps_a_corrected_mask_and_measures_it(patients: Path, out: Path) -> None:
    edit(out / "p1")
    edited = (out / "p1" / "mask.nii.gz").read_bytes()
    for _ in range(2):
        assert brainseg("segment", patients, "--out", out, "-q") == 0
        assert (out / "p1" / "mask.nii.gz").read_bytes() == edited
        assert row_of(out, "p1").volume_voxels == 200
        assert row_of(out, "p1").flags == (*SCAN, "mask_edited")


def test_segment_with_other_settings_refuses_to_lose_a_corrected_mask(
    patients: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(out / "p1")
    edited = (out / "p1" / "mask.nii.gz").read_bytes()
    assert brainseg("segment", patients, "--out", out, "--threshold", "0.4", "-q") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "was edited by hand" in line
    assert "--overwrite to lose the edit" in line
    assert (out / "p1" / "mask.nii.gz").read_bytes() == edited
    assert row_of(out, "p1").status == "failed"
    assert brainseg("segment", patients, "--out", out, "--threshold", "0.4", "--overwrite", "-q") == 0
    assert (out / "p1" / "mask.nii.gz").read_bytes() != edited
    assert row_of(out, "p1").flags == KNOWN


def test_tiff_masks_that_no_longer_agree_are_flagged(tmp_path: Path) -> None:
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))
    write_phantom_tiff(phantom, tmp_path / "patients")
    out = tmp_path / "out"
    assert brainseg("segment", tmp_path / "patients", "--out", out, "-q") == 0
    (before,) = read_cohort(out / "cohort.csv")
    edit(out / before.case)
    assert brainseg("report", out, "-q") == 0
    (row,) = read_cohort(out / "cohort.csv")
    assert row.volume_ml is None  # the editor wrote a unit, which does not make a voxel known
    assert row.volume_voxels == 200
    assert set(row.flags) - set(before.flags) - {"low_confidence"} == {"mask_edited", "other_masks_earlier"}
    assert set(before.flags) - set(row.flags) <= {"empty_mask", "low_confidence", "cut_off"}


def test_without_slices_webp_the_page_says_that_the_picture_is_the_earlier_one(out: Path) -> None:
    (out / "p1" / "slices.webp").unlink()
    picture = (out / "p1" / "overlay.png").read_bytes()
    edit(out / "p1")
    assert brainseg("report", out, "-q") == 0
    assert (out / "p1" / "overlay.png").read_bytes() == picture
    assert row_of(out, "p1").flags == (*SCAN, "mask_edited", "picture_earlier")
    assert brainseg("report", out, "-q") == 0
    assert row_of(out, "p1").flags == (*SCAN, "mask_edited", "picture_earlier")


def test_a_file_that_is_gone_costs_the_others_nothing(out: Path) -> None:
    lesions = (out / "p1" / "lesions.csv").read_bytes()
    for name in ("slices.webp", "overlay.png"):
        (out / "p1" / name).unlink()
    assert brainseg("report", out, "-q") == 0
    assert (out / "p1" / "lesions.csv").read_bytes() == lesions
    assert row_of(out, "p1").flags == KNOWN
    assert row_of(out, "p1").confidence == row_of(out, "p0").confidence


def test_failures_of_the_run_stay_and_do_not_make_the_report_fail(out: Path) -> None:
    failure = {"case": "lost", "input": "in/lost", "cause": "is truncated", "remedy": "copy it again"}
    (out / "failures.json").write_text(json.dumps([failure]))
    assert brainseg("report", out, "-q") == 0
    assert row_of(out, "lost").error == "is truncated; copy it again"
    assert json.loads((out / "failures.json").read_text()) == [failure]


def test_what_failed_in_the_run_is_not_reported_by_what_an_earlier_run_left_of_it(out: Path) -> None:
    failure = {"case": "p1", "input": "in/p1", "cause": "is truncated", "remedy": "copy it again"}
    (out / "failures.json").write_text(json.dumps([failure]))
    assert brainseg("report", out, "-q") == 0
    assert (row_of(out, "p1").status, row_of(out, "p1").error) == ("failed", "is truncated; copy it again")
    assert json.loads((out / "failures.json").read_text()) == [failure]
    edit(out / "p1")  # by somebody who looked at what is there
    assert brainseg("report", out, "-q") == 0
    assert row_of(out, "p1").status == "done"


def test_a_mask_without_a_record_is_refused_and_a_folder_without_results_is_usage(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "p1" / "case.json").unlink()
    assert brainseg("report", out, "-q") == 4
    assert "does not say what the mask was made from; run segment again" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        assert brainseg("report", folder, "-q") == 2
    assert not (tmp_path / "nowhere").exists()


def test_report_without_names_holds_no_case_name_and_no_path(out: Path) -> None:
    for name in ("cohort.csv", "failures.json", "run.json"):
        (out / name).unlink()
    for number, secret in enumerate(("SMITH_JOHN", "DOE_JANE")):
        (out / f"p{number}").rename(out / secret)
    assert brainseg("report", out, "--without-names", "-q") == 0
    named, nameless = ((out / name).read_text() for name in ("report.html", "report_without_names.html"))
    assert named.count("SMITH_JOHN") > 0
    for secret in ("SMITH_JOHN", "DOE_JANE", "patients/", ".nii"):
        assert secret not in nameless
    assert nameless.count('<figure class="viewer"') == nameless.count('alt="Axial FLAIR slices of Scan ') == 2
