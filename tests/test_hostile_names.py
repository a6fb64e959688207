"""Folders called after formulas and scripts: no table runs them, no page shows them as anything but text."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest
from command import Bright, brainseg, open_bundles_with

from brainseg.phantom import make_phantom, write_phantom_nifti

FORMULA = '=HYPERLINK("http:x","look")'
SCRIPT = "<script>alert(1)<img src=x onerror=alert(2)>"  # a folder cannot have a slash in its name


def test_hostile_names_are_text_in_every_table_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_bundles_with(Bright(), monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name, growth in ((FORMULA, 1.0), (SCRIPT, 1.3)):
        write_phantom_nifti(
            make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), growth=growth), tmp_path, name
        )
    broken = tmp_path / "+cmd" / "@SUM(A1)"
    broken.mkdir(parents=True)
    (broken / "flair.nii.gz").write_bytes(b"no scan")
    names = [path.name for path in tmp_path.iterdir()]
    assert brainseg("segment", *names, "--out", "out", "-q") == 4
    visits = [name for name in names if name != "+cmd"]
    assert brainseg("follow", *visits, "--days", "0,90", "--out", "followed", "-q") == 0
    tables = sorted(tmp_path.glob("out/**/*.csv")) + sorted(tmp_path.glob("followed/**/*.csv"))
    assert len(tables) >= 6
    cells = []
    for table in tables:
        with table.open(newline="", encoding="utf-8") as lines:
            cells += [cell for row in csv.reader(lines) for cell in row]
    numbers = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r") and not numbers.fullmatch(cell)] == []
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
    assert any(cell.startswith("'+cmd") for cell in cells)
    for page in ("out/report.html", "followed/follow.html"):
        text = (tmp_path / page).read_text()
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "Content-Security-Policy\" content=\"default-src 'none'" in html.unescape(text)
