"""Patient identifiers planted in scans of every format, and the search for them in all that was written or said."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import tifffile
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset
from pydicom.uid import UID

CARRIED = {  # a DICOM SEG must have these of its source: PS3.3 C.7.1.1 and C.7.2.1, types 1 and 2
    "PatientName": "Zzident01^Müller",
    "PatientID": "ZZIDENT02",
    "PatientBirthDate": "19310203",
    "PatientSex": "O",
    "StudyDate": "19870504",
    "StudyTime": "031415.271828",
    "AccessionNumber": "ZZIDENT03",
    "ReferringPhysicianName": "Zzident04^Ärztin",
    "StudyID": "ZZIDENT05",
}
KEPT_BACK = {
    "OtherPatientIDs": "ZZIDENT06",
    "OtherPatientNames": "Zzident07^Other",
    "PatientBirthName": "Zzident08^Born",
    "PatientMotherBirthName": "Zzident09^Mother",
    "PatientAddress": "Zzident10 street",
    "PatientTelephoneNumbers": "ZZIDENT11",
    "MedicalRecordLocator": "ZZIDENT12",
    "PatientComments": "Zzident13 comment",
    "EthnicGroup": "ZZIDENT14",
    "Occupation": "ZZIDENT15",
    "InstitutionName": "Zzident16 hospital",
    "InstitutionAddress": "Zzident17 road",
    "StationName": "ZZIDENT18",
    "OperatorsName": "Zzident19^Operator",
    "PerformingPhysicianName": "Zzident20^Performer",
    "RequestingPhysician": "Zzident21^Requester",
    "StudyDescription": "Zzident22 study",
    "ImageComments": "Zzident23 image",
    "DeviceSerialNumber": "ZZIDENT24",
    "ProtocolName": "FLAIR Zzident25",
    "AcquisitionDate": "19870511",
    "SeriesDate": "19870512",
    "ContentDate": "19870513",
}
IN_A_SEQUENCE, PRIVATE, DESCRIBED = "ZZIDENT26", "Zzident27 private", "ZZIDENT28"
IN_OTHER_HEADERS = [f"Zzident{number} Größe" for number in range(30, 50)]
FOLDER = "Zzident99_folder"  # above what the user names
MARK = "zzident"

DATES = ("19310203", "1931-02-03", "19870504", "1987-05-04", "19870511", "19870512", "19870513", "031415.27")


def plant_in_dicom(folder: Path) -> list[UID]:
    """Plants in every instance under `folder`; gives the UIDs that say whose they are."""
    uids = set()
    for path in sorted(folder.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        ds.SpecificCharacterSet = "ISO_IR 100"
        for keyword, value in (CARRIED | KEPT_BACK).items():
            setattr(ds, keyword, value)
        ds.SeriesDescription = f"{ds.SeriesDescription} {DESCRIBED}"
        item = Dataset()
        item.PatientID = IN_A_SEQUENCE
        ds.OtherPatientIDsSequence = [item]
        ds.private_block(0x0011, "Zzident27 creator", create=True).add_new(0x01, "LO", PRIVATE)
        ds.save_as(path)
        uids |= {ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.SOPInstanceUID}
    return sorted(uids)


def plant_in_nifti(folder: Path) -> None:
    """In every text field of the header, and in extensions of three kinds."""
    for path in sorted(folder.rglob("*.nii.gz")):
        image = nibabel.load(path)
        array = np.asarray(image.dataobj)
        texts = [text.encode("latin-1") for text in IN_OTHER_HEADERS]
        for field, text in zip(("descrip", "aux_file", "db_name", "intent_name"), texts, strict=False):
            image.header[field] = text
        for code, text in zip((2, 4, 6), texts[4:], strict=False):
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, text))
        nibabel.save(nibabel.Nifti1Image(array, image.affine, image.header), path)


def plant_in_tiff(folder: Path) -> None:
    """In description, artist, host, copyright, date and XMP."""
    texts = [text.encode("utf-8") for text in IN_OTHER_HEADERS[7:11]]
    tags = [(code, 2, len(text) + 1, text, True) for code, text in zip((315, 316, 33432), texts, strict=False)]
    tags.append((700, 1, len(texts[3]), texts[3], True))
    for path in sorted(folder.rglob("*.tif")):
        pixels = tifffile.imread(path)
        kind = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(
            path,
            pixels,
            photometric=kind,
            metadata=None,
            description=IN_OTHER_HEADERS[11].encode("utf-8"),
            software="Zzident41 maker",
            datetime="1931:02:03 00:00:00",
            extratags=tags,
        )


def plant_in_pictures(folder: Path) -> None:
    """In PNG's three kinds of text and in EXIF; in JPEG's comment and EXIF."""
    exif = Image.Exif()
    exif[0x013B], exif[0x010E] = "Zzident42 artist", "Zzident43 description"
    for path in sorted([*folder.rglob("*.png"), *folder.rglob("*.jpg")]):
        with Image.open(path) as image:
            image.load()
        if path.suffix == ".jpg":
            image.save(path, comment=IN_OTHER_HEADERS[14], exif=exif)
            continue
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", IN_OTHER_HEADERS[15])
        text.add_text("Comment", IN_OTHER_HEADERS[16] * 9, zip=True)
        text.add_itxt("XML:com.adobe.xmp", IN_OTHER_HEADERS[17] * 9, zip=True)
        image.save(path, pnginfo=text, exif=exif)


def write_itk(folder: Path, suffix: str, array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Path:
    """`folder/flair.mha` or `.nrrd` of `array` (X, Y, Z), LPS, with comments and keys that name a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    shape, steps = (" ".join(map(str, values)) for values in (array.shape, spacing_mm))
    if suffix == ".mha":
        head = (
            f"ObjectType = Image\nNDims = 3\nComment = {IN_OTHER_HEADERS[18]}\nPatientName = Zzident49\n"
            f"BinaryData = True\nBinaryDataByteOrderMSB = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
            f"ElementSpacing = {steps}\nDimSize = {shape}\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
        )
    else:
        x, y, z = spacing_mm
        head = (
            f"NRRD0005\n# {IN_OTHER_HEADERS[18]}\ntype: float\ndimension: 3\nspace: left-posterior-superior\n"
            f"sizes: {shape}\nspace directions: ({x},0,0) (0,{y},0) (0,0,{z})\nspace origin: (0,0,0)\nendian: little\n"
            f"encoding: raw\ncontent: Zzident48\nPatient:=Zzident49\n\n"
        )
    path = folder / f"flair{suffix}"
    path.write_bytes(head.encode("utf-8") + array.astype("<f4").tobytes(order="F"))
    return path


def found_in(content: bytes, more: Iterable[str] = ()) -> set[str]:
    """What was planted and is in `content`, as it is or packed within it."""
    found: set[str] = set()
    for layer in _layers(content):
        lower = layer.lower()
        for coding in ("utf-8", "utf-16-le", "utf-16-be"):
            for word in (MARK, *DATES, *more):
                at = lower.find(word.lower().encode(coding))
                if at >= 0:
                    found.add(f"{word}: {layer[max(0, at - 20) : at + 40]!r}")
    return found


def files_under(folder: Path) -> list[Path]:
    """All files below `folder`."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def without_what_a_seg_carries(path: Path) -> bytes:
    """A DICOM SEG as bytes without the attributes of `CARRIED`, the date that its content is of, and source UIDs."""
    ds = pydicom.dcmread(path)
    for keyword in (*CARRIED, "ContentDate", "ContentTime"):
        del ds[keyword]
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def _layers(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """`content`, and what is packed in it: gzip, zip (npz, pt), text of PNG, data URIs, dates and accents escaped."""
    yield content
    if depth > 3:
        return
    if content[:2] == b"\x1f\x8b":
        yield from _layers(gzip.decompress(content), depth + 1)
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive.comment
            for name in archive.namelist():
                yield name.encode()
                yield from _layers(archive.read(name), depth + 1)
    for picture in re.finditer(rb"\x89PNG\r\n\x1a\n", content):
        yield from _png_texts(content[picture.end() :])
    for found in re.finditer(rb"base64,([A-Za-z0-9+/=]+)", content):
        yield from _layers(base64.b64decode(found[1]), depth + 1)


def _png_texts(content: bytes) -> Iterator[bytes]:
    """The text of the chunks of a PNG, from after its signature, unpacked."""
    at = 0
    while at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + size]
        if kind in (b"zTXt", b"iTXt"):
            packed = re.search(rb"\x78[\x01\x5e\x9c\xda]", body)
            yield zlib.decompressobj().decompress(body[packed.start() :]) if packed else body
        if kind == b"IEND":
            return
        at += size + 12
