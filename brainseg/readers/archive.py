"""A zip as a folder: unpacked to a temporary place, after a look at what it declares."""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from brainseg.errors import InputError, MachineError

MOST_BYTES = 20 * 2**30
MOST_MEMBERS = 200_000
MOST_RATIO = 200
SMALL = 64 * 2**20  # below this an archive may be as well compressed as it likes: empty masks are
CHUNK = 2**20


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder or file to search for patients: `path` itself, or for a zip a temporary folder with its content.

    Raises:
        InputError: if the zip is damaged, encrypted, or not safe to unpack: a member that would land elsewhere, a link,
            more than 200,000 members, 20 GiB, or 200 times its size.
        MachineError: if there is no room for it.
    """
    path = Path(path)
    if path.suffix.lower() != ".zip" or not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="brainseg-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                members = _checked(path, archive)
                _unpack(path, archive, members, Path(folder))
        except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
            raise InputError(path, f"is not a zip that can be unpacked ({error})", "copy or zip it again") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise MachineError(path, f"cannot be unpacked ({error.strerror})", "free space in TMPDIR") from error
            raise InputError(path, f"cannot be unpacked ({error.strerror})", "zip it again, or unpack it") from error
        yield Path(folder)


def _checked(path: Path, archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The members to unpack and where, all of them safe."""
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS:
        raise InputError(path, f"holds {len(infos)} members, more than {MOST_MEMBERS}", "unpack it and give the folder")
    total = sum(info.file_size for info in infos)
    packed = max(1, min(sum(info.compress_size for info in infos), path.stat().st_size))
    if total > MOST_BYTES:
        raise InputError(path, f"would unpack to {total / 2**30:.1f} GiB", "unpack it and give the folder")
    if total > SMALL and total > MOST_RATIO * packed:
        raise InputError(path, f"would unpack to {total // packed} times its size", "unpack it if you trust it")
    members: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    seen: set[PurePosixPath] = set()
    for info in infos:
        place = _place(path, info)
        if info.flag_bits & 1:
            raise InputError(path, "is encrypted", "unpack it and give the folder")
        if place is None:
            continue
        if place in seen:
            raise InputError(path, f"holds {str(place)!r} twice", "zip it again")
        seen.add(place)
        members.append((info, place))
    return members


def _place(path: Path, info: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a member goes, relative to the folder; None for folders and what macOS adds.

    Raises:
        InputError: if it would leave the folder, or is not a plain file.
    """
    text = info.filename.replace("\\", "/")
    place = PurePosixPath(text)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if place.is_absolute() or ".." in place.parts or (place.parts and ":" in place.parts[0][1:2]):
        raise InputError(path, f"holds {info.filename!r}, which would leave its folder", "do not use this zip")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(path, f"holds {info.filename!r}, which is a link or no plain file", "zip the files themselves")
    if text.endswith("/") or kind == stat.S_IFDIR or "__MACOSX" in place.parts or not place.parts:
        return None
    return place


def _unpack(
    path: Path, archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, PurePosixPath]], folder: Path
) -> None:
    """Write the members, none beyond the size that it declares."""
    total = sum(info.file_size for info, _ in members)
    free = shutil.disk_usage(folder).free
    if total > free:
        need = f"needs {total / 2**30:.1f} GiB, there are {free / 2**30:.1f} GiB in {folder.parent}"
        raise MachineError(path, need, "free some space, or set TMPDIR to a larger disk")
    for info, place in members:
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with archive.open(info) as source, target.open("xb") as sink:
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > info.file_size:
                    raise zipfile.BadZipFile("a member is larger than it declares")
                sink.write(chunk)
