"""Small sound scans in every format that is read, and in each the one file that is changed."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import itk
import nibabel
import numpy as np
import tifffile
from dicom_files import series, write
from figshare_files import head, write_matlab, write_picture
from mutants import fields
from mutants.fields import Fields
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SHAPE = (20, 24, 5)


@dataclass(frozen=True)
class Seed:
    """A sound scan.

    Attributes:
        given: what is given to `segment`.
        file: the file in it that is changed.
        content: its bytes before packing.
        packed: what packs them (gzip, zip), so that a change may also come through that unharmed.
        fields: where numbers stand in the content.
        core: where in the content the part begins that a decoder in C gets.
    """

    given: Path
    file: Path
    content: bytes
    packed: Callable[[bytes], bytes]
    fields: Fields
    core: int = 0


def _plain(content: bytes) -> bytes:
    return content


def _seed(given: Path, file: Path, found: Callable[[bytes], Fields]) -> Seed:
    content = file.read_bytes()
    return Seed(given, file, content, _plain, found(content))


def _pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 1000, SHAPE).astype(np.int16)


def _tiff(folder: Path, **options: Any) -> Seed:
    rng = np.random.default_rng(0)
    for number in (1, 2):
        shape = (40, 48) if "dtype" in options else (40, 48, 3)
        pixels = rng.integers(0, 255, shape).astype(options.get("dtype", np.uint8))
        rest = {key: value for key, value in options.items() if key != "dtype"}
        kind = "rgb" if len(shape) == 3 else "minisblack"
        tifffile.imwrite(folder / f"p_{number}.tif", pixels, photometric=kind, **rest)
    return _seed(folder, folder / "p_1.tif", fields.tiff)


def _nifti(folder: Path, *, packed: bool) -> Seed:
    content = nibabel.Nifti1Image(_pixels(), np.diag([1, 2, 3, 1.0])).to_bytes()
    file = folder / ("flair.nii.gz" if packed else "flair.nii")
    wrap = partial(gzip.compress, compresslevel=1, mtime=0) if packed else _plain
    file.write_bytes(wrap(content))
    return Seed(folder, file, content, wrap, fields.nifti(content))


def _itk(folder: Path, suffix: str, *, compression: bool) -> Seed:
    file = folder / f"flair.{suffix}"
    itk.imwrite(itk.image_from_array(_pixels()), str(file), compression=compression)
    return _seed(folder, file, fields.text)


def _dicom(folder: Path, syntax: str, encode: Callable[[np.ndarray], bytes] | None = None, *, bits: int = 16) -> Seed:
    planes = (np.random.default_rng(0).integers(1, 250, (4, 24, 20)) * (1 if bits == 8 else 4)).astype(f"u{bits // 8}")
    instances = series(planes, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1)
    for instance, plane in zip(instances, planes, strict=True):
        if syntax == RLELossless:
            instance.compress(RLELossless)
        elif encode is not None:
            instance.PixelData = encapsulate([encode(plane)])
            instance["PixelData"].VR = "OB"
            instance.file_meta.TransferSyntaxUID = syntax
    seed = _seed(folder, write(folder, instances)[-1], fields.dicom)
    return replace(seed, core=seed.content.index(fields.PIXEL_DATA))


def _picture(folder: Path, suffix: str) -> Seed:
    write_picture(folder, 1, head(48)[0], suffix=suffix)
    return _seed(folder, folder / "images" / f"1{suffix}", fields.png if suffix == ".png" else fields.jpeg)


def _matlab(folder: Path) -> Seed:
    for number in (1, 2):
        file = write_matlab(folder, number, *head(24), pid="17")
    return _seed(folder, file, fields.hdf5)


def _zip(folder: Path, compression: int) -> Seed:
    content = nibabel.Nifti1Image(_pixels(), np.diag([1, 2, 3, 1.0])).to_bytes()
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo("p/flair.nii"), content, compression)
        archive.writestr(zipfile.ZipInfo("p/readme.txt"), b"of no use", compression)
    file = folder / "scan.zip"
    file.write_bytes(stream.getvalue())
    return _seed(file, file, fields.zipped)


SEEDS: dict[str, list[Callable[[Path], Seed]]] = {
    "TIFF": [
        partial(_tiff, metadata=None),
        partial(_tiff, compression="zlib", rowsperstrip=8),
        partial(_tiff, compression="lzw", predictor=True),
        partial(_tiff, dtype=np.uint8, compression="jpeg"),
        partial(_tiff, compression="packbits"),
        partial(_tiff, tile=(16, 16)),
        partial(_tiff, dtype=np.uint16),
        partial(_tiff, dtype=np.float32, compression="zlib"),
    ],
    "NIfTI (.nii)": [partial(_nifti, packed=False)],
    "NIfTI (.nii.gz)": [partial(_nifti, packed=True)],
    "MHA": [partial(_itk, suffix="mha", compression=False), partial(_itk, suffix="mha", compression=True)],
    "NRRD": [partial(_itk, suffix="nrrd", compression=False), partial(_itk, suffix="nrrd", compression=True)],
    "DICOM": [partial(_dicom, syntax=ExplicitVRLittleEndian)],
    "DICOM, RLE": [partial(_dicom, syntax=RLELossless)],
    "DICOM, JPEG": [
        partial(_dicom, syntax=JPEGBaseline8Bit, encode=imagecodecs.jpeg8_encode, bits=8),
        partial(_dicom, syntax=JPEGLosslessSV1, encode=imagecodecs.ljpeg_encode),
    ],
    "DICOM, JPEG-LS": [partial(_dicom, syntax=JPEGLSLossless, encode=imagecodecs.jpegls_encode)],
    "DICOM, JPEG 2000": [
        partial(
            _dicom,
            syntax=JPEG2000Lossless,
            encode=partial(imagecodecs.jpeg2k_encode, codecformat="j2k", reversible=True, level=0),
        )
    ],
    "PNG": [partial(_picture, suffix=".png")],
    "JPEG": [partial(_picture, suffix=".jpg")],
    "MATLAB": [_matlab],
    "zip": [partial(_zip, compression=zipfile.ZIP_DEFLATED), partial(_zip, compression=zipfile.ZIP_LZMA)],
}
