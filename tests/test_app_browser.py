"""The page to try the model in Chromium: upload, scroll, threshold, download, refusal; nobody else is asked."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import pytest
from served import files_under, needs_gradio, served

from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    needs_gradio,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can hear"),
]
RESULT = "#words h2, #words .refusal"
SLICE = "document.querySelector('#picture svg').getAttribute('aria-label')"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def browser(temporary: Path) -> Iterator[tuple[Any, str]]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with served(temporary) as address, driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium, address
        chromium.close()


@pytest.fixture
def page(browser: tuple[Any, str], temporary: Path) -> Iterator[Any]:
    """The page, freshly opened; it may have asked its own server only, and leaves nothing there once closed."""
    chromium, address = browser
    page = chromium.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(address)
    page.wait_for_selector("input[type=file]", state="attached")
    yield page
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    page.close()
    assert elsewhere == []
    assert faults == []
    for _ in range(100):  # the server hears of it a moment later
        if not files_under(temporary):
            break
        time.sleep(0.1)
    assert files_under(temporary) == []


def test_scan_is_uploaded_looked_through_cut_anew_and_its_mask_downloaded(page: Any, tmp_path: Path) -> None:
    phantom = make_phantom(shape=(96, 96, 12), spacing_mm=(2.4, 2.4, 12.0))
    scan = write_phantom_nifti(phantom, tmp_path) / "flair.nii.gz"
    page.locator("input[type=file]").first.set_input_files(scan)
    page.wait_for_selector(RESULT)
    assert page.inner_text("#words h2") == "flair"
    before = page.evaluate(SLICE)
    page.hover("#picture svg")
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"{SLICE} !== {before!r}")
    number = int(before.split()[-3])
    assert page.evaluate(SLICE) == f"FLAIR, axial slice {number - 1} of 12"
    page.locator("#place input[type=range]").press("ArrowRight")
    page.wait_for_function(f"{SLICE} === {before!r}")
    page.locator("#threshold input[type=range]").press("End")
    page.wait_for_selector("#words >> text=threshold 0.95")
    assert page.evaluate(SLICE) == before
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "flair_mask.nii.gz"
    download.value.save_as(tmp_path / "mask.nii.gz")
    assert nibabel.load(tmp_path / "mask.nii.gz").shape == (96, 96, 12)


def test_dropped_folder_of_dicom_is_one_patient_with_all_its_series(page: Any, tmp_path: Path) -> None:
    phantom = make_phantom(shape=(64, 64, 6), spacing_mm=(3.6, 3.6, 24.0))
    folder = write_phantom_dicom(phantom, tmp_path, "study")
    page.wait_for_timeout(500)
    place = page.locator("button", has_text="Drop").first.bounding_box()
    devtools = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        held = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        where = {"x": place["x"] + 40, "y": place["y"] + 90}
        devtools.send("Input.dispatchDragEvent", {"type": step, **where, "data": held})
    page.wait_for_selector(RESULT)
    assert page.inner_text("#words h2") == "scan"
    assert "a sequence was not given" not in page.inner_text("#words").lower()


def test_name_that_is_markup_is_refused_as_words(page: Any, tmp_path: Path) -> None:
    scan = tmp_path / "<img src=x onerror=alert(1)>&amp;${alert(2)}.nii"
    scan.write_bytes(b"no scan")
    page.locator("input[type=file]").first.set_input_files(scan)
    page.wait_for_selector(RESULT)
    assert "is not a NIfTI file" in page.inner_text("#words .refusal")
    assert page.locator("#words img").count() == 0
    assert page.locator("#download").is_hidden()
