import errno
import os

import pytest

from brainseg.errors import MachineError
from brainseg.writers import atomic
from brainseg.writers.atomic import PARTIAL_PREFIX, remove_partials, replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_takes_its_name_only_when_whole(tmp_path):
    target = tmp_path / "new" / "mask.nii.gz"
    with replacing(target) as partial:
        assert partial.parent == target.parent
        assert partial.name.endswith(".nii.gz")
        partial.write_text("half")
        assert not target.exists()
    assert names(target.parent) == ["mask.nii.gz"]
    assert target.read_text() == "half"


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "cohort.csv"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(target) as partial:
        partial.write_text("half \udcff", encoding="utf-8")
    assert names(tmp_path) == ["cohort.csv"]
    assert target.read_text() == "old"


def test_symbolic_link_is_refused_and_what_it_points_to_is_kept(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = tmp_path / "mask.tif"
    target.symlink_to(victim)
    with pytest.raises(MachineError, match="symbolic link"), replacing(target):
        pass
    assert victim.read_text() == "mine"
    assert names(tmp_path) == ["mask.tif", "victim"]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission denied"), (errno.EDQUOT, "quota")]
)
def test_disk_and_permission_are_environment_faults(tmp_path, number, words):
    with pytest.raises(MachineError, match=words) as caught, replacing(tmp_path / "a.csv"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 5
    assert names(tmp_path) == []


def test_full_disk_noticed_only_at_the_flush_is_an_environment_fault(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(MachineError, match="disk is full"), replacing(tmp_path / "a.csv") as partial:
        partial.write_text("text")
    assert names(tmp_path) == []


def test_other_errors_of_the_system_are_passed_on(tmp_path):
    with pytest.raises(TimeoutError), replacing(tmp_path / "a.csv"):
        raise TimeoutError(errno.ETIMEDOUT, "late")


def test_a_file_where_a_folder_should_be_and_the_reverse_are_environment_faults(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="not a folder"), replacing(tmp_path / "file" / "a.csv"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(MachineError), replacing(tmp_path / "folder") as partial:
        partial.write_text("")
    assert names(tmp_path) == ["file", "folder"]


def test_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_killed_runs_left_is_removed(tmp_path):
    (tmp_path / f"{PARTIAL_PREFIX}0123.nii.gz").write_text("half")
    (tmp_path / "mask.nii.gz").write_text("whole")
    assert remove_partials(tmp_path) == 1
    assert names(tmp_path) == ["mask.nii.gz"]
