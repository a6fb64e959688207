"""What can go wrong with the files that are written: no room, no permission, no time to finish, somebody else's."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from faults.fault import Met, Situation

from brainseg.study.walk import LOCK
from brainseg.writers.tables import read_cohort

GROUP = "files"
TABLES = ("cohort.csv", "report.html", "run.json", "failures.json")


def segment(met: Met, *more: object) -> tuple[int, str]:
    """Exit code and the one line on stderr (empty where there is none) of the sound patient's segmentation."""
    code, lines = met.command("segment", met.sound, *more, "--out", met.out, "-q")
    assert len(lines) == bool(code), lines
    return code, "".join(lines)


def refused(met: Met, says: str) -> None:
    """The machine's fault, in one line, and no patient was worked on."""
    code, line = segment(met)
    assert code == 5, line
    assert says in line, line
    assert not list(met.folder.rglob("mask.nii.gz"))
    assert not list(met.folder.rglob("cohort.csv"))


def done(met: Met, *more: object) -> None:
    assert segment(met, *more) == (0, "")
    assert {path.name for path in met.out.iterdir()} >= {*TABLES, "sound"}


@contextmanager
def permissions_count(met: Met) -> Iterator[None]:
    """Folders without the permission to write are not written to, by root neither."""
    real = os.open

    def checked(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT and not Path(path).parent.stat().st_mode & 0o200:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *args, **kwargs)

    with met.monkeypatch.context() as patch:
        patch.setattr(os, "open", checked)
        yield


def not_writable(met: Met) -> None:
    met.out.mkdir()
    met.out.chmod(0o555)
    with permissions_count(met):
        refused(met, "permission denied; choose an output folder that you may write to")
    met.out.chmod(0o755)


def patient_not_writable(met: Met) -> None:
    (met.out / "sound").mkdir(parents=True)
    (met.out / "sound").chmod(0o555)
    with permissions_count(met):
        refused(met, f"{met.out / 'sound'}: permission denied")
    (met.out / "sound").chmod(0o755)


def is_a_file(met: Met) -> None:
    met.out.write_text("mine")
    refused(met, f"{met.out}: cannot be written")
    assert met.out.read_text() == "mine"


def below_a_file(met: Met) -> None:
    (met.folder / "file").write_text("mine")
    met.out = met.folder / "file" / "out"
    refused(met, "cannot be written (Not a directory)")


def patient_is_a_file(met: Met) -> None:
    met.out.mkdir()
    (met.out / "sound").write_text("mine")
    refused(met, "is not a folder")
    assert (met.out / "sound").read_text() == "mine"


def a_link(place: str, aim: str) -> Callable[[Met], None]:
    """Plays a segmentation where `place` of the results is a link to a file or folder `aim` of somebody else."""

    def play(met: Met) -> None:
        (met.folder / "folder").mkdir()
        (met.folder / "file").write_text("mine")
        (met.out / place).parent.mkdir(parents=True)
        (met.out / place).symlink_to(met.folder / aim)
        code, line = segment(met)
        assert code == 5, line
        assert f"{met.out / place}: is a symbolic link" in line or place == LOCK, line
        assert (met.folder / "file").read_text() == "mine"
        assert not list((met.folder / "folder").iterdir())

    return play


def disk_full(number: int, says: str) -> Callable[[Met], None]:
    """Plays a segmentation on a disk that takes what it is given, and says only at the end that it has no room."""

    def play(met: Met) -> None:
        def full(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        with met.monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            refused(met, f"lesions.csv: {says}")
        assert met.partial == 0
        if number == errno.ENOSPC:
            done(met)

    return play


def no_folder(met: Met) -> None:
    real = Path.mkdir

    def full(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name == "sound":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        real(self, *args, **kwargs)

    with met.monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        refused(met, "sound: the disk is full; free some space and run again")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The kernel stops every write beyond `size` bytes, in the middle of a file."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def no_room(met: Met) -> None:
    with no_file_larger_than(1000):
        code, line = segment(met, "--save-probability")
    assert code == 5, line
    assert "does not take a file this large; choose another output folder" in line
    assert met.partial == 0
    assert not list(met.out.rglob("case.json"))


def killed(met: Met) -> None:
    done(met)
    clean = (met.out / "sound" / "mask.nii.gz").read_bytes()
    (met.out / "sound" / "mask.nii.gz").unlink()
    writing = (
        "import os, pathlib, sys\n"
        "from brainseg.writers.atomic import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    for place in ("sound/mask.nii.gz", "cohort.csv"):
        assert subprocess.run([sys.executable, "-c", writing, str(met.out / place)]).returncode == -9
    assert met.partial == 2
    assert not (met.out / "sound" / "mask.nii.gz").exists()
    done(met)
    assert met.partial == 0
    assert (met.out / "sound" / "mask.nii.gz").read_bytes() == clean


def same_name(met: Met) -> None:
    (flair,) = met.sound.rglob("flair.nii.gz")
    for folder in ("a", "b"):
        (met.folder / folder).mkdir()
        shutil.copy(flair, met.folder / folder / "scan.nii.gz")
    code, lines = met.command(
        "segment", met.folder / "a/scan.nii.gz", met.folder / "b/scan.nii.gz", "--out", met.out, "-q"
    )
    assert (code, lines) == (0, [])
    assert [row.case for row in read_cohort(met.out / "cohort.csv")] == ["a_scan", "b_scan"]
    assert len(list(met.out.glob("*_scan/mask.nii.gz"))) == 2


def two_processes(met: Met) -> None:
    holding = (
        "import pathlib, sys\n"
        "from brainseg.cohort import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(met.out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        refused(met, "another process is writing here; wait for it, or choose another --out")
        for command in (
            ("evaluate", "--data", met.sound, "--bundle", "residual_unet"),
            ("follow", met.sound, met.sound, "--days", "0,9"),
            ("compare", "residual_unet", "basic_unet", "--data", met.sound),
            ("saliency", met.sound / "sound"),
        ):
            code, lines = met.command(*command, "--out", met.out, "-q")
            assert (code, len(lines)) == (5, 1), (command, lines)
        other.communicate("")


def twenty(met: Met) -> None:
    """Fifteen of twenty patients come out as they do alone."""
    sound = nib.load(next(met.sound.rglob("flair.nii.gz")))
    for number in range(15):
        image = np.roll(sound.get_fdata()[..., 2:5], number - 7, axis=0).astype(np.int16)
        (met.folder / "input" / f"p{number:02}").mkdir(parents=True)
        nib.Nifti1Image(image, sound.affine).to_filename(met.folder / "input" / f"p{number:02}" / "flair.nii.gz")
    clean, both = met.folder / "clean", met.folder / "both"
    options = ("--save-probability", "-q")
    assert met.command("segment", met.folder / "input", "--out", clean, *options) == (0, [])
    content = (met.folder / "input" / "p00" / "flair.nii.gz").read_bytes()
    bad: dict[str, Callable[[Path], object]] = {
        "a_cut": lambda path: path.write_bytes(content[: len(content) // 2]),
        "c_empty": lambda path: path.write_bytes(b""),
        "p03_text": lambda path: path.write_text("not a scan"),
        "p07_zero": lambda path: nib.Nifti1Image(image * 0, sound.affine).to_filename(path),
        "z_flat": lambda path: nib.Nifti1Image(image[..., 0], sound.affine).to_filename(path),
    }
    for name, spoil in bad.items():
        (met.folder / "input" / name).mkdir()
        spoil(met.folder / "input" / name / "flair.nii.gz")
    code, lines = met.command("segment", met.folder / "input", "--out", both, *options)
    assert (code, len(lines)) == (4, 5), lines
    assert [row["case"] for row in json.loads((both / "failures.json").read_text())] == sorted(bad)
    names = [f"p{number:02}" for number in range(15)]
    rows = {row.case: row for row in read_cohort(both / "cohort.csv") if row.status == "done"}
    assert sorted(rows) == names
    for name in names:
        files = sorted(path.name for path in (clean / name).iterdir())
        assert sorted(path.name for path in (both / name).iterdir()) == files
        assert {"mask.nii.gz", "probability.nii.gz", "lesions.csv", "overlay.png"} <= set(files)
        for file in files:
            assert _but_time(both / name / file) == _but_time(clean / name / file), f"{name}/{file}"
    assert not any((both / name).exists() for name in bad)


def _but_time(path: Path) -> object:
    if path.name != "case.json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    del record["row"]["seconds"]
    return record


FAULTS = [
    Situation(GROUP, "output not writable", not_writable),
    Situation(GROUP, "a patient's own results not writable", patient_not_writable),
    Situation(GROUP, "output is a file", is_a_file),
    Situation(GROUP, "output below a file", below_a_file),
    Situation(GROUP, "a patient's own results are a file", patient_is_a_file),
    Situation(GROUP, "disk full", disk_full(errno.ENOSPC, "the disk is full; free some space and run again")),
    Situation(GROUP, "quota used up", disk_full(errno.EDQUOT, "the disk quota is used up; free some space")),
    Situation(GROUP, "disk full when a folder is made", no_folder),
    Situation(GROUP, "no room in the middle of a file", no_room),
    Situation(GROUP, "kill -9 while writing, rerun", killed),
    Situation(GROUP, "a patient's folder of results is a symlink", a_link("sound", "folder")),
    Situation(GROUP, "a mask's path is a symlink", a_link("sound/mask.nii.gz", "file")),
    Situation(GROUP, "the report's path is a symlink", a_link("report.html", "file")),
    Situation(GROUP, "the lock's path is a symlink", a_link(LOCK, "file")),
    Situation(GROUP, "two patients with one file name", same_name),
    Situation(GROUP, "two processes on one output", two_processes),
    Situation(GROUP, "of 20 patients 5 bad", twenty),
]
