"""The page to try the model over HTTP, as its server answers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from planted import found_in, plant_in_dicom, plant_in_nifti
from served import files_under, needs_gradio, served

from brainseg.app.guard import POLICY
from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti

pytestmark = [
    needs_gradio,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can hear"),
]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def client(temporary: Path) -> Iterator[Any]:
    """Asks a server, which is stopped after these tests and must then have left nothing."""
    import httpx

    with served(temporary) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client
        assert len(files_under(temporary)) == 1
    assert list(temporary.iterdir()) == []


def uploaded(client: Any, name: str, content: bytes) -> list[dict[str, Any]]:
    """What the page sends on once it has uploaded a file."""
    paths = client.post("/gradio_api/upload", files=[("files", (name, content))]).json()
    return [{"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}} for path in paths]


def shown(client: Any, files: list[dict[str, Any]]) -> list[Any]:
    """What the page shows for uploaded files: patients, slider, picture, words, download."""
    uploads = [one for one in client.get("/config").json()["dependencies"] if one["targets"][0][1] == "upload"]
    asked = {"data": [files, "residual_unet", 0.5], "fn_index": uploads[0]["id"], "session_hash": "tests"}
    assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
    lines = client.get("/gradio_api/queue/data", params={"session_hash": "tests"}).text.splitlines()
    messages = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    answer: list[Any] = next(one for one in messages if one["msg"] == "process_completed")["output"]["data"]
    return answer


def test_upload_is_segmented_its_mask_downloaded_and_no_scan_stays(
    client: Any, temporary: Path, tmp_path: Path
) -> None:
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))
    scan = write_phantom_nifti(phantom, tmp_path) / "flair.nii.gz"
    _, _, picture, words, download = shown(client, uploaded(client, scan.name, scan.read_bytes()))
    assert picture.startswith("<svg")
    assert "<h2>flair</h2>" in words
    assert files_under(temporary) == ["flair_mask.nii.gz"]
    (tmp_path / "mask.nii.gz").write_bytes(client.get(download["value"]["url"]).content)
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert mask.shape == (64, 64, 12)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
    np.testing.assert_allclose(mask.affine, phantom.affine)


def test_nothing_planted_in_an_upload_is_shown_sent_back_or_kept(client: Any, temporary: Path, tmp_path: Path) -> None:
    phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0))
    scan = write_phantom_nifti(phantom, tmp_path) / "flair.nii.gz"
    plant_in_nifti(scan.parent)
    plant_in_dicom(write_phantom_dicom(phantom, tmp_path / "dicom", "one"))
    packed = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path / "dicom"))
    for path in (scan, packed):
        assert found_in(path.read_bytes())
        answer = shown(client, uploaded(client, path.name, path.read_bytes()))
        kept = [temporary / one for one in temporary.rglob("*") if one.is_file()]
        sent = client.get(answer[4]["value"]["url"]).content
        for content in (json.dumps(answer).encode(), sent, *(one.read_bytes() for one in kept)):
            assert found_in(content) == set()


def test_refusal_is_in_words_and_takes_upload_and_former_mask_away(client: Any, temporary: Path) -> None:
    _, _, picture, words, download = shown(client, uploaded(client, "a&b.nii", b"nothing"))
    assert 'role="alert">a&amp;b.nii: ' in words
    assert "<svg" not in picture
    assert not download["visible"]
    assert files_under(temporary) == []
    uploaded(client, "never_read.nii", b"left by somebody who went away")


def test_browser_is_told_to_ask_nobody_else_and_to_keep_nothing(client: Any) -> None:
    page = client.get("/")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["cache-control"] == "no-store"
    assert client.get("/", headers={"host": "rebound.example"}).status_code == 403


@pytest.mark.parametrize("route", ["queue/join", "run/predict"])
@pytest.mark.parametrize("path", [__file__, "http://127.0.0.1:9/a.nii"])
def test_server_reads_no_file_of_its_own_and_no_address(client: Any, route: str, path: str) -> None:
    asked = {"data": [[{"path": path, "meta": {"_type": "gradio.FileData"}}], "residual_unet", 0.5], "fn_index": 0}
    answer = client.post(f"/gradio_api/{route}", json=asked)
    assert (answer.status_code, answer.text) == (403, "only files that were uploaded are read")
    assert client.get(f"/gradio_api/file={path}").status_code == 403
