"""A cohort on the workers of a dask scheduler: the same results as on one machine, whatever becomes of a worker."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import brainseg

from brainseg.cluster import work_on
from brainseg.errors import MachineError
from brainseg.job import Job, Options, bundles_of
from brainseg.phantom import make_phantom, write_phantom_nifti
from brainseg.study import Patient

distributed = pytest.importorskip("distributed")

PATIENTS = 5
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    for number in range(PATIENTS):
        phantom = make_phantom(shape=(64, 64, 12), spacing_mm=(3.6, 3.6, 12.0), growth=1 + number / 5)
        write_phantom_nifti(phantom, folder, f"p{number}")
    broken = folder / "p3" / "flair.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    return folder


@pytest.fixture
def cluster() -> Iterator[object]:
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 60}
    with distributed.LocalCluster(**settings) as running:
        yield running


def test_a_worker_killed_in_the_middle_changes_no_result(
    patients: Path, cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have: the last bits of a sum depend on how many add it up
    try:
        assert brainseg("segment", patients, "--out", tmp_path / "here", "--save-probability", "-q") == 4
    finally:
        torch.set_num_threads(threads)

    def kill_one() -> None:
        while not list((tmp_path / "there").glob("p*/mask.nii.gz")):
            time.sleep(0.02)
        worker = next(iter(cluster.workers.values()))  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
        killed.append(worker.pid)

    killed: list[int] = []
    killer = threading.Thread(target=kill_one)
    killer.start()
    address = cluster.scheduler_address  # type: ignore[attr-defined]
    code = brainseg("segment", patients, "--out", tmp_path / "there", "--save-probability", "-q", "--cluster", address)
    killer.join()
    assert code == 4
    assert len(killed) == 1
    assert "p3" in capsys.readouterr().err
    for case in ("p0", "p1", "p2", "p4"):
        for name in ("mask.nii.gz", "probability.nii.gz", "lesions.csv", "overlay.png"):
            assert (tmp_path / "there" / case / name).read_bytes() == (tmp_path / "here" / case / name).read_bytes()
    assert rows(tmp_path / "there") == rows(tmp_path / "here")


def test_an_address_where_no_scheduler_answers_is_exit_2(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("brainseg.cluster.CONNECT_SECONDS", 1)
    assert brainseg("segment", patients, "--out", tmp_path / "out", "--cluster", "tcp://127.0.0.1:9", "-q") == 2
    assert "no scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


def test_a_zip_cannot_be_given_to_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.zip").write_bytes(b"PK")
    assert brainseg("segment", tmp_path / "one.zip", "--out", tmp_path / "out", "--cluster", "tcp://127.0.0.1:9") == 2
    assert "unpack it and give the folder" in capsys.readouterr().err


def test_a_worker_that_would_run_another_engine_is_refused(tmp_path: Path) -> None:
    options = Options(device="cpu", backend="torch")
    expected = [(bundle.weights_sha256, "openvino-bf16") for bundle in bundles_of(options)]
    message = r"--cluster: a worker would run torch-fp32, not openvino-bf16; pass --backend torch --device cpu"
    with pytest.raises(MachineError, match=message):
        work_on(Job(Patient("p", tmp_path, None), tmp_path, "p", tmp_path), expected, tmp_path / "out", options)


def rows(out: Path) -> list[dict[str, str]]:
    """cohort.csv but for the time that each case took."""
    with (out / "cohort.csv").open(newline="") as stream:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(stream)]
