import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from brainseg.errors import InputError
from brainseg.measures import Lesion, find_lesions
from brainseg.presence import SlicePresence
from brainseg.results import CohortRow, Failure
from brainseg.writers.tables import (
    LESION_COLUMNS,
    read_cohort,
    read_lesions,
    write_cohort,
    write_failures,
    write_lesions,
    write_run,
    write_slices,
)

ROWS = [
    CohortRow("b", "done", 12.5, 12500, 2, 0.91, ("not known to be FLAIR", "empty-mask"), 3.25, "b/flair.nii.gz", ""),
    CohortRow("a", "failed", input="a", error="is truncated; copy it again"),
]


def test_cohort_has_the_columns_other_programs_rely_on(tmp_path):
    write_cohort(tmp_path / "cohort.csv", ROWS)
    first, done, failed = (tmp_path / "cohort.csv").read_text().splitlines()
    columns = "case,status,volume_ml,volume_voxels,lesions,confidence,flags,seconds,input,error"
    assert first == f"{columns},volume_low_ml,volume_high_ml"
    assert done == "b,done,12.5,12500,2,0.91,not known to be FLAIR;empty-mask,3.25,b/flair.nii.gz,,,"
    assert failed == "a,failed,,,,,,,a,is truncated; copy it again,,"


def test_cohort_reads_back_as_written(tmp_path):
    write_cohort(tmp_path / "cohort.csv", ROWS)
    assert read_cohort(tmp_path / "cohort.csv") == ROWS


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\tx", "\rx", "'=1", "''@x", "'quoted'", "-x", "=HYPERLINK(\"a\",'b')"]
)
def test_cell_that_a_spreadsheet_would_run_is_disarmed_and_reads_back(tmp_path, text):
    path = tmp_path / "cohort.csv"
    write_cohort(path, [CohortRow(text, "done", flags=(text,), input=text, error=text)])
    with path.open(newline="") as lines:
        cells = list(csv.reader(lines))[1]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    (row,) = read_cohort(path)
    assert (row.case, row.flags, row.input, row.error) == (text, (text,), text, text)


def test_numbers_stay_numbers(tmp_path):
    path = tmp_path / "cohort.csv"
    write_cohort(path, [CohortRow("-12", "done", -0.5, -3)])
    assert path.read_text().splitlines()[1].startswith("-12,done,-0.5,-3,")


def test_commas_quotes_line_breaks_and_other_scripts_survive(tmp_path):
    path = tmp_path / "cohort.csv"
    row = CohortRow("脑 größe", "failed", input='a,"b"', error="two\nlines")
    write_cohort(path, [row])
    assert read_cohort(path) == [row]


def test_file_name_that_is_not_unicode_can_be_written(tmp_path):
    name = b"a\xff".decode("utf-8", errors="surrogateescape")
    write_cohort(tmp_path / "cohort.csv", [CohortRow(name, "done")])
    write_run(tmp_path / "run.json", {"input": name})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == {"input": name}


@pytest.mark.parametrize("text", ["", "case,status\n", "\x00", 'case,"', "nonsense"])
def test_table_that_is_not_a_cohort_is_an_input_error(tmp_path, text):
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(InputError, match=r"cohort\.csv"):
        read_cohort(tmp_path / "cohort.csv")


def test_number_that_is_not_one_names_its_row(tmp_path):
    write_cohort(tmp_path / "cohort.csv", ROWS)
    spoiled = (tmp_path / "cohort.csv").read_text().replace("12500", "many")
    (tmp_path / "cohort.csv").write_text(spoiled)
    with pytest.raises(InputError, match="row 2"):
        read_cohort(tmp_path / "cohort.csv")


def test_lesions_count_slices_from_1_and_read_back(tmp_path):
    mask = np.zeros((10, 10, 6), np.uint8)
    mask[2:6, 3, 1:3] = 1
    lesions = find_lesions(mask, mask * 0.5, np.diag([-1.0, -1.0, 2.0, 1.0]), (1.0, 1.0, 2.0))
    path = tmp_path / "lesions.csv"
    write_lesions(path, lesions)
    with path.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["lesion"], row["voxels"], row["first_slice"], row["last_slice"]) == ("1", "8", "2", "3")
    assert (row["volume_ml"], row["diameter_mm"], row["confidence"]) == ("0.016", "4", "0.5")
    assert (row["centroid_x_mm"], row["centroid_y_mm"], row["centroid_z_mm"]) == ("-3.5", "-3", "3")
    assert read_lesions(path) == lesions


def test_lesion_of_unknown_spacing_has_blank_millimetres(tmp_path):
    lesion = Lesion(3, None, (1.0, 2.0, 3.0), None, None, 2.5, 0, 0, None)
    write_lesions(tmp_path / "lesions.csv", [lesion])
    assert (tmp_path / "lesions.csv").read_text().splitlines()[1] == "1,,3,,,,1,2,3,,2.5,1,1," + "," * 14
    assert read_lesions(tmp_path / "lesions.csv") == [lesion]


def test_lesions_have_their_box_in_voxels_and_mm(tmp_path):
    mask = np.zeros((10, 10, 6), np.uint8)
    mask[2:6, 3, 1:3] = 1
    path = tmp_path / "lesions.csv"
    write_lesions(path, find_lesions(mask, None, np.diag([-1.0, -1.0, 2.0, 1.0]), (1.0, 1.0, 2.0)))
    with path.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert [row[f"box_{end}_{axis}"] for end in ("first", "last") for axis in "ijk"] == ["2", "3", "1", "5", "3", "2"]
    low, high = ([row[f"box_{end}_{axis}_mm"] for axis in "xyz"] for end in ("low", "high"))
    assert (low, high) == (["-5.5", "-3.5", "1"], ["-1.5", "-2.5", "5"])
    assert list(row)[:14] == list(LESION_COLUMNS)


def test_lesions_written_before_there_were_boxes_are_read(tmp_path):
    cells = ["1", "", "3", "", "", "", "1", "2", "3", "", "2.5", "1", "1", "0.5"]
    (tmp_path / "lesions.csv").write_text(",".join(LESION_COLUMNS) + "\n" + ",".join(cells) + "\n")
    assert read_lesions(tmp_path / "lesions.csv") == [Lesion(3, None, (1.0, 2.0, 3.0), None, None, 2.5, 0, 0, 0.5)]


def test_table_with_half_of_the_box_columns_is_refused(tmp_path):
    (tmp_path / "lesions.csv").write_text(",".join([*LESION_COLUMNS, "box_first_i"]) + "\n")
    with pytest.raises(InputError, match="does not have the columns"):
        read_lesions(tmp_path / "lesions.csv")


def test_slices_have_a_row_each_and_blank_area_without_a_spacing(tmp_path):
    slices = [SlicePresence(1, 0, 0.0, 0.0125, False), SlicePresence(2, 12, None, 1.0, True)]
    write_slices(tmp_path / "slices.csv", slices)
    assert (tmp_path / "slices.csv").read_text().splitlines() == [
        "slice,area_voxels,area_mm2,probability,present",
        "1,0,0,0.0125,no",
        "2,12,,1,yes",
    ]


def test_no_lesions_is_a_table_of_one_line(tmp_path):
    write_lesions(tmp_path / "lesions.csv", [])
    assert len((tmp_path / "lesions.csv").read_text().splitlines()) == 1
    assert read_lesions(tmp_path / "lesions.csv") == []


def test_failures_say_what_why_and_what_to_do(tmp_path):
    write_failures(tmp_path / "failures.json", [Failure("a", "in/a", "is empty", "copy it again")])
    (failure,) = json.loads((tmp_path / "failures.json").read_text())
    assert failure == {"case": "a", "input": "in/a", "cause": "is empty", "remedy": "copy it again"}


def test_run_is_strict_json_whatever_is_in_it(tmp_path):
    run = {"path": Path("a/b"), "nan": math.nan, "numbers": np.arange(2), "one": np.float32(0.5), "set": {"b", "a"}}
    write_run(tmp_path / "run.json", run)
    read = json.loads((tmp_path / "run.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read == {"path": "a/b", "nan": None, "numbers": [0, 1], "one": 0.5, "set": ["a", "b"]}
