"""NIfTI volumes that are wrong or unusual."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from faults.fault import Builder, Fault
from faults.head import BRIGHT, FLAIR, HEAD
from faults.results import mask_is, record_of
from numpy.typing import NDArray

GROUP = "NIfTI"
AFFINE = np.diag([-0.9375, 0.9375, 5, 1])
AFFINE[:3, 3] = 20, -30, 10
Voxels = NDArray[Any]
Header = Any


def content(
    voxels: Voxels = HEAD, change: Callable[[Header], None] | None = None, affine: Voxels = AFFINE, **fields: Any
) -> bytes:
    """A NIfTI-1 file with int16 or what `voxels` are; its header is changed after nibabel has approved of it."""
    image = nibabel.Nifti1Image(voxels.astype(np.int16) if voxels is HEAD else voxels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    made = bytes(image.to_bytes())
    header = nibabel.Nifti1Header(made[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    if change is not None:
        change(header)
    return bytes(header.binaryblock) + made[348:]


def holds(content: bytes, name: str = "p.nii") -> Builder:
    """One file with these bytes."""

    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return build


def pair(folder: Path) -> None:
    (folder / "p.hdr").write_bytes(content(magic=b"ni1")[:348])
    (folder / "p.img").write_bytes(RAW[352:])


def beside(*others: Callable[[Path], None]) -> Builder:
    """A folder with a sound `flair.nii`, and others."""

    def build(folder: Path) -> None:
        (folder / "flair.nii").write_bytes(content())
        for make in others:
            make(folder)

    return build


def becomes(made: Callable[[Path], None], name: str = "p.nii") -> Builder:
    """Something that is no file has the name of one."""

    def build(folder: Path) -> Path:
        made(folder / name)
        return folder / name

    return build


def failing_disk(folder: Path) -> Path:
    """A file that opens and cannot be read."""
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("only Linux has a file that does so")
    (folder / "p.nii").symlink_to(memory)
    return folder / "p.nii"


def at(name: str, index: int, value: float) -> Callable[[Header], None]:
    """Changes one number of a field of the header."""

    def change(header: Header) -> None:
        header[name][index] = value

    return change


def sheared(header: Header) -> None:
    header["qform_code"] = 0
    header["srow_x"][1] = 0.2


def another(kind: Any, dtype: str, endianness: str = "<") -> bytes:
    """The head in another version, type or order of bytes."""
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(dtype)
    image = kind(HEAD.astype(dtype), AFFINE, header)
    image.set_sform(AFFINE, code=1)
    return bytes(image.to_bytes())


def spoilt(value: float) -> Voxels:
    voxels = HEAD.astype(np.float32)
    voxels[0, 0, 0] = value
    return voxels


def bright(results: Path) -> None:
    mask_is(results, BRIGHT, AFFINE)


def bright_by_the_sform(results: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 0.005
    mask_is(results, BRIGHT, affine)


def bright_of_known_size(results: Path) -> None:
    """Also in mL, which is where a wrong unit would show."""
    bright(results)
    assert record_of(results).row.volume_ml == pytest.approx(16 * 12 * 4 * 0.9375**2 * 5 / 1000, abs=1e-3)


RAW, PACKED = content(), gzip.compress(content())
HALF = len(PACKED) // 2
BOMB = [3, 30000, 30000, 30000, 1, 1, 1, 1]
COLOUR = np.zeros(HEAD.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
FAULTS = [
    Fault(GROUP, "gz truncated", holds(PACKED[:HALF], "p.nii.gz"), refused="p.nii.gz: is cut short or damaged gzip ("),
    Fault(
        GROUP, "gz truncated, at its checksum", holds(PACKED[:-4], "p.nii.gz"), refused="p.nii.gz: is cut short or dam"
    ),
    Fault(
        GROUP, "gz damaged", holds(PACKED[:-6] + b"\0" + PACKED[-5:], "p.nii.gz"), refused="p.nii.gz: is cut short or"
    ),
    Fault(
        GROUP,
        "gz of a file that was truncated",
        holds(gzip.compress(RAW[:-10]), "p.nii.gz"),
        refused="10 bytes are mis",
    ),
    Fault(
        GROUP,
        "gz with garbage after it",
        holds(PACKED + b"garbage", "p.nii.gz"),
        refused="p.nii.gz: is cut short or da",
    ),
    Fault(GROUP, "gz padded with zeros (fine)", holds(PACKED + bytes(512), "p.nii.gz"), check=bright),
    Fault(
        GROUP,
        "gz in several members (fine)",
        holds(gzip.compress(RAW[:9000]) + gzip.compress(RAW[9000:]), "p.nii.gz"),
        check=bright,
    ),
    Fault(
        GROUP,
        "gz that holds two volumes",
        holds(PACKED + PACKED, "p.nii.gz"),
        refused="p.nii.gz: holds more than its header declares (48 x 64 x 4 voxels); export it again",
    ),
    Fault(
        GROUP, "raw truncated", holds(RAW[:-10]), refused="p.nii: is cut short: it has 24918 bytes where its header n"
    ),
    Fault(
        GROUP,
        "raw that holds two volumes",
        holds(RAW + RAW[352:]),
        refused="p.nii: holds more than its header declares",
    ),
    Fault(GROUP, "empty", holds(b""), refused="p.nii: is empty; copy it again"),
    Fault(GROUP, "empty gz", holds(b"", "p.nii.gz"), refused="p.nii.gz: is empty; copy it again"),
    Fault(GROUP, "gz of nothing", holds(gzip.compress(b""), "p.nii.gz"), refused="p.nii.gz: is empty; copy it again"),
    Fault(
        GROUP,
        "a web page named .nii.gz",
        holds(b"<html>please log in</html>\n" * 40, "p.nii.gz"),
        refused="p.nii.gz: is not a NIfTI file; check what it is; NIfTI is .nii or .nii.gz",
    ),
    Fault(GROUP, "gz named .nii", holds(PACKED), check=bright),
    Fault(GROUP, "raw named .nii.gz", holds(RAW, "p.nii.gz"), check=bright),
    Fault(
        GROUP, "a dimension 0", holds(content(change=at("dim", 2, 0))), refused="p.nii: declares 48 x 0 x 4 voxels; ex"
    ),
    Fault(
        GROUP, "a dimension negative", holds(content(change=at("dim", 1, -48))), refused="p.nii: declares -48 x 64 x 4 "
    ),
    Fault(
        GROUP,
        "a dimension 30000",
        holds(content(change=at("dim", 3, 30000))),
        refused="p.nii: is cut short: it has 24928 bytes where its header needs 184320352; copy it again",
        frugal=True,
    ),
    Fault(
        GROUP,
        "a dimension 30000, gz",
        holds(gzip.compress(content(change=at("dim", 3, 30000))), "p.nii.gz"),
        refused="p.nii.gz: is cut short: it has ",
        frugal=True,
    ),
    Fault(
        GROUP,
        "three dimensions 30000",
        holds(gzip.compress(content(dim=BOMB)), "p.nii.gz"),
        refused="p.nii.gz: declares 30000 x 30000 x 30000 voxels, more than the 536870912 that are read; crop",
        frugal=True,
    ),
    Fault(
        GROUP,
        "gz that goes on for ever",
        holds(gzip.compress(content() + bytes(2**27)), "p.nii.gz"),
        refused="p.nii.gz: holds more than its header declares",
        frugal=True,
    ),
    Fault(
        GROUP,
        "a dimension lower than it is",
        holds(content(change=at("dim", 3, 2))),
        refused="p.nii: holds more than its header declares (48 x 64 x 2 voxels); export it again",
    ),
    Fault(
        GROUP,
        "pixdim 0",
        holds(content(change=at("pixdim", 3, 0))),
        refused="p.nii: has a voxel size of 0.9375 x 0.9375 x 0 (pixdim); export it again with its spacing",
    ),
    Fault(
        GROUP,
        "pixdim negative",
        holds(content(change=at("pixdim", 1, -0.9375))),
        refused="p.nii: has a voxel size of -0.9375 x 0.9375 x 5 (pixdim); export it again with its spacing",
    ),
    Fault(
        GROUP,
        "sform and qform apart by > 1e-2 mm",
        holds(content(change=at("srow_x", 3, 20.02))),
        refused="p.nii: says two things of its position: sform and qform are 0.02 mm apart; set one of them",
    ),
    Fault(
        GROUP,
        "sform and qform apart by less (fine)",
        holds(content(change=at("srow_x", 3, 20.005))),
        check=bright_by_the_sform,
    ),
    Fault(
        GROUP,
        "both codes 0",
        holds(content(sform_code=0, qform_code=0)),
        refused="p.nii: says nothing of its orientation (sform_code and qform_code are 0); convert it",
    ),
    Fault(GROUP, "qform code 0 (fine)", holds(content(qform_code=0)), check=bright),
    Fault(GROUP, "sform code 0 (fine)", holds(content(sform_code=0)), check=bright),
    Fault(
        GROUP,
        "sheared sform",
        holds(content(change=sheared)),
        refused="p.nii: has a sheared affine: its axes are not perpendicular; resample it to a straight grid",
    ),
    Fault(GROUP, "slope 0", holds(content(scl_slope=0, scl_inter=-90)), check=bright),
    Fault(GROUP, "slope NaN", holds(content(scl_slope=np.nan, scl_inter=-90)), check=bright),
    Fault(GROUP, "slope negative", holds(content(255 - HEAD, scl_slope=-1, scl_inter=255)), check=bright),
    Fault(
        GROUP,
        "NaN voxels",
        holds(content(spoilt(np.nan))),
        refused="p.nii: has NaN values (1 of 12288 voxels); replace",
    ),
    Fault(
        GROUP,
        "Inf voxels",
        holds(content(spoilt(-np.inf))),
        refused="p.nii: has infinite values (1 of 12288 voxels); re",
    ),
    Fault(GROUP, "one voxel far beyond the rest (fine)", holds(content(spoilt(1e9))), check=bright),
    Fault(GROUP, "4-D with one frame", holds(content(HEAD[..., None])), check=bright),
    Fault(GROUP, "5-D with one frame", holds(content(HEAD[..., None, None])), check=bright),
    Fault(
        GROUP,
        "4-D with several frames",
        holds(content(np.stack([HEAD] * 3, axis=3))),
        refused="p.nii: holds several frames (48 x 64 x 4 x 3); give a single 3-D FLAIR volume",
    ),
    Fault(GROUP, "RGB", holds(content(COLOUR)), refused="p.nii: holds colour values; give a scalar volume"),
    Fault(
        GROUP, "complex", holds(content(HEAD.astype("c8"))), refused="p.nii: holds complex values; give a scalar volume"
    ),
    Fault(GROUP, "int64", holds(another(nibabel.Nifti1Image, "i8")), check=bright),
    Fault(GROUP, "big-endian", holds(another(nibabel.Nifti1Image, ">i2", ">")), check=bright),
    Fault(GROUP, "NIfTI-2", holds(another(nibabel.Nifti2Image, "i2")), check=bright),
    Fault(GROUP, "NIfTI-2, big-endian", holds(another(nibabel.Nifti2Image, ">f4", ">")), check=bright),
    Fault(
        GROUP,
        "2-D",
        holds(content(FLAIR.T)),
        refused="p.nii: is not a volume but an image of 48 x 64; give the whole 3-D volume",
    ),
    Fault(
        GROUP,
        "all zero",
        holds(content(0 * HEAD)),
        refused="p.nii: holds nothing: all its voxels are 0; export it again",
    ),
    Fault(
        GROUP,
        "units metre",
        holds(content(affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE, xyzt_units=1)),
        check=bright_of_known_size,
        says="lengths given in metres were converted to mm",
    ),
    Fault(
        GROUP,
        "units micron",
        holds(content(affine=np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE, xyzt_units=3)),
        check=bright_of_known_size,
        says="lengths given in microns were converted to mm",
    ),
    Fault(
        GROUP,
        "units metre that are mm",
        holds(content(xyzt_units=1)),
        refused="has voxels of 937.5 x 937.5 x 5000 mm; ",
    ),
    Fault(GROUP, "voxels at byte 0, as old tools write (fine)", holds(content(vox_offset=0)), check=bright),
    Fault(
        GROUP, "Analyze", holds(content(magic=b"")), refused="p.nii: is Analyze, or not NIfTI: it cannot say left from"
    ),
    Fault(
        GROUP, "a pair of .hdr and .img", pair, refused="p.hdr: is half of a pair (.hdr, .img); convert it to a single"
    ),
    Fault(
        GROUP,
        ".hdr whose .img is missing",
        holds(RAW[:348], "p.hdr"),
        refused="p.hdr: is half of a pair (.hdr, .img); convert it to a single .nii",
    ),
    Fault(
        GROUP,
        "a label map, by its intent code",
        holds(content((HEAD > 0).astype(np.uint8), intent_code=1002)),
        refused="p.nii: says that its values are labels (intent code 1002); give the scan",
    ),
    Fault(
        GROUP,
        "T1 that is a link to nothing",
        beside(lambda folder: (folder / "t1.nii").symlink_to("archive.nii")),
        check=bright,
        says="pre-contrast: found but not used, it cannot be read (No such file or directory)",
    ),
    Fault(
        GROUP,
        "T1 that is truncated",
        beside(lambda folder: (folder / "t1.nii").write_bytes(RAW[:-10]) and None),
        check=bright,
        says="pre-contrast: found but not used, it is cut short",
    ),
    Fault(
        GROUP,
        "a link to nothing",
        lambda folder: (folder / "flair.nii").symlink_to("archive.nii"),
        refused="flair.nii: cannot be read (No such file or directory); check its permissions, its disk and where it",
    ),
    Fault(
        GROUP,
        "a disk that does not give the file",
        failing_disk,
        refused="p.nii: cannot be read (Input/output error); check its permissions, its disk and where it links to",
    ),
    Fault(GROUP, "a folder named .nii", becomes(Path.mkdir), refused="p.nii: holds no files; give a folder of TIFF sl"),
    Fault(
        GROUP,
        "a pipe named .nii",
        becomes(lambda path: os.mkfifo(path)),
        refused="p.nii: is a pipe or a device, not a file; save what it",
    ),
]
