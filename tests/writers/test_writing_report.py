import html
import re

import numpy as np
import pytest
from page import assert_asks_nothing_of_any_network
from PIL import Image

from brainseg.axial import in_eight_bits
from brainseg.errors import InputError
from brainseg.measures import Lesion
from brainseg.results import CaseDetail, CohortRow, Failure
from brainseg.writers.nifti import write_mask
from brainseg.writers.report import picture_uri, write_report
from brainseg.writers.slices import write_sheet

LESION = Lesion(8, 0.016, (3.5, 3.0, 1.5), (-3.5, -3.0, 3.0), 4.0, 4.0, 1, 2, 0.5)
RUN = {"brainseg": "0.1.0", "settings": {"threshold": 0.5}, "inputs": {str(k): "hash" for k in range(90)}, "x": None}


def noise(path, size=(1200, 600)):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(path)
    return path


def page_of(tmp_path, rows, failures=(), cases=None, **more):
    write_report(tmp_path / "report.html", rows, failures, RUN, cases or {}, **more)
    return (tmp_path / "report.html").read_text()


def test_one_case_shows_volume_truth_lesions_confidence_and_flags(tmp_path):
    row = CohortRow("phantom", "done", 12.34, 12340, 1, 0.876, ("not-flair", "thick slices"), 3.0, "demo")
    detail = CaseDetail(noise(tmp_path / "overlay.png", (90, 60)), (LESION,), 11.9)
    page = page_of(tmp_path, [row], cases={"phantom": detail}, flag_words={"not-flair": "this may not be a FLAIR"})
    for words in (
        "12.3 mL",
        "11.9 mL",
        "0.88",
        "This may not be a FLAIR",
        "thick slices",
        "0.016",
        "2&ndash;3",
        "90 entries",
    ):
        assert words in page
    assert page.count("Research use only, not a diagnosis") >= 2
    assert page.count("data:image/png;base64,") == 1


def test_page_asks_nothing_of_any_network_and_allows_only_its_own_script(tmp_path):
    page = page_of(tmp_path, [CohortRow("a", "done", None, 5, 1, 0.5)], cases={"a": CaseDetail(lesions=(LESION,))})
    assert_asks_nothing_of_any_network(page)


def test_what_comes_from_the_user_is_escaped(tmp_path):
    bad = '"><script>alert(1)</script>{{ 7*7 }}'
    row = CohortRow(bad, "failed", flags=(bad,), input=bad, error=bad)
    done = CohortRow(f"{bad}2", "done", flags=(bad,))
    page = page_of(tmp_path, [row, done], [Failure(bad, bad, bad, bad)], flag_words={"x": bad})
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "{{ 7*7 }}" in page


def test_unknown_spacing_is_said_and_shows_no_millilitres(tmp_path):
    lesion = Lesion(8, None, (3.5, 3.0, 1.5), None, None, 4.0, 1, 2, None)
    page = page_of(tmp_path, [CohortRow("a", "done", None, 4321, 1, 0.5)], cases={"a": CaseDetail(lesions=(lesion,))})
    assert "4,321 voxels" in page
    assert "voxel size unknown" in page
    assert "Volume, mL" not in page
    assert "None" not in page


def test_failures_are_listed_with_what_to_do(tmp_path):
    failure = Failure("b", "in/b", "is truncated", "copy it again")
    page = page_of(tmp_path, [CohortRow("b", "failed", error="is truncated; copy it again")], [failure])
    for words in ("Not done", "is truncated", "copy it again", "in/b"):
        assert words in page


def test_a_long_lesion_table_is_cut_and_says_so(tmp_path):
    page = page_of(tmp_path, [CohortRow("a", "done", 1.0, 9, 30, 0.5)], cases={"a": CaseDetail(lesions=(LESION,) * 30)})
    assert page.count("2&ndash;3</td>") == 12
    assert "and 18 smaller" in page


def test_no_case_at_all_still_gives_a_page(tmp_path):
    assert "0 scans" in page_of(tmp_path, [])


def test_500_patients_fit_in_one_page(tmp_path):
    overlay = noise(tmp_path / "overlay.png", (60, 40))
    rows = [CohortRow(f"p{k}", "done", float(k), k * 1000, 1, 0.9) for k in range(500)]
    page = page_of(tmp_path, rows, cases={row.case: CaseDetail(overlay, (LESION,)) for row in rows})
    assert page.count("<article") == page.count("data:image/") == 500
    assert 'href="#scan-500"' in page
    assert 'id="scan-500"' in page
    assert "249.5 mL" in page  # the median


@pytest.mark.parametrize("limit", [250_000, 100_000])
def test_large_picture_is_shrunk_below_its_limit(tmp_path, limit):
    path = noise(tmp_path / "overlay.png")
    assert path.stat().st_size > 2_000_000
    assert len(picture_uri(path, limit)) < limit + 100  # pure noise is the worst there is


def test_picture_that_is_none_is_an_input_error(tmp_path):
    (tmp_path / "overlay.png").write_text("no picture")
    with pytest.raises(InputError, match=r"overlay\.png"):
        page_of(tmp_path, [CohortRow("a", "done")], cases={"a": CaseDetail(tmp_path / "overlay.png")})
    assert [path.name for path in tmp_path.iterdir()] == ["overlay.png"]


def scan_of(folder, *, size=64):
    """A case with slices to scroll through."""
    overlay = noise(folder / "overlay.png", (90, 60))
    mask = np.zeros((size, size, 4), np.uint8)
    mask[20:30, 20:30, 1] = 1
    write_sheet(folder / "slices.webp", list(in_eight_bits(np.full((4, size, size), 0.5, np.float32))))
    write_mask(folder / "mask.nii.gz", mask, np.diag([-1.0, -1.0, 4.0, 1.0]))
    return CaseDetail(overlay, (LESION,), slices=folder / "slices.webp", mask=folder / "mask.nii.gz")


def test_slices_to_scroll_through_and_their_contours_are_in_the_page(tmp_path):
    page = page_of(tmp_path, [CohortRow("a", "done", 0.4, 100, 1, 0.9)], cases={"a": scan_of(tmp_path)})
    assert_asks_nothing_of_any_network(page)
    (viewer,) = re.findall(r'<figure class="viewer"[^>]*>', page)
    assert 'data-picture="data:image/webp;base64,' in viewer
    assert 'data-numbers="1 2 3 4" data-count="4" data-paths="|M' in viewer
    assert 'value="1" aria-label="Slice"' in page
    assert 'data-slice="2"' in page


def test_slices_that_cannot_be_read_cost_the_page_nothing_else(tmp_path):
    detail = scan_of(tmp_path)
    detail.slices.write_bytes(b"none")
    page = page_of(tmp_path, [CohortRow("a", "done", 0.4, 100, 1, 0.9)], cases={"a": detail})
    assert '<figure class="viewer"' not in page
    assert "0.40 mL" in page


def test_failures_and_flagged_scans_come_first(tmp_path):
    rows = [
        CohortRow("plain", "done", 1.0, 1, 1, 0.9, ("every",)),
        CohortRow("two", "done", 2.0, 1, 1, 0.9, ("every", "empty")),
        CohortRow("same", "done", 3.0, 1, 1, 0.9, ("every",)),
        CohortRow("broken", "failed"),
    ]
    page = page_of(tmp_path, rows)
    assert re.findall(r'<a href="#scan-\d">(\w+)</a>', page) == ["broken", "two", "plain", "same"]
    assert re.findall(r"<h2>(\w+)</h2>", page)[1:] == ["broken", "two", "plain", "same"]
    assert re.findall(r'<td class="words"[^>]*>([^<]*)<', page) == ["", "empty", "", ""]
    assert "Every scan: every." in page


def test_volumes_are_shown_as_a_histogram_with_a_link_to_each_scan(tmp_path):
    page = page_of(tmp_path, [CohortRow(f"p{k}", "done", 10.0 * k, 9, 1, 0.9) for k in range(5)])
    chart = page[page.index('<figure class="spread">') : page.index("</figure>")]
    assert re.findall(r"<title>(.*?)</title>", chart) == [f"p{k}, {10.0 * k:.1f} mL" for k in range(5)]
    assert chart.count('<a href="#scan-') == 5
    assert "median 20.0 mL, middle half 10.0 to 30.0 mL" in html.unescape(chart)


def test_without_any_spacing_the_histogram_is_of_voxels(tmp_path):
    page = page_of(tmp_path, [CohortRow(f"p{k}", "done", None, 1000 * k, 1, 0.9) for k in range(3)])
    assert "by volume in voxels: median 1,000 voxels" in page


def test_scans_share_what_the_page_may_weigh(tmp_path, monkeypatch):
    monkeypatch.setattr("brainseg.writers.report.MOST_PAGE_BYTES", 400_000)
    noise(tmp_path / "overlay.png")
    speckled = np.random.default_rng(0).random((20, 150, 150), np.float32)
    write_sheet(tmp_path / "slices.webp", list(in_eight_bits(speckled)))
    write_mask(tmp_path / "mask.nii.gz", np.ones((150, 150, 20)), np.diag([-1.0, -1.0, 4.0, 1.0]))
    files = (tmp_path / name for name in ("overlay.png", "slices.webp", "mask.nii.gz"))
    overlay, slices, mask = files
    rows = [CohortRow(f"p{k}", "done", float(k), k * 1000, 1, 0.9) for k in range(4)]
    page = page_of(tmp_path, rows, cases={row.case: CaseDetail(overlay, slices=slices, mask=mask) for row in rows})
    assert slices.stat().st_size > 200_000
    assert len(page) < 450_000
    assert page.count("of 20 slices, so that the page stays small.") == 4
