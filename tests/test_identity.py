"""No identifier of a patient, and no path of the source, leaves: planted in every format, searched for in every byte.

What a DICOM SEG must carry of its source (`planted.CARRIED`) is in the SEG and nowhere else. Names of cases are those
of folders and files as the user gave them. The page of `brainseg app` is searched in test_app_served.py.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import planted
import pydicom
import pytest
from command import Bright, brainseg, open_bundles_with
from dicom_files import series, write
from figshare_files import head, write_matlab, write_picture
from planted import CARRIED, FOLDER, KEPT_BACK, files_under, found_in

from brainseg.phantom import Phantom, make_phantom, write_phantom_dicom, write_phantom_nifti, write_phantom_tiff
from brainseg.study import find_patients
from brainseg.train import prepare

SPACING_MM = (3.6, 3.6, 12.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(shape=(64, 64, 12), spacing_mm=SPACING_MM)


@pytest.fixture(scope="module")
def scans(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients in every format, one of each, below a folder that names somebody."""
    root = tmp_path_factory.mktemp("any") / FOLDER / "scans"
    write_phantom_dicom(phantom, root / "dicom", "first")
    planted.plant_in_dicom(root / "dicom")
    write_phantom_nifti(phantom, root / "nifti", "second")
    planted.plant_in_nifti(root / "nifti")
    for number in range(3):
        write_phantom_tiff(phantom, root / "tiff", f"p{number}")
    planted.plant_in_tiff(root / "tiff")
    write_picture(root / "png", 1, *head(64))
    write_picture(root / "jpg", 1, *head(64), suffix=".jpg")
    planted.plant_in_pictures(root)
    for suffix in (".mha", ".nrrd"):
        planted.write_itk(root / suffix[1:] / "third", suffix, phantom.image[1], SPACING_MM)
    mat = write_matlab(root / "mat", 1, *head(64), "ZZIDENT29")
    content = mat.read_bytes()
    mat.write_bytes(content[:40] + b"Created by: Zzident30".ljust(76) + content[116:])
    return root


@pytest.fixture(autouse=True)
def here(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the scans, so that the user never says the folder above them; with a network that takes no time."""
    monkeypatch.chdir(scans.parent)
    open_bundles_with(Bright(), monkeypatch)


def nobody(out: Path, capfd: pytest.CaptureFixture[str], more: Sequence[str] = ()) -> str:
    """What was said since it was last asked, once that and every file under `out` is found to name nobody."""
    said = "".join(capfd.readouterr())
    leaks = {"terminal": found_in(said.encode(), more)}
    for path in files_under(out):
        content = planted.without_what_a_seg_carries(path) if path.name == "seg.dcm" else path.read_bytes()
        name = str(path.relative_to(out))
        leaks[name] = found_in(content, more if path.name != "seg.dcm" else ()) | found_in(name.encode())
    assert {place: found for place, found in leaks.items() if found} == {}
    return said


def test_the_search_finds_what_is_packed_or_in_another_coding() -> None:
    secret = "Zzident01^Müller"
    assert found_in(b"nothing of the kind \xff 19310202") == set()
    picture = files_with_text(secret)
    for content in (secret.encode("latin-1"), secret.encode("utf-16-le"), gzip.compress(secret.encode()), picture):
        assert len(found_in(b"" + content)) == 1
    assert len(found_in(b"event" + picture + b"more")) == 1
    assert len(found_in(b"a birth date of 1931-02-03")) == 1


def files_with_text(text: str) -> bytes:
    """A PNG with a compressed text."""
    import io

    from PIL import Image, PngImagePlugin

    stream, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Comment", text * 9, zip=True)
    Image.new("L", (4, 4)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def test_segment_and_report_in_every_format_name_nobody(
    scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = [*(f"scans/{name}" for name in ("dicom", "nifti", "png", "jpg", "mha", "nrrd", "mat")), "scans/tiff/p0"]
    arguments = ("--format", "nifti,tiff,dicom-seg,gif", "--save-probability", "--segment-per-lesion", "-v")
    assert brainseg("segment", *given, "--out", out, *arguments) == 0
    uids = [pydicom.dcmread(path).SeriesInstanceUID for path in (scans / "dicom").rglob("0001.dcm")]
    assert len(list(out.rglob("case.json"))) == len(given)
    nobody(out, capfd, uids)
    seg = pydicom.dcmread(next(out.rglob("seg.dcm")))
    assert {keyword: str(seg[keyword].value) for keyword in CARRIED} == CARRIED
    assert not {keyword for keyword in KEPT_BACK if keyword in seg} - {"ContentDate", "DeviceSerialNumber"}
    assert seg.ContentDate == CARRIED["StudyDate"]
    mask = out / "second" / "mask.nii.gz"
    image = nibabel.load(mask)
    changed = np.asarray(image.dataobj).copy()
    changed[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(changed, image.affine), mask)
    assert brainseg("report", out, "--without-names", "-v") == 0
    nobody(out, capfd, uids)
    assert "second" not in (out / "report_without_names.html").read_text()


def test_a_path_given_from_the_root_is_not_recorded(
    scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = (scans / "dicom", scans / "nifti", scans / "tiff" / "p0")
    assert brainseg("segment", *given, "--out", tmp_path / "out", "-v") == 0
    nobody(tmp_path, capfd)


def spoilt(scans: Path, bad: Path) -> None:
    """Every format damaged in a way that its reader meets late, with the identifiers still in."""
    for name in ("dicom/first/FLAIR", "nifti/second", "tiff/p0", "png", "mat", "mha/third", "nrrd/third"):
        shutil.copytree(scans / name, bad / name)
    for path in (bad / "dicom").rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:-5000])
    for pattern in ("nifti/**/flair.nii.gz", "tiff/**/p0_3.tif", "png/images/1.png", "mat/1.mat", "*/third/flair.*"):
        for path in bad.glob(pattern):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # headers whose values are where a number or a file is expected
    array = np.zeros((4, 4, 4))
    for name, old, new in (
        ("a.mha", b"Offset = 0 0 0", b"Offset = Zzident31 0 0"),
        ("b.mha", b"ElementDataFile = LOCAL", b"ElementDataFile = /home/Zzident32/scan.raw"),
        ("c.mha", b"ElementDataFile = LOCAL", b"ElementDataFile = Zzident33.raw"),
        ("d.mha", b"MET_FLOAT", b"Zzident34"),
        ("e.nrrd", b"left-posterior-superior", b"Zzident35"),
        ("f.nrrd", b"encoding: raw", b"encoding: Zzident36"),
        ("g.nrrd", b"space origin", b'space units: "Zzident37" "mm" "mm"\nspace origin'),
        ("h.nrrd", b"type: float", b"type: Zzident38"),
    ):
        path = planted.write_itk(bad / "header" / name[0], name[1:], array, (1, 1, 1))
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))
    for place, tags in {
        "tied": {"SeriesDescription": "AX FLAIR ZZIDENT28"},
        "unclear": {"SeriesDescription": "ZZIDENT28", "EchoTime": None, "InversionTime": None},
        "modality": {"Modality": "ZZIDENT39"},
        "colour": {"PhotometricInterpretation": "ZZIDENT40"},
    }.items():
        study = "1.2.826.0.1.3680043.8.498.1"
        for part in ("one", "two") if place in ("tied", "unclear") else ("one",):
            tags = {**tags, **{key: value for key, value in CARRIED.items() if key != "PatientName"}}
            write(bad / "choice" / place / part, series(StudyInstanceUID=study + str(len(place)), **tags))
    write(bad / "choice" / "ids", series(PatientID="ZZIDENT41"))
    write(bad / "choice" / "ids" / "more", series(PatientID="ZZIDENT42"))
    with zipfile.ZipFile(bad / "packed.zip", "w") as archive:
        archive.comment = b"Zzident43"
        archive.writestr("flair.nii.gz", b"no scan")


def test_what_cannot_be_read_is_refused_without_a_word_of_its_header(
    scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = scans.parent / "bad"
    spoilt(scans, bad)
    out = tmp_path / "out"
    places = sorted(path for path in bad.iterdir() if path.name not in ("header", "choice"))
    places += sorted((bad / "header").iterdir()) + sorted((bad / "choice").iterdir())
    given = [path.relative_to(scans.parent) for path in places]
    assert brainseg("segment", *given, "--out", out, "-v") in (3, 4)
    said = nobody(out, capfd)
    failures = json.loads((out / "failures.json").read_text())
    assert said.count("error: ") == len(failures) >= 15
    assert "this is a bug" not in said
    for path in given:
        assert brainseg("data", "check", path) in (0, 3, 4)
    for place in ("bad/nifti", "bad/header/b", "bad/choice/tied"):
        assert brainseg("saliency", place, "--out", out) == 3
        assert brainseg("follow", place, "scans/nifti", "--out", out) in (2, 3)
    nobody(out, capfd)


def test_a_bug_is_told_by_its_place_and_not_by_its_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError(f"{planted.MARK}44 read in the header of /home/{planted.MARK}45")

    monkeypatch.setattr("brainseg.guarded.GuardedReader.read_patient", broken)
    monkeypatch.setattr("brainseg.readers.read_patient", broken)  # which saliency calls
    out = tmp_path / "out"
    assert brainseg("segment", "scans/nifti", "--out", out, "-v") == 3
    said = nobody(out, capfd)
    assert "error: nifti/second: KeyError in test_identity.py, line " in said
    assert brainseg("saliency", "scans/nifti/second", "--out", out, "-v") == 1
    said = nobody(out, capfd)
    assert "error: brainseg: KeyError in test_identity.py, line " in said


def test_follow_and_saliency_name_nobody_and_no_date(
    scans: Path, phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = scans.parent / "visits"
    write_phantom_dicom(phantom, before, "before", date="19870301")
    planted.plant_in_dicom(before)
    for path in before.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.StudyDate = ds.AcquisitionDate = "19870301"
        ds.save_as(path)
    dates = ["19870301", "1987-03-01"]
    assert brainseg("follow", "visits/before", "scans/dicom/first", "--out", tmp_path / "dicom", "-v") == 0
    said = nobody(tmp_path, capfd, dates)
    assert "day 71" in said
    assert brainseg("saliency", "scans/dicom/first", "--slice", 6, "--out", tmp_path / "saliency", "-v") == 0
    nobody(tmp_path, capfd, dates)


def test_training_and_everything_that_scores_it_name_nobody(
    scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a network that can learn
    monkeypatch.chdir(scans.parent)
    folds = tmp_path / "folds.json"
    for place in sorted(path.name for path in scans.iterdir()):
        assert brainseg("data", "check", Path("scans") / place) == 0
    assert brainseg("data", "split", "scans/tiff", "--folds", 3, "--out", folds) == 0
    assert brainseg("data", "split", "scans/tiff", "--by", "slice", "--out", tmp_path / "slices.json") == 0
    run = tmp_path / "run"
    small = ("batch_size=1", "num_workers=0", "window=[64, 64]", "-v")
    arguments = ("--data", scans / "tiff", "--folds", folds, "--epochs", 1, "--weights", "shipped")
    assert brainseg("train", "--bundle", "residual_unet", *arguments, "--out", run, *small) == 0
    listed = json.loads((run / "datalist.json").read_text())["training"]
    assert not [name for item in listed for name in item["image"] + item["label"] if Path(name).is_absolute()]
    assert list(run.glob("events.out.tfevents.*"))
    scored = ("--data", scans / "tiff", "--folds", folds, "--fold", 0, "-v")
    assert brainseg("evaluate", *scored, "--bundle", run, "--out", tmp_path / "scores") == 0
    assert brainseg("segment", scans / "tiff", "--bundle", run.absolute(), "--out", tmp_path / "masks", "-v") == 0
    assert brainseg("evaluate", *scored, "--predictions", tmp_path / "masks", "--out", tmp_path / "again") == 0
    assert brainseg("compare", tmp_path / "scores", tmp_path / "again", "--out", tmp_path / "compared") == 0
    nobody(tmp_path, capfd)


def test_paths_of_options_are_not_recorded(scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weights = scans.parent / "run"
    shutil.copytree(Path(__file__).parents[1] / "bundles" / "residual_unet", weights)
    (weights / "run.json").write_text(json.dumps({"bundle": "residual_unet"}))
    flair = scans / "nifti" / "second" / "flair.nii.gz"
    pre = ("--pre", flair.with_name("t1.nii.gz"), "--post", flair.with_name("t1c.nii.gz"))
    assert brainseg("segment", flair, *pre, "--bundle", weights, "--out", tmp_path / "out", "-v") == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["bundle"] == "run"
    uid = pydicom.dcmread(scans / "dicom" / "first" / "FLAIR" / "0001.dcm").SeriesInstanceUID
    assert brainseg("segment", "scans/dicom", "--series", uid, "--out", tmp_path / "chosen", "-v") == 0
    nobody(tmp_path, capfd, [uid])


@pytest.mark.parametrize("place", ["png", "mat"])
def test_slices_that_training_writes_as_volumes_name_nobody(
    scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    patients = find_patients(scans / place)
    names = [patient.name for patient in patients]
    settings = {"pretrained_encoder": ""}
    prepare("resnet34_unet", patients, [names], scans / place, tmp_path / "run", fold=-1, settings=settings)
    assert list((tmp_path / "run" / "dataset").rglob("flair.nii.gz"))
    nobody(tmp_path, capfd)


def test_demo_names_no_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert brainseg("demo", "--out", tmp_path / "demo", "-v") == 0
    nobody(tmp_path, capfd)
