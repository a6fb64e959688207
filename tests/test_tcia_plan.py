"""What is fetched of a public collection: series by their words, sizes, licences; no index but a fake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import brainseg

from brainseg.errors import InputError, UsageError
from brainseg.tcia import index
from brainseg.tcia.index import Listed, Source, listed, read_index, read_sources, unknown_collection
from brainseg.tcia.plan import plan_of, summary, write_terms


def row(patient: str, study: int, series: int, description: str, **says: Any) -> dict[str, Any]:
    """A row as the index has it."""
    return {
        "collection_id": "some_gbm",
        "PatientID": patient,
        "StudyInstanceUID": f"1.2.{study}",
        "StudyDate": "2002-02-06",
        "SeriesInstanceUID": f"1.2.{study}.{series}",
        "Modality": "MR",
        "SeriesDescription": description,
        "SeriesNumber": str(series),
        "instanceCount": 60,
        "series_size_MB": 6.077738,
        "series_aws_url": f"s3://open/{study:08x}-{series:04x}/*",
        "license_short_name": "CC BY 4.0",
        "source_DOI": "10.1/images",
        **says,
    }


SEG = {"Modality": "SEG", "instanceCount": 1, "series_size_MB": 0.5, "source_DOI": "10.1/segs"}
TABLE = [
    row("GBM-10", 3, 1, "t2_Flair_axial: Processed", StudyDate="2003-01-01"),
    row("GBM-2", 1, 7, "t2_Flair_axial: Processed"),
    row("GBM-2", 1, 3, "t1 axial"),
    row("GBM-2", 1, 4, "t1 axial stealth-post"),
    row("GBM-2", 1, 5, "ep2d_DTI_30dir", instanceCount=900),
    row("GBM-2", 1, 300, "AI segmentation", **SEG),
    row("GBM-2", 2, 1, "t1 axial"),
    row("GBM-2", 2, 300, "AI segmentation", **SEG),
    row("GBM-3", 4, 1, "T2 SAG SPACE"),
    row("GBM-11", 5, 1, "FLAIR 3D sag", instanceCount=192),
    row("GBM-11", 5, 2, "AX FLAIR", instanceCount=30),
    row("GBM-12", 6, 1, "AX FLAIR", SeriesNumber=None),
    row("GBM-12", 6, 2, "AX FLAIR", SeriesNumber=None),
]
SOURCES = [Source("10.1/IMAGES", "Images", "CC BY 4.0", "https://creativecommons.org/by", "Someone (2021). Images.")]


def table() -> list[Listed]:
    return [listed(one) for one in TABLE]


def test_flair_and_its_t1_are_planned_and_studies_without_flair_are_not() -> None:
    plan = plan_of("some_gbm", table(), patients=["GBM-2"], with_seg=True)
    assert [(one.role, one.listed.series) for one in plan.series] == [
        ("FLAIR", "1.2.1.7"),
        ("T1 pre", "1.2.1.3"),
        ("T1 post", "1.2.1.4"),
        ("SEG", "1.2.1.300"),
    ]
    assert plan.size_bytes == 3 * 6_077_738 + 500_000
    assert plan.series[0].folder.as_posix() == "GBM-2/2002-02-06-121/MR_1.2.1.7"


def test_patients_come_in_natural_order_and_limit_counts_those_with_flair() -> None:
    assert plan_of("some_gbm", table()).patients == ["GBM-2", "GBM-10", "GBM-11", "GBM-12"]
    two = plan_of("some_gbm", table(), limit=2)
    assert (two.patients, two.without) == (["GBM-2", "GBM-10"], 1)


def test_axial_flair_is_planned_before_a_larger_sagittal_one_and_equal_ones_are_both() -> None:
    assert [one.listed.series for one in plan_of("c", table(), patients=["GBM-11"]).series] == ["1.2.5.2"]
    assert [one.listed.series for one in plan_of("c", table(), patients=["GBM-12"]).series] == ["1.2.6.1", "1.2.6.2"]


def test_unknown_patient_collection_and_one_without_flair_are_named_with_what_is_near() -> None:
    with pytest.raises(UsageError, match=r"has no patient GBM-22; perhaps GBM-2"):
        plan_of("some_gbm", table(), patients=["GBM-22"])
    with pytest.raises(InputError, match="none of 1 patient has a series that says FLAIR"):
        plan_of("some_gbm", table(), patients=["GBM-3"])
    error = unknown_collection("upen-gbm", "upen_gbm", ["upenn_gbm", "lung_ct"])
    assert "upen-gbm: is not a collection of the open index; perhaps upenn_gbm; what TCIA gives under a" in str(error)
    assert error.exit_code == 2


@pytest.mark.parametrize(
    "wrong",
    [{"StudyInstanceUID": "../../up"}, {"series_aws_url": "s3://open/a b/*"}, {"series_size_MB": None}],
)
def test_row_that_could_leave_the_folder_or_has_no_size_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="lists a series in a form that is not known"):
        listed(row("P", 1, 1, "FLAIR", **wrong))


def test_summary_says_patients_series_size_licence_and_citation(tmp_path: Path) -> None:
    plan = plan_of("some_gbm", table(), limit=1, with_seg=True)
    text = summary(plan, SOURCES)
    assert text.splitlines() == [
        "some_gbm: 1 patient, 1 study, 4 series (1 FLAIR, 1 T1 pre, 1 T1 post, 1 SEG), 18.7 MB",
        "  GBM-2  18.7 MB  FLAIR: t2_Flair_axial: Processed; T1 pre: t1 axial; T1 post: t1 axial stealth-post; "
        "SEG: AI segmentation",
        "licence of FLAIR/T1 pre/T1 post: CC BY 4.0 (https://creativecommons.org/by)",
        "cite: Someone (2021). Images.",
        "licence of SEG: CC BY 4.0",
        "cite: https://doi.org/10.1/segs",
    ]
    write_terms(tmp_path, plan, SOURCES)
    write_terms(tmp_path, plan_of("some_gbm", table(), limit=1), SOURCES)
    assert (tmp_path / "some_gbm_terms.txt").read_text().splitlines()[-1] == "cite: https://doi.org/10.1/segs"


def test_command_without_yes_fetches_nothing_where_nobody_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(name: str, columns: list[str], filters: Any = None) -> list[dict[str, Any]]:
        return TABLE if name == "idc_index" else []

    monkeypatch.setattr(index, "_rows", rows)
    assert brainseg("data", "fetch", "SOME-GBM", "--out", tmp_path / "out", "--dry-run") == 0
    assert capsys.readouterr().out.startswith("some_gbm: 4 patients, 4 studies, 7 series (5 FLAIR")
    assert brainseg("data", "fetch", "SOME-GBM", "--out", tmp_path / "out") == 2
    assert "give --yes to accept the licence" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_installed_index_has_upenn_gbm_under_its_licence() -> None:
    pytest.importorskip("idc_index_data", reason="needs the extra tcia")
    name, series = read_index("UPENN-GBM")
    assert name == "upenn_gbm"
    plan = plan_of(name, series, limit=2, with_seg=True)
    assert plan.patients == ["UPENN-GBM-00001", "UPENN-GBM-00002"]
    assert {one.role for one in plan.series} == {"FLAIR", "SEG"}  # each of its series is a study of its own
    (images, segs) = read_sources(name, {one.listed.doi for one in plan.series})
    assert (images.licence, images.licence_url) == ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/")
    assert images.citation.startswith("Bakas, S., Sako, C.")
    assert segs.doi == "10.5281/zenodo.8345959"
    with pytest.raises(UsageError, match="perhaps upenn_gbm"):
        read_index("upen_gbm")
