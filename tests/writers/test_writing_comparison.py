import base64
import csv
import io
import re

import numpy as np
from page import assert_asks_nothing_of_any_network
from PIL import Image

from brainseg.axial import AxialSlice
from brainseg.comparison import Competitor, Score, compare
from brainseg.history import History
from brainseg.writers.comparison import markdown, write_comparison

HOSTILE = '"><script>alert(1)</script>{{ 7*7 }}$\\frac$|x'


def picture(shift=0, number=2):
    mask = np.zeros((32, 32), bool)
    mask[8:18, 5 + shift : 15 + shift] = True
    flair = np.full((32, 32), 0.4, np.float32)
    truth = np.zeros((32, 32), bool)
    truth[8:18, 5:15] = True
    return AxialSlice(number, 3, flair, mask, truth, 1.0, None)


def comparison(labels=("a", "b"), cases=("p1", "p2", "p3"), *, pictures=True, histories=()):
    competitors = []
    for k, label in enumerate(labels):
        scores = {case: Score(0.5 + 0.1 * i + 0.125 * k, 2.0, 3.0, "mm", 10) for i, case in enumerate(cases)}
        shown = {case: picture(k + 1) for case in cases} if pictures else {}
        competitors.append(
            Competitor(label, f"{label} net", "E", "by volume", scores, (), shown, histories if k == 0 else ())
        )
    return compare(competitors)


def page_of(tmp_path, made):
    write_comparison(tmp_path, made)
    return (tmp_path / "compare.html").read_text()


def images(page):
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in found]


def test_csv_has_a_row_a_patient_and_a_column_a_competitor_and_difference(tmp_path):
    write_comparison(tmp_path, comparison())
    with (tmp_path / "compare.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["p1", "p2", "p3"]
    assert [rows[1][name] for name in ("Dice a", "Dice b", "Dice b - a")] == ["0.6", "0.725", "0.125"]
    assert rows[0]["HD95 (mm) b - a"] == "0"
    assert rows[0]["volume error (mL) a"] == "3"


def test_markdown_says_patients_protocol_and_differences(tmp_path):
    made = comparison()
    write_comparison(tmp_path, made)
    text = (tmp_path / "compare.md").read_text()
    assert text == markdown(made)
    assert "3 patients compared, none left out." in text
    assert "Protocol E: by volume." in text
    assert "| b | b net | 0.725 | 0.625 to 0.825 | 0.725 | 3 | E |" in text
    assert "| Dice | b - a | +0.125 | +0.125 to +0.125 | +0.125 | - | 3 / 0 / 0 | 3 |" in text


def test_corrected_p_is_shown_for_three(tmp_path):
    assert "p (Holm)" not in markdown(comparison())
    assert "| p | p (Holm) |" in markdown(comparison(("a", "b", "c")))


def test_cautions_stand_in_table_and_page(tmp_path):
    made = comparison()
    flattered = [
        *made.competitors[:1],
        Competitor("b", "b net", "E", "by volume", made.competitors[1].scores, ("it saw them",)),
    ]
    made = compare(flattered)
    assert "Caution: b: it saw them." in markdown(made)
    assert '<p class="flag">b: it saw them</p>' in page_of(tmp_path, made)


def test_page_asks_nothing_of_any_network_and_allows_only_its_own_script(tmp_path):
    page = page_of(tmp_path, comparison())
    assert_asks_nothing_of_any_network(page)


def test_hostile_names_are_escaped(tmp_path):
    history = History(HOSTILE, np.array([[1, 0.5]]), np.empty((0, 2)))
    made = comparison((f"_{HOSTILE}", HOSTILE), (HOSTILE, "p2"), histories=(history,))
    page = page_of(tmp_path, made)
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "{{ 7*7 }}" in page
    assert "49" not in re.sub(r"data:[^\"]*|<style>.*?</style>", "", page, flags=re.DOTALL)
    table = [line for line in markdown(made).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:4]}) == 1


def test_pictures_show_both_contours_of_every_competitor(tmp_path):
    page = page_of(tmp_path, comparison())
    assert [title for title in ("Best: p3", "Median: p2", "Worst: p1") if title in page] == [
        "Best: p3", "Median: p2", "Worst: p1",
    ]  # fmt: skip
    pictures = images(page)[1:]
    assert len(pictures) == 3
    for one in pictures:
        pixels = np.asarray(one).astype(int)
        amber = (pixels[..., 0] > 200) & (pixels[..., 1] > 130) & (pixels[..., 2] < 60)
        cyan = (pixels[..., 0] < 90) & (pixels[..., 1] > 170) & (pixels[..., 2] > 170)
        for half in np.split(np.arange(pixels.shape[1] // 2 * 2), 2):
            assert amber[:, half].any()
            assert cyan[:, half].any()


def test_page_says_why_there_are_no_pictures(tmp_path):
    page = page_of(tmp_path, comparison(pictures=False))
    assert "No pictures. a, b: scored without pictures; pass --data for a run, or evaluate again." in page
    assert len(images(page)) == 1


def test_different_slices_are_not_shown_as_one(tmp_path):
    made = comparison()
    made.competitors[1].pictures["p1"] = picture(number=1)
    page = page_of(tmp_path, made)
    assert "Not all can be shown. the competitors show different slices." in page
    assert len(images(page)) == 3


def test_curves_are_shown_where_a_training_left_them(tmp_path):
    assert "<h2>Training</h2>" not in page_of(tmp_path, comparison())
    history = History("run", np.array([[1, 0.5], [2, 0.25]]), np.array([[2, 0.75]]))
    page = page_of(tmp_path, comparison(histories=(history,)))
    assert "No events of a training: b." in page
    assert len(images(page)) == 5
