"""What is done to a sound DICOM series, or lies beside it: a function each."""

from __future__ import annotations

import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import write
from faults.dicom_series import (
    SLICES,
    STUDY,
    compressed,
    head,
    sound,
)
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    RLELossless,
    generate_uid,
)

from brainseg.study import headers

# --- what is done to a series


def shuffled(instances: list[FileDataset]) -> None:
    for ds, number in zip(instances, (4, 1, 5, 2, 3), strict=True):
        ds.InstanceNumber = number


def unnumbered(instances: list[FileDataset]) -> None:
    for ds in instances:
        del ds.InstanceNumber


def sheared(instances: list[FileDataset]) -> None:
    for i, ds in enumerate(instances):
        ds.ImagePositionPatient[1] += 0.5 * i


def twice_over(instances: list[FileDataset]) -> None:
    """Two time points at every position."""
    for ds in [*instances]:
        later = deepcopy(ds)
        later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.TemporalPositionIdentifier, later.TemporalPositionIdentifier = 1, 2
        instances.append(later)


def last_missing(instances: list[FileDataset]) -> None:
    for ds in instances:
        ds.ImagesInAcquisition = len(instances)
    instances.pop()


def smaller(instances: list[FileDataset]) -> None:
    ds = instances[2]
    ds.Rows, ds.PixelData = 16, ds.PixelData[: 16 * 32 * 2]


def coloured(instances: list[FileDataset]) -> None:
    for ds in instances:
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.PixelData = bytes(32 * 32 * 3)


def framed(instances: list[FileDataset]) -> None:
    """All slices as frames of one instance."""
    instances[0].PixelData = b"".join(ds.PixelData for ds in instances)
    instances[0].NumberOfFrames = len(instances)
    del instances[1:]


def swapped(instances: list[FileDataset]) -> None:
    for ds in instances:
        ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def long_decimals(data: bytes) -> bytes:
    """PixelSpacing as some scanners write it, longer than the 16 characters of a decimal string (PS3.5 6.2)."""
    return _element(data, b"\x28\x00\x30\x00DS", b"0.93750000000000001\\0.93750000000000001 ")


def comma(data: bytes) -> bytes:
    return _element(data, b"\x28\x00\x30\x00DS", b"0,9375\\0,9375 ")


def _element(data: bytes, tag: bytes, value: bytes) -> bytes:
    """`data` with another value of an element in explicit VR."""
    at = data.index(tag) + 8
    length = int.from_bytes(data[at - 2 : at], "little")
    return (
        data[: at - 2]
        + len(value + b" " * (len(value) % 2)).to_bytes(2, "little")
        + value.ljust(len(value) + len(value) % 2)
        + data[at + length :]
    )


def nested(data: bytes) -> bytes:
    """A thousand sequences, each in an item of the one before, ahead of the patient's name."""
    at = data.index(b"\x10\x00\x10\x00PN")
    begin = b"\x08\x00\x10\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    return data[:at] + begin * 1000 + end * 1000 + data[at:]


def no_charset(data: bytes) -> bytes:
    return data.replace(b"ISO_IR 100", b"ISO_IR 999")


def unknown(data: bytes) -> bytes:
    """All but the pixels as VR UN, as an archive rewrites implicit VR that its dictionary lacks (PS3.5 6.2.2)."""
    at = 144 + int.from_bytes(data[140:144], "little")  # past the file meta information
    parts = [data[:at]]
    while at < len(data):
        pixels = data[at + 4 : at + 6] == b"OW"
        size, begin = (data[at + 8 : at + 12], at + 12) if pixels else (data[at + 6 : at + 8], at + 8)
        end = begin + int.from_bytes(size, "little")
        start = data[at : at + 4] + (b"OW" if pixels else b"UN") + bytes(2) + (end - begin).to_bytes(4, "little")
        parts.append(start + data[begin:end])
        at = end
    return b"".join(parts)


def private_garbage(data: bytes) -> bytes:
    """Private elements of a creator that nobody knows."""
    at = data.index(b"\x10\x00\x10\x00PN")
    junk = bytes(range(256))
    elements = b"\x09\x00\x10\x00LO\x06\x00ACME 1" + b"\x09\x00\x01\x10UN\x00\x00\x00\x01\x00\x00" + junk
    return data[:at] + elements + data[at:]


def high_bits(array: np.ndarray) -> np.ndarray:
    """12 bits stored, and an overlay in a bit above them, as was done before 2004 (PS3.5 8.1.2)."""
    array = array.copy()
    array[:, 20:28, 6:12] |= 0x1000
    return array


def padded(value: int) -> np.ndarray:
    """A head of which a side was not scanned."""
    array = head()
    array[:, :, 29:] = value
    return array


def with_slopes(instances: list[FileDataset]) -> None:
    """Slices scaled each to its own brightest pixel, as Philips and PET do."""
    for i, ds in enumerate(instances):
        slope = 0.25 * (i + 1)
        ds.RescaleSlope, ds.RescaleIntercept = slope, -50
        pixels = np.frombuffer(ds.PixelData, np.uint16).astype(float)
        ds.PixelData = np.rint((pixels + 50) / slope).astype(np.uint16).tobytes()


def truncated_rle(folder: Path) -> None:
    compressed(RLELossless)(folder)
    path = folder / "IM0017.dcm"
    path.write_bytes(path.read_bytes()[:-100])


def without_meta(data: bytes) -> bytes:
    """As archives of old scanners hold it: neither preamble nor file meta information."""
    return data[data.index(b"\x08\x00\x08\x00CS") :]


# --- what else lies there


def two_folders(folder: Path) -> None:
    instances = sound()
    write(folder / "1", instances[:2])
    write(folder / "2", instances[2:])


def exported_twice(folder: Path) -> None:
    instances = sound()
    write(folder / "export 1", instances)
    write(folder / "export 2", instances)


def copied_file(folder: Path) -> None:
    paths = write(folder, sound())
    (folder / "IM0017 (1).dcm").write_bytes(paths[2].read_bytes())


def junk(folder: Path) -> None:
    write(folder, sound())
    for name in ("readme.txt", "Thumbs.db", "viewer.exe", "report.pdf"):
        (folder / name).write_bytes(b"MZ no image at all" * 20)
    (folder / "._IM0003.dcm").write_bytes(b"what macOS leaves")


def two_patients(folder: Path) -> None:
    write(folder, sound())
    write(folder, sound(PatientID="OTHER"), suffix="")


def nothing_left(folder: Path) -> None:
    for path in write(folder, sound()):
        path.write_bytes(path.read_bytes()[:200])


def dicomdir(folder: Path, given: str = "") -> Path:
    """A disc whose DICOMDIR refers to files outside of it."""
    outside = folder.parent / "outside"
    write(outside, sound(np.full_like(head(), 7)))
    write(folder / "IMAGES", sound())
    ds = Dataset()
    record = Dataset()
    with headers.quiet():  # pydicom knows that ".." is no file ID
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["..", "outside", "IM0003.dcm"]
        ds.FileSetID, ds.DirectoryRecordSequence = "DISC", Sequence([record])
        ds.save_as(folder / "DICOMDIR", implicit_vr=False, little_endian=True)
    data = (folder / "DICOMDIR").read_bytes()
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00\x1c\x00\x00\x00" + meta + data)
    return folder / given


def zipped(folder: Path, names: str = "", *, missing: int = SLICES, bomb: bool = False) -> Path:
    paths = write(folder.parent / "series", sound())
    paths[missing : missing + 1] = []
    with zipfile.ZipFile(folder / "p.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for path in paths:
            target.write(path, names + path.name)
        if bomb:
            target.writestr("bomb", bytes(2**26 + 1))
    return folder / "p.zip"


def other(storage: str, modality: str, **tags: Any) -> list[FileDataset]:
    """One object without pixels in the study of `beside`."""
    (ds,) = sound(head()[:1], SOPClassUID=storage, Modality=modality, StudyInstanceUID=STUDY, **tags)
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(ds, keyword)
    return [ds]
