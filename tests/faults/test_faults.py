"""Every fault of the list has its outcome, met as a user meets it; the run ends with a table of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from command import Bright, open_bundles_with
from faults import bundle_faults, dicom_faults, files_faults, nifti_faults, runs_faults, tiff_faults
from faults.exploits import EXPLOITS
from faults.fault import GROUPS, Fault, Met, Situation
from faults.readers import Kept
from faults.table import TABLE, Tally

from brainseg.phantom import make_phantom, write_phantom_nifti

FAULTS: list[Fault | Situation] = list(
    chain(
        tiff_faults.FAULTS,
        nifti_faults.FAULTS,
        dicom_faults.FAULTS,
        bundle_faults.FAULTS,
        files_faults.FAULTS,
        runs_faults.FAULTS,
    )
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    phantom = make_phantom(shape=(32, 32, 6), spacing_mm=(7.2, 7.2, 24.0))
    folder = tmp_path_factory.mktemp("sound")
    write_phantom_nifti(phantom, folder, "sound")
    return folder


@pytest.fixture(scope="module")
def reader() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    kept.end()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.group}: {fault.what}")
def test_a_fault_has_its_outcome(
    fault: Fault | Situation,
    sound: Path,
    reader: Kept,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config,
) -> None:
    open_bundles_with(Bright(), monkeypatch)
    monkeypatch.setattr("brainseg.cohort.GuardedReader", lambda: reader)
    met = Met(tmp_path, sound, monkeypatch, capfd)
    tally = pytestconfig.stash.setdefault(TABLE, {}).setdefault(fault.group, Tally())
    tally.cases += 1
    try:
        fault.meet(met)
        tally.passed += 1
    finally:
        tally.tracebacks += met.tracebacks
        tally.partial += met.partial
    assert (met.tracebacks, met.partial) == (0, 0)


def test_every_fault_is_in_a_group_of_the_list_and_has_a_name_of_its_own() -> None:
    assert {fault.group for fault in FAULTS} <= set(GROUPS)
    assert len({(fault.group, fault.what) for fault in FAULTS}) == len(FAULTS)


def test_twelve_exploits_or_more_are_tried() -> None:
    assert len(EXPLOITS) >= 12
