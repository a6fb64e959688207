"""The report in a real browser: what a person does with it works, and nothing leaves the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page
from PIL import Image

from brainseg.axial import in_eight_bits
from brainseg.measures import Lesion
from brainseg.results import CaseDetail, CohortRow
from brainseg.writers.nifti import write_mask
from brainseg.writers.report import write_report
from brainseg.writers.slices import write_sheet

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

LPS = np.diag([-1.0, -1.0, 4.0, 1.0])
LESION = Lesion(400, 0.4, (30.0, 30.0, 1.0), (-30.0, -30.0, 4.0), 10.0, 10.0, 1, 1, 0.9)
COUNT_OF_CONTOUR = """(() => {
  const canvas = document.querySelector("article:nth-of-type(%d) canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let found = 0;
  for (let k = 0; k < pixels.length; k += 4) found += pixels[k] > 200 && pixels[k + 2] < 60;
  return found;
})()"""
GREY = """(() => {
  const canvas = document.querySelector("article:nth-of-type(%d) canvas");
  const [x, y] = [canvas.width / 4, canvas.height / 4].map(Math.round);
  return canvas.getContext("2d").getImageData(x, y, 1, 1).data[0];
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Three scans of five slices; slice k of each has the grey 40 k, and a square is marked on slice 2."""
    folder = tmp_path_factory.mktemp("browser")
    grey = np.stack([np.full((64, 64), 40 * k / 255, np.float32) for k in range(1, 6)])
    mask = np.zeros((64, 64, 5), np.uint8)
    mask[30:50, 30:50, 1] = 1
    write_sheet(folder / "slices.webp", list(in_eight_bits(grey)))
    write_mask(folder / "mask.nii.gz", mask, LPS)
    Image.new("RGB", (90, 60)).save(folder / "overlay.png")
    detail = CaseDetail(folder / "overlay.png", (LESION,), slices=folder / "slices.webp", mask=folder / "mask.nii.gz")
    rows = [CohortRow(name, "done", volume, 400, 1, 0.9) for name, volume in (("a", 5.0), ("b", 30.0), ("c", 10.0))]
    write_report(folder / "report.html", rows, [], {}, {row.case: detail for row in rows})
    opened = Page(folder / "report.html", folder / "profile")
    yield opened
    opened.close()


def slice_shown(page: Page, scan: int) -> str:
    return str(page.value(f'document.querySelectorAll("article output")[{scan}].value'))


def test_keys_go_through_scans_and_slices_and_turn_the_contour_on_and_off(page: Page) -> None:
    page.value("scrollTo(0, 0)")
    page.press("ArrowRight")  # no scan is in sight yet
    page.press("j")
    page.press("j")
    page.settle()
    assert abs(page.value('document.querySelectorAll("article")[1].getBoundingClientRect().top')) < 2
    assert [slice_shown(page, scan) for scan in range(3)] == ["Slice 2 of 5"] * 3
    assert page.value(GREY % 2) == pytest.approx(80, abs=6)
    assert page.value(COUNT_OF_CONTOUR % 2) > 100
    page.press("c")
    assert page.value(COUNT_OF_CONTOUR % 2) == 0
    page.press("c")
    assert page.value(COUNT_OF_CONTOUR % 2) > 100
    for _ in range(9):
        page.press("ArrowRight")
    assert [slice_shown(page, scan) for scan in range(3)] == ["Slice 2 of 5", "Slice 5 of 5", "Slice 2 of 5"]
    assert page.value(GREY % 2) == pytest.approx(200, abs=6)
    assert page.value(COUNT_OF_CONTOUR % 2) == 0
    page.press("ArrowLeft")
    assert slice_shown(page, 1) == "Slice 4 of 5"
    page.press("k")
    page.press("ArrowLeft")
    assert slice_shown(page, 0) == "Slice 1 of 5"
    page.press("t")
    assert abs(page.value('document.getElementById("all").getBoundingClientRect().top')) < 2


def test_the_contour_lies_on_the_square_that_is_marked(page: Page) -> None:
    page.value('document.querySelectorAll("article")[2].scrollIntoView()')
    page.settle()
    box = page.value("""(() => {
      const canvas = document.querySelector("article:nth-of-type(3) canvas");
      const {width, height} = canvas, pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
      const x = [], y = [];
      for (let k = 0; k < pixels.length; k += 4) if (pixels[k] > 200 && pixels[k + 2] < 60) {
        x.push((k / 4) % width / width); y.push(Math.floor(k / 4 / width) / height);
      }
      return [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
    })()""")
    assert box == pytest.approx([30 / 64, 50 / 64, 30 / 64, 50 / 64], abs=0.008)


def test_the_slices_of_a_lesion_are_a_button_that_shows_it(page: Page) -> None:
    page.value('document.querySelector("#scan-1 input[type=range]").value = 4')
    page.value('document.querySelector("#scan-1 [data-slice] button").click()')
    assert page.value('document.querySelector("#scan-1 output").value') == "Slice 2 of 5"


def test_sorting_the_table_takes_the_scans_along(page: Page) -> None:
    names = 'Array.from(document.querySelectorAll("%s"), (one) => one.textContent)'
    page.value('document.querySelectorAll("thead button")[2].click()')
    assert page.value(names % ".sortable tbody th") == ["b", "c", "a"]
    assert page.value(names % "article h2") == ["b", "c", "a"]
    page.value('document.querySelectorAll("thead button")[0].click()')
    assert page.value(names % "article h2") == ["a", "b", "c"]


def test_no_request_leaves_the_page_and_nothing_is_blocked_or_wrong(page: Page) -> None:
    own = page.requests[0]
    assert own.startswith("file://")
    assert {url.split(",")[0] for url in page.requests if url != own} == {
        "data:image/png;base64", "data:image/webp;base64",
    }  # fmt: skip
    assert page.problems == []


def test_print_shows_the_overlays_and_not_the_controls(page: Page, tmp_path: Path) -> None:
    page("Emulation.setEmulatedMedia", media="print")
    hidden = 'getComputedStyle(document.querySelector("%s")).display'
    assert page.value(hidden % ".viewer") == page.value(hidden % ".keys") == "none"
    assert page.value(hidden % "article img") == "block"
    page("Emulation.setEmulatedMedia", media="")
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
