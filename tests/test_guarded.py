"""Reading in a process of its own: the same cases and errors, and what becomes of a decoder that does its worst."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from command import Bright, brainseg, open_bundles_with
from dicom_files import series, write
from figshare_files import head, write_matlab

from brainseg import guarded, readers
from brainseg.errors import BrainsegError, InputError, MachineError, StoppedError
from brainseg.guarded import GuardedReader, Limits, ReadingBugError
from brainseg.phantom import make_phantom, write_phantom_dicom, write_phantom_nifti, write_phantom_tiff
from brainseg.study import Patient, find_patients
from brainseg.writers.tables import read_cohort

PHANTOM = make_phantom(shape=(32, 32, 8), spacing_mm=(7.2, 7.2, 18.0))
SOON = 10.0
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def reader() -> Iterator[GuardedReader]:
    with GuardedReader() as reader:
        yield reader


@pytest.fixture
def hostile() -> Iterator[GuardedReader]:
    with GuardedReader(Limits(memory_bytes=4 * 2**30), child="hostile_child") as reader:
        yield reader


def scan(folder: Path, name: str) -> Patient:
    """A sound scan whose name tells the hostile process what to do."""
    write_phantom_nifti(PHANTOM, folder, name)
    (patient,) = find_patients(folder / name)
    return patient


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_soon(pid: int) -> bool:
    until = time.monotonic() + SOON
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("layout", ["nifti", "tiff", "dicom", "matlab", "flair alone"])
def test_the_case_and_the_mask_are_what_is_read_without_the_process(
    layout: str, tmp_path: Path, reader: GuardedReader
) -> None:
    if layout == "nifti":
        write_phantom_nifti(PHANTOM, tmp_path, "p")
    elif layout == "tiff":
        write_phantom_tiff(PHANTOM, tmp_path, "p")
    elif layout == "dicom":
        write_phantom_dicom(PHANTOM, tmp_path / "p")
    elif layout == "matlab":
        for number in (1, 2):
            write_matlab(tmp_path, number, *head(64), pid="7")
    else:
        write(tmp_path / "p", series())
    patient = find_patients(tmp_path, matlab_header=reader.matlab_header)[0]
    assert patient == find_patients(tmp_path)[0]
    here, there = readers.read_patient(patient), reader.read_patient(patient)
    for field in fields(here):
        one, other = getattr(here, field.name), getattr(there, field.name)
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert one.tobytes() == other.tobytes()
        else:
            assert one == other
    assert there.image.flags.c_contiguous
    masks = readers.read_ground_truth(patient), reader.read_ground_truth(patient)
    np.testing.assert_array_equal(*masks)
    assert (masks[0] is None) == (layout in ("dicom", "flair alone"))


@pytest.mark.parametrize("name", ["flair.nii.gz", "flair.mha", "flair.tif", "1.png"])
def test_a_scan_that_cannot_be_read_gives_the_same_error(name: str, tmp_path: Path, reader: GuardedReader) -> None:
    path = tmp_path / name
    path.write_bytes(b"nothing of the kind")
    (patient,) = find_patients(path)
    said = []
    for read in (readers.read_patient, reader.read_patient):
        with pytest.raises(InputError) as caught:
            read(patient)
        said.append((type(caught.value), str(caught.value), caught.value.cause))
    assert said[0] == said[1]


@posix
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("crash", "the decoder crashed (signal SEGV); copy or export it again, or convert it to NIfTI"),
        ("quit", "the decoder crashed (exit status 7); copy or export it again, or convert it to NIfTI"),
        (
            "nonsense",
            "the decoder crashed (its answer makes no sense); copy or export it again, or convert it to NIfTI",
        ),
        ("oom", "its reading was ended by the system (signal KILL), as it is where memory runs out; use a machine"),
        ("slow", "was not read within 1 s and given up; copy or export it again, or convert it to NIfTI"),
        ("hang", "was not read within 1 s and given up; copy or export it again, or convert it to NIfTI"),
        ("greedy", "needs more memory than reading one case may take on this machine (4.0 GiB); crop or downsample"),
    ],
)
def test_a_decoder_that_does_its_worst_costs_one_case_and_one_line(
    name: str, line: str, tmp_path: Path, hostile: GuardedReader
) -> None:
    usual = hostile.limits
    if name in ("slow", "hang"):
        hostile.limits = replace(usual, seconds=1.0)
    with pytest.raises(StoppedError) as caught:
        hostile.read_patient(scan(tmp_path, name))
    hostile.limits = usual
    assert str(caught.value).startswith(f"{tmp_path / name}: {line}")
    assert hostile.read_patient(scan(tmp_path, "sound")).shape == (32, 32, 8)


def test_a_bug_in_a_reader_is_told_by_its_type_and_words(tmp_path: Path, hostile: GuardedReader) -> None:
    pid = hostile.pid
    with pytest.raises(ReadingBugError, match="KeyError: 'unforeseen'"):
        hostile.read_patient(scan(tmp_path, "bug"))
    assert hostile.pid == pid


def test_what_a_decoder_prints_is_neither_shown_nor_taken_for_an_answer(
    tmp_path: Path, hostile: GuardedReader, capfd: pytest.CaptureFixture[str]
) -> None:
    assert hostile.read_patient(scan(tmp_path, "loud")).shape == (32, 32, 8)
    assert capfd.readouterr() == ("", "")


def test_one_process_answers_many_requests_that_follow_at_once(tmp_path: Path, reader: GuardedReader) -> None:
    file = write_matlab(tmp_path, 1, *head(16), pid="7")
    reader.matlab_header(file)
    pid = reader.pid
    assert {reader.matlab_header(file).shape for _ in range(300)} == {(16, 16)}
    assert reader.pid == pid


@posix
def test_a_process_that_died_between_two_cases_costs_neither(tmp_path: Path, reader: GuardedReader) -> None:
    patient = scan(tmp_path, "p")
    reader.read_patient(patient)
    before = reader.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert reader.read_patient(patient).shape == (32, 32, 8)
    assert reader.pid != before


def test_a_process_that_does_not_start_is_said_once_for_all(tmp_path: Path) -> None:
    with (
        GuardedReader(child="no_such_module") as reader,
        pytest.raises(MachineError, match=r"the process to read in does not start \(exit status 1\)"),
    ):
        reader.read_patient(scan(tmp_path, "p"))


def test_time_grows_with_the_files_and_memory_is_enough_for_a_large_study(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "b").write_bytes(bytes(500_000))
    limits = Limits(seconds=10, seconds_per_mb=2)
    assert limits.seconds_for([tmp_path / "a"]) == 12
    assert limits.seconds_for([tmp_path, tmp_path / "not there"]) == 13
    assert limits.memory_bytes >= 4 * 2**30


@posix
def test_closing_ends_the_process_in_the_middle_of_a_case(tmp_path: Path) -> None:
    reader = GuardedReader(child="hostile_child")
    patient = scan(tmp_path, "hang")
    raised: list[BaseException] = []

    def read() -> None:
        try:
            reader.read_patient(patient)
        except (BrainsegError, RuntimeError) as error:
            raised.append(error)

    with reader:
        thread = threading.Thread(target=read)
        thread.start()
        pid = pid_of(patient)
    thread.join(SOON)
    assert not thread.is_alive()
    assert len(raised) == 1
    assert not alive(pid)


def pid_of(patient: Patient) -> int:
    """Of the process that hangs in a scan, once it does."""
    file = Path(f"{patient.path}.pid")
    while not (file.is_file() and file.read_text()):
        time.sleep(0.02)
    return int(file.read_text())


READS = """
import sys
from pathlib import Path
from brainseg.guarded import GuardedReader
from brainseg.study import find_patients
with GuardedReader(child="hostile_child") as reader:
    reader.read_patient(find_patients(Path(sys.argv[1]))[0])
"""


@posix
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_when_the_parent_is_ended_while_a_decoder_hangs(end: int, tmp_path: Path) -> None:
    patient = scan(tmp_path, "hang")
    path = os.pathsep.join(map(str, (Path(__file__).parent, Path(guarded.__file__).parents[1])))
    with subprocess.Popen(
        [sys.executable, "-c", READS, patient.path],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as parent:
        pid = pid_of(patient)
        assert alive(pid)
        parent.send_signal(end)
        parent.communicate()
    assert gone_soon(pid)


@posix
def test_a_cohort_loses_the_case_whose_decoder_crashes_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    monkeypatch.setattr(guarded, "CHILD", "hostile_child")
    for name in ("a", "b_crash", "c"):
        write_phantom_nifti(PHANTOM, tmp_path / "in", name)
    assert brainseg("segment", tmp_path / "in", "--out", tmp_path / "out", "-q") == 4
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'in' / 'b_crash'}: the decoder crashed (signal SEGV); "
        "copy or export it again, or convert it to NIfTI\n"
    )
    assert [(row.case, row.status) for row in read_cohort(tmp_path / "out" / "cohort.csv")] == [
        ("a", "done"), ("c", "done"), ("b_crash", "failed"),
    ]  # fmt: skip


@posix
def test_ctrl_c_ends_a_cohort_at_once_with_130_and_no_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    monkeypatch.setattr(guarded, "CHILD", "hostile_child")
    patient = scan(tmp_path / "in", "hang")
    pids: list[int] = []

    def interrupt() -> None:
        pids.append(pid_of(patient))
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python starts with
    try:
        waiting.start()
        assert brainseg("segment", patient.path, "--out", tmp_path / "out", "-q") == 130
    finally:
        waiting.join()
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.split() == ["interrupted"]
    assert not alive(pids[0])
