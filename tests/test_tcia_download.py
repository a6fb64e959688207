"""The download, by the real s5cmd from a bucket on this machine: resumed, checked, and clear when it fails."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket import Bucket, served
from command import brainseg
from dicom_files import series, voxels, write
from pydicom.uid import generate_uid

from brainseg.errors import InputError, MachineError, UsageError
from brainseg.study import find_patients
from brainseg.tcia import download as downloads
from brainseg.tcia import index
from brainseg.tcia.download import Fetched, complete, download
from brainseg.tcia.index import Listed
from brainseg.tcia.plan import Planned

SLICES = 4


@pytest.fixture(autouse=True)
def _with_s5cmd(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        downloads.s5cmd()
    except UsageError:
        pytest.skip("needs s5cmd")
    monkeypatch.setattr(downloads, "RETRIES", 1)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    """Two patients, a FLAIR each, of four instances."""
    objects = {}
    for number in (1, 2):
        tags = {"PatientID": f"GBM-{number}", "StudyInstanceUID": f"1.2.{number}"}
        tags["SeriesInstanceUID"] = f"1.2.{number}.7"
        for path in write(tmp_path / "source" / str(number), series(voxels(SLICES), **tags)):
            objects[f"000{number}-7/{generate_uid()[-12:]}.dcm"] = path.read_bytes()
    with served(Bucket(objects)) as running:
        yield running


def planned(bucket: Bucket, number: int, **says: Any) -> Planned:
    own = [content for key, content in bucket.objects.items() if key.startswith(f"000{number}-7/")]
    values: dict[str, Any] = {
        "patient": f"GBM-{number}",
        "study": f"1.2.{number}",
        "study_date": "2002-02-06",
        "series": f"1.2.{number}.7",
        "modality": "MR",
        "description": "AX FLAIR",
        "number": 7,
        "instances": len(own),
        "size_bytes": sum(map(len, own)),
        "url": f"s3://open/000{number}-7/*",
        "licence": "CC BY 4.0",
        "doi": "10.1/images",
    }
    return Planned(Listed(**{**values, **says}), "FLAIR")


def fetch(bucket: Bucket, out: Path, *wanted: Planned, **how: Any) -> tuple[Fetched, list[str]]:
    said: list[str] = []
    return download(wanted, out, said.append, endpoint=bucket.endpoint, **how), said


def visible(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.dcm") if ".part-" not in str(path))


def first_key(bucket: Bucket, number: int = 1) -> str:
    return next(key for key in bucket.objects if key.startswith(f"000{number}-7/"))


def test_fetched_patients_are_found_with_their_flair_and_nothing_is_fetched_twice(
    bucket: Bucket, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = [planned(bucket, 1), planned(bucket, 2)]
    fetched, said = fetch(bucket, out, *both)
    assert (fetched.complete, fetched.failures) == (2, ())
    assert [line.split(":")[0] for line in said] == ["GBM-1", "GBM-2"]
    patients = find_patients(out)
    assert [(one.name, len(one.flair.files), one.certain) for one in patients] == [
        ("GBM-1", SLICES, True),
        ("GBM-2", SLICES, True),
    ]
    assert fetch(bucket, out, *both)[1] == [f"{line}, there already" for line in said]
    assert set(bucket.asked.values()) == {1}


def test_connection_cut_once_is_retried(bucket: Bucket, tmp_path: Path) -> None:
    bucket.cut[first_key(bucket)] = 1
    assert fetch(bucket, tmp_path, planned(bucket, 1))[0].complete == 1
    assert bucket.asked[first_key(bucket)] == 2


def test_connection_that_breaks_leaves_nothing_visible_and_the_next_run_fetches_what_lacks(
    bucket: Bucket, tmp_path: Path
) -> None:
    key, one = first_key(bucket), planned(bucket, 1)
    bucket.cut[key] = 1000
    fetched, _ = fetch(bucket, tmp_path / "out", one)
    assert fetched.complete == 0
    assert "the download stopped (unexpected EOF); run the same command again" in str(fetched.failures[0])
    assert visible(tmp_path / "out") == []
    bucket.cut.clear()
    bucket.asked.clear()
    assert fetch(bucket, tmp_path / "out", one)[0].complete == 1
    assert bucket.asked == {key: 1}
    assert len(visible(tmp_path / "out")) == SLICES


def test_series_that_lost_or_shortened_a_file_is_made_whole(bucket: Bucket, tmp_path: Path) -> None:
    one = planned(bucket, 1)
    fetch(bucket, tmp_path, one)
    files = sorted((tmp_path / one.folder).iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:100])
    bucket.asked.clear()
    assert fetch(bucket, tmp_path, one)[0].complete == 1
    assert sorted(bucket.asked.values()) == [1, 1]
    assert complete(tmp_path / one.folder, one)


def test_series_of_another_size_than_the_index_says_is_not_shown(bucket: Bucket, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fetched, _ = fetch(bucket, out, planned(bucket, 1, instances=SLICES + 1), planned(bucket, 2))
    assert fetched.complete == 1
    assert f"holds {SLICES} files of" in str(fetched.failures[0])
    assert f"the index says {SLICES + 1} of" in str(fetched.failures[0])
    assert [path.split("/")[0] for path in visible(out)] == ["GBM-2"] * SLICES


def test_answer_that_hangs_is_given_up(bucket: Bucket, tmp_path: Path) -> None:
    bucket.stall_s[first_key(bucket)] = 30
    fetched, _ = fetch(bucket, tmp_path, planned(bucket, 1), stalled_s=0.5)
    assert "nothing arrived from http://127.0.0.1" in str(fetched.failures[0])
    bucket.stall_s.clear()
    assert fetch(bucket, tmp_path, planned(bucket, 1))[0].complete == 1


def test_file_that_a_killed_run_left_half_written_is_no_part_of_the_series(bucket: Bucket, tmp_path: Path) -> None:
    one = planned(bucket, 1)
    partial = (tmp_path / one.folder).with_name(f".part-{one.folder.name}")
    partial.mkdir(parents=True)
    (partial / "abc.dcm123456").write_bytes(b"half")
    assert fetch(bucket, tmp_path, one)[0].complete == 1
    assert len(list((tmp_path / one.folder).iterdir())) == SLICES


def test_two_failures_in_a_row_end_it_and_the_rest_is_counted(bucket: Bucket, tmp_path: Path) -> None:
    gone = [planned(bucket, 1, url=f"s3://open/{n:04d}-0/*", series=f"1.2.{n}") for n in (5, 6)]
    fetched, _ = fetch(bucket, tmp_path, *gone, planned(bucket, 2))
    assert [error.cause for error in fetched.failures] == [
        "the download stopped (no object found)",
        "the download stopped (no object found)",
        "1 series were not tried after 2 failures in a row",
    ]


def test_full_disk_is_said_before_and_during_the_download(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = 'ERROR "cp s3://open/1/a.dcm out/a.dcm": write out/a.dcm: no space left on device\n'
    assert str(downloads._failure(said, tmp_path)).endswith("the disk is full; free some space and run again")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1_000_000))
    with pytest.raises(MachineError, match=r"are to be fetched and 1\.0 MB are free; free some space, or give --lim"):
        fetch(bucket, tmp_path, planned(bucket, 1))


def test_folder_in_the_way_of_the_output_is_a_machine_error(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "GBM-1").write_text("in the way")
    with pytest.raises(MachineError, match="part of the path is a file, not a folder"):
        fetch(bucket, tmp_path, planned(bucket, 1))


def test_command_fetches_and_exits_4_where_one_of_two_failed(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [planned(bucket, 1).listed, planned(bucket, 2).listed]
    monkeypatch.setattr(index, "read_index", lambda collection: ("some_gbm", listed))
    monkeypatch.setattr(index, "read_sources", lambda collection, dois: [])
    monkeypatch.setattr(downloads, "ENDPOINT", bucket.endpoint)
    bucket.cut[first_key(bucket, 2)] = 1000
    assert brainseg("data", "fetch", "some_gbm", "--out", tmp_path / "out", "--yes") == 4
    out, err = capsys.readouterr()
    assert "some_gbm: 2 patients, 2 studies, 2 series (2 FLAIR)" in out
    assert "fetch 1/2  GBM-1: FLAIR" in out
    assert err.startswith("error: ")
    bucket.cut.clear()
    assert brainseg("data", "fetch", "some_gbm", "--out", tmp_path / "out", "--yes") == 0
    assert (tmp_path / "out" / "some_gbm_terms.txt").read_text().splitlines()[0] == "some_gbm"


def test_failure_is_an_input_error_without_a_path_of_s5cmd_in_it(tmp_path: Path) -> None:
    error = downloads._failure("", tmp_path / "x")
    assert isinstance(error, InputError)
    assert "s5cmd failed without a word" in str(error)
