"""The page to try the model, without a browser: uploads, refusals, the mask, what is kept, and who is answered."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from command import brainseg, open_bundles_with

from brainseg.app.guard import LOOPBACK, names_only_uploads, refused
from brainseg.app.result import refusal_html, result_html
from brainseg.app.server import hosts_of, listening
from brainseg.app.visit import MOST_VISITS, Networks, Visit, Visits, uploaded
from brainseg.errors import BrainsegError, InputError, MachineError, UsageError
from brainseg.guarded import GuardedReader
from brainseg.phantom import Phantom, make_phantom, write_phantom_dicom, write_phantom_nifti, write_phantom_tiff


class Bright(torch.nn.Module):
    """Stands in for a network; counts how often it ran."""

    runs = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        Bright.runs += 1
        return (image[:, 1:2] - 1.3) * 20


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Networks:
    open_bundles_with(Bright(), monkeypatch)
    return Networks(["residual_unet", "basic_unet"], "cpu")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture(scope="module")
def reader() -> Iterator[GuardedReader]:
    with GuardedReader() as reader:
        yield reader


@pytest.fixture
def visit(root: Path, reader: GuardedReader) -> Iterator[Visit]:
    visit = Visit(root, reader)
    yield visit
    visit.close()
    assert list(root.iterdir()) == []


def upload(root: Path, *sources: Path) -> list[Path]:
    """The files of `sources` as the page lays them down: each in a folder that says nothing."""
    files = []
    for source in sources:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file():
                files.append(root / f"upload-{len(list(root.iterdir()))}" / file.name)
                files[-1].parent.mkdir()
                shutil.copy(file, files[-1])
    return files


def files_under(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


def test_nifti_is_measured_and_its_mask_lies_on_its_grid_and_the_upload_is_gone(
    phantom: Phantom, tmp_path: Path, root: Path, visit: Visit, networks: Networks
) -> None:
    source = write_phantom_nifti(phantom, tmp_path)
    visit.take(upload(root, source / "flair.nii.gz"))
    assert files_under(root) == []
    visit.segment(networks, "residual_unet", 0.5)
    path = visit.download()
    assert files_under(root) == [path.name] == ["flair_mask.nii.gz"]
    written = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj), visit.result.mask)
    np.testing.assert_allclose(written.affine, phantom.affine)
    ml = visit.result.mask.sum() * 3.6 * 3.6 * 12 / 1000
    assert f"<dd>{ml:.1f} mL</dd>" in result_html(visit)


def test_tiff_slices_in_any_order_are_one_patient_by_their_names_and_shown_beside_the_true_mask(
    phantom: Phantom, tmp_path: Path, root: Path, visit: Visit, networks: Networks
) -> None:
    source = write_phantom_tiff(phantom, tmp_path, "case_7")
    visit.take(upload(root, source)[::-1])
    assert [one.name for one in visit.patients] == ["case_7"]
    assert [file.name for file in visit.case.files] == [f"case_7_{n}.tif" for n in range(1, 13)]
    np.testing.assert_array_equal(visit.truth, phantom.mask)
    shown = visit.segment(networks, "residual_unet", 0.5)
    assert "mask beside the scan" in shown.picture(shown.fullest())
    page = result_html(visit)
    assert "voxels</dd>" in page
    assert "<dt>Dice</dt>" in page
    with zipfile.ZipFile(visit.download()) as archive:
        names = [f"case_7/case_7_{n}_mask.tif" for n in range(1, 13)]
        assert sorted(archive.namelist()) == sorted(["case_7/", "case_7/mask.nii.gz", *names])
        archive.extractall(tmp_path / "out")
    third = tifffile.imread(tmp_path / "out" / "case_7" / "case_7_3_mask.tif")
    np.testing.assert_array_equal(third, visit.result.mask[..., 2].T * np.uint8(255))


def test_zip_of_dicom_and_loose_dicom_whose_series_use_the_same_names_give_the_same_mask(
    phantom: Phantom, tmp_path: Path, root: Path, visit: Visit, networks: Networks
) -> None:
    source = write_phantom_dicom(phantom, tmp_path / "study")
    visit.take(upload(root, source))
    assert visit.case.missing == ()
    visit.segment(networks, "residual_unet", 0.5)
    loose = visit.result.mask
    packed = shutil.make_archive(str(tmp_path / "one"), "zip", source)
    visit.take(upload(root, Path(packed)))
    visit.segment(networks, "residual_unet", 0.5)
    assert visit.case.name == "one"
    assert loose.sum() > 0
    np.testing.assert_array_equal(visit.result.mask, loose)


def test_several_patients_can_be_chosen_from_and_their_files_stay_until_the_visit_ends(
    phantom: Phantom, tmp_path: Path, root: Path, visit: Visit, networks: Networks
) -> None:
    for name in ("first", "second"):
        write_phantom_tiff(phantom, tmp_path / "all", name)
    visit.take(upload(root, tmp_path / "all"))
    visit.segment(networks, "residual_unet", 0.5)
    assert visit.case.name == "first"
    assert "one of 2 patients in the upload" in result_html(visit)
    visit.choose("second")
    visit.segment(networks, "residual_unet", 0.5)
    assert visit.case.name == "second"
    with pytest.raises(UsageError, match="is no longer there"):
        visit.choose("third")


def test_another_threshold_gives_the_mask_that_the_command_line_gives_without_running_the_network_again(
    phantom: Phantom, tmp_path: Path, root: Path, visit: Visit, networks: Networks
) -> None:
    source = write_phantom_nifti(phantom, tmp_path)
    visit.take(upload(root, source / "flair.nii.gz"))
    visit.segment(networks, "residual_unet", 0.5)
    at_half, ran = visit.result.mask, Bright.runs
    visit.segment(networks, "residual_unet", 0.9)
    assert Bright.runs == ran
    command = ["segment", source / "flair.nii.gz", "--threshold", "0.9", "--device", "cpu", "-q"]
    assert brainseg(*command, "--out", tmp_path / "out") == 0
    mask = np.asarray(nibabel.load(tmp_path / "out" / "flair" / "mask.nii.gz").dataobj)
    assert 0 < mask.sum() < at_half.sum()
    np.testing.assert_array_equal(visit.result.mask, mask)
    visit.segment(networks, "basic_unet", 0.9)
    assert Bright.runs > ran


def test_each_network_is_opened_once_and_only_those_offered(networks: Networks) -> None:
    assert networks.get("residual_unet") is networks.get("residual_unet")
    with pytest.raises(UsageError, match="is not one of those offered"):
        networks.get("attention_unet")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("notes.txt", b"no image", "notes.txt: is not an image that can be read; give a folder of TIFF slices"),
        ("a.nii.gz", b"no image", "a.nii.gz: "),
        ("a.zip", b"no zip", "a.zip: is not a zip that can be unpacked"),
        ("<img src=x onerror=alert(1)>.tif", b"no image", "&lt;img src=x onerror=alert(1)&gt;.tif: "),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_escaped_line_without_the_servers_paths(
    name: str, content: bytes, says: str, root: Path, visit: Visit
) -> None:
    (root / "u").mkdir()
    (root / "u" / name).write_bytes(content)
    with pytest.raises(InputError) as refusal:
        visit.take([root / "u" / name])
    page = refusal_html(visit.words(refusal.value))
    assert f'role="alert">{says}' in page
    assert str(root) not in page
    assert "<img" not in page
    visit.clear()
    assert files_under(root) == []


def test_series_that_is_not_flair_is_refused_and_the_page_says_where_the_option_belongs(
    phantom: Phantom, tmp_path: Path, root: Path, visit: Visit
) -> None:
    source = write_phantom_dicom(phantom, tmp_path / "study")
    with pytest.raises(BrainsegError) as refusal:
        visit.take(upload(root, source / "T1_PRE"))
    page = refusal_html(visit.words(refusal.value))
    assert "--force" in page
    assert "is an option of <code>brainseg segment</code>" in page


@pytest.mark.parametrize("value", [None, [], [{"path": "/etc/passwd"}], [{"path": "http://example.org/a.nii"}], "x"])
def test_only_files_of_an_upload_are_read(value: object, root: Path) -> None:
    with pytest.raises(UsageError, match="holds no files"):
        uploaded(value, root)


def test_pages_beyond_the_most_end_the_one_longest_unused(root: Path, reader: GuardedReader) -> None:
    visits = Visits(root, reader)
    first = visits.of("0")
    for session in range(1, MOST_VISITS):
        visits.of(str(session))
    assert visits.of("0") is first
    visits.of("another")
    assert len(visits) == MOST_VISITS == len(list(root.iterdir()))
    assert visits.of("0") is first
    visits.close()
    assert list(root.iterdir()) == []


def test_upload_that_nobody_read_goes_after_an_hour_or_with_the_last_page(root: Path, reader: GuardedReader) -> None:
    visits = Visits(root, reader)
    visit = visits.of("one")
    for name in ("old", "new"):
        (root / name).mkdir()
        (root / name / "scan.nii").write_bytes(b"")
    os.utime(root / "old", (0, 0))
    visits.of("another")
    assert {path.name for path in root.iterdir()} >= {"new", visit.folder.name}
    assert not (root / "old").exists()
    visits.leave("one")
    assert (root / "new").exists()
    visits.leave("another")
    assert list(root.iterdir()) == []


HERE = {"host": "127.0.0.1:7860"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "says"),
    [
        ("GET", "/", HERE, ""),
        ("GET", "/", {"host": "[::1]:7860"}, ""),
        ("POST", "/gradio_api/upload", {**HERE, "origin": "http://127.0.0.1:7860"}, ""),
        ("GET", "/", {"host": "rebound.example:7860"}, "this host name is not served"),
        ("POST", "/gradio_api/upload", {**HERE, "origin": "https://example.org"}, "another site may not use this page"),
        ("POST", "/gradio_api/upload", {**HERE, "origin": "null"}, "another site may not use this page"),
        ("GET", "/config", {**HERE, "sec-fetch-site": "cross-site"}, "another site may not use this page"),
        ("GET", "/gradio_api/proxy=https://example.org", HERE, "not part of this page"),
        ("GET", "/gradio_api/file=https://example.org/a", HERE, "nothing is fetched from elsewhere"),
        ("GET", "/gradio_api/vibe-code/", HERE, "not part of this page"),
        ("GET", "/gradio_api/runs", HERE, "not part of this page"),
    ],
)
def test_only_requests_of_the_page_itself_are_answered(
    method: str, path: str, headers: dict[str, str], says: str
) -> None:
    assert refused(method, path, headers, LOOPBACK) == says


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        ('{"data": [[{"path": "ROOT/a.nii"}], "x", 0.5]}', True),
        ("", True),
        ('{"data": [[{"path": "ROOT/a.nii"}, {"deep": [{"path": "/etc/passwd"}]}]]}', False),
        ('{"path": "ROOT/../a.nii"}', False),
        ('{"path": "http://example.org/ROOT/a.nii"}', False),
        ('{"path": ["ROOT/a.nii"]}', False),
        ("no JSON", False),
    ],
)
def test_request_may_name_no_file_but_an_upload(body: str, holds: bool, root: Path) -> None:
    assert names_only_uploads(body.replace("ROOT", str(root)).encode(), root) is holds


def test_only_an_address_that_others_can_reach_answers_under_any_name() -> None:
    assert hosts_of("127.0.0.1") == hosts_of("localhost") == hosts_of("::1") == LOOPBACK
    assert hosts_of("0.0.0.0") is None
    assert refused("GET", "/", {"host": "ward-7:7860"}, None) == ""


def test_command_says_in_one_line_how_to_get_gradio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert brainseg("app", "--port", "0") == 2
    assert capsys.readouterr().err == 'error: gradio: is not installed; pip install "brainseg[app]"\n'


def test_server_warns_where_others_can_reach_it_and_says_what_it_cannot_listen_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert brainseg("app", "--host", "0.0.0.0") == 2
    assert "warning: 0.0.0.0 is not this machine alone, and the page has no login" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(MachineError, match=f"127.0.0.1:{port}: cannot be listened on"),
            listening("127.0.0.1", port),
        ):
            pass
