"""A zip as a folder, and the zips that are refused."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import series, write

from brainseg.errors import BrainsegError, InputError, UsageError
from brainseg.readers import archive
from brainseg.readers.archive import opened
from brainseg.study import find_patients


def touch(root: Path, *names: str) -> Path:
    """Empty files: a search opens nothing but DICOM headers."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def test_zip_is_a_folder_named_after_it_and_gone_afterwards(tmp_path: Path) -> None:
    write(tmp_path / "in" / "series", series())
    with zipfile.ZipFile(tmp_path / "P 9.zip", "w", zipfile.ZIP_LZMA) as target:
        for file in sorted((tmp_path / "in").rglob("*.dcm")):
            target.write(file, file.relative_to(tmp_path / "in"))
    with opened(tmp_path / "P 9.zip") as folder:
        (patient,) = find_patients(folder, name="P 9")
        assert patient.name == "P_9"
        assert len(patient.flair.files) == 8
    assert not folder.exists()


def test_folder_and_file_are_yielded_as_they_are(tmp_path: Path) -> None:
    for path in (tmp_path, touch(tmp_path, "a.nii") / "a.nii", tmp_path / "nowhere.zip"):
        with opened(path) as same:
            assert same == path


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "C:/evil"])
def test_zip_member_that_would_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "x.zip", **{name: b"1"})
    with pytest.raises(InputError, match="which would leave its folder"), opened(path):
        pass
    assert not list(tmp_path.rglob("evil"))


def test_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as target:
        target.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="a link or no plain file"), opened(tmp_path / "x.zip"):
        pass


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", a=bytes(archive.SMALL + 1))
    with pytest.raises(InputError, match=r"would unpack to [0-9]+ times its size"), opened(path):
        pass


@pytest.mark.parametrize(("limit", "says"), [("MOST_BYTES", "would unpack to 0.0 GiB"), ("MOST_MEMBERS", "2 members")])
def test_zip_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, says: str
) -> None:
    monkeypatch.setattr(archive, limit, 1)
    path = zipped(tmp_path / "x.zip", a=b"11", b=b"22")
    with pytest.raises(InputError, match=says), opened(path):
        pass


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "size that lies"])
def test_damaged_zip_is_refused(tmp_path: Path, damage: str) -> None:
    path = zipped(tmp_path / "x.zip", a=np.random.default_rng(0).bytes(5000))
    data = bytearray(path.read_bytes())
    if damage == "text":
        data = bytearray(b"no zip")
    elif damage == "cut":
        data = data[:3000]
    elif damage == "flipped":
        data[1000] ^= 255
    else:
        at = data.rindex(b"PK\x01\x02")
        data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="is not a zip that can be unpacked"), opened(path):
        pass


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", a=b"1")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is encrypted"), opened(path):
        pass


def test_error_inside_an_opened_zip_is_left_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", a=b"1")
    with pytest.raises(BrainsegError, match="none of which can be read"), opened(path) as folder:
        find_patients(folder)
    with pytest.raises(OSError, match="mine"), opened(path):
        raise OSError("mine")


def test_zip_is_not_searched_unopened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a zip"):
        find_patients(zipped(tmp_path / "x.zip", a=b"1"))
