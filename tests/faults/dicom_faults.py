"""DICOM series that are wrong or unusual: of each what is done to a sound one, and its outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import write
from faults.dicom_inputs import (
    coloured,
    comma,
    copied_file,
    dicomdir,
    exported_twice,
    framed,
    half,
    junk,
    last_missing,
    long_decimals,
    nested,
    no_charset,
    nothing_left,
    other,
    padded,
    private_garbage,
    sheared,
    shuffled,
    smaller,
    swapped,
    truncated_rle,
    twice_over,
    two_folders,
    two_patients,
    unknown,
    unnumbered,
    without_meta,
    zipped,
)
from faults.dicom_series import (
    SLICES,
    STUDY,
    beside,
    bright,
    bytes_of,
    compressed,
    differing,
    every,
    head,
    made_of,
    moved,
    nearly_right,
    of,
    one,
    right,
    sound,
)
from faults.fault import Fault, Met, Situation
from pydicom.pixels import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    BasicTextSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from brainseg.record import RECORD
from brainseg.study import headers
from brainseg.writers.tables import read_cohort

GROUP = "DICOM"
T1 = {"SeriesDescription": "AX T1", "EchoTime": 9, "RepetitionTime": 600, "InversionTime": None}
LOCALISER = {"SeriesDescription": "3-plane loc", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], **T1}


def refused(what: str, build: Any, line: str, *options: str) -> Fault:
    return Fault(GROUP, what, build, refused=line, options=options)


def fine(what: str, build: Any, says: str = "", *options: str) -> Fault:
    return Fault(GROUP, what, build, says=says, check=right, options=options)


# --- several commands, or several rows


def two_flairs(met: Met) -> None:
    """Two FLAIRs of which nothing tells which: both are listed, and --series takes the one that is meant."""
    folder = met.folder / "input"
    flat = np.where(bright(), 100, head()).astype(np.uint16)
    write(folder / "a", sound(flat, StudyInstanceUID=STUDY, SeriesInstanceUID="1.2.3.1"))
    write(folder / "b", sound(StudyInstanceUID=STUDY, SeriesInstanceUID="1.2.3.2"))
    code, (line,) = met.command("segment", folder, "--out", met.out, "-q")
    assert code == 3
    for said in ("1.2.3.1 (AX FLAIR, 5 slices)", "1.2.3.2 (AX FLAIR, 5 slices)", "; choose one with --series UID"):
        assert said in line
    assert met.command("segment", folder, "--series", "1.2.3.2", "--out", met.out, "-q") == (0, [])
    right(met.out / "input")


def patients_beside(met: Met) -> None:
    folder = met.folder / "input"
    for name in ("A", "B"):
        write(folder / name, sound(PatientID=name))
    assert met.command("segment", folder, "--out", met.out, "-q") == (0, [])
    assert [row.case for row in read_cohort(met.out / "cohort.csv")] == ["A", "B"]
    for name in ("A", "B"):
        right(met.out / name)


def codec_missing(met: Met) -> None:
    met.read_here()
    decoder = get_decoder(JPEG2000Lossless)
    met.monkeypatch.setattr(decoder, "_available", {})
    met.monkeypatch.setattr(decoder, "_unavailable", {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.0")})
    compressed(JPEG2000Lossless)(met.folder / "input")
    code, (line,) = met.command("segment", met.folder / "input", "--out", met.out, "-q")
    assert code == 3
    assert "IM0003.dcm: is compressed (JPEG 2000" in line
    assert line.endswith("its codec is not installed; install pylibjpeg>=2.0 and pylibjpeg-openjpeg>=2.0")


def deflated_bomb(met: Met) -> None:
    met.monkeypatch.setattr(headers, "LARGEST_INFLATED", 2**20)
    instances = sound(syntax=DeflatedExplicitVRLittleEndian)
    instances[2].PixelData = bytes(2**20)
    write(met.folder / "input", instances)
    code, (line,) = met.command("segment", met.folder / "input", "--out", met.out, "-q")
    assert code == 3
    assert "IM0017.dcm: is a damaged DICOM file; copy or export the series again" in line


def sees_nothing_outside(results: Path) -> None:
    right(results)
    inputs = json.loads((results / RECORD).read_text(encoding="utf-8"))["inputs"]
    assert len(inputs) == SLICES
    assert all(name.startswith("IMAGES/") for name in inputs)


DEFECTS = [
    refused("missing slice", of(lambda ds: ds.pop(2)), "has a 6.0 mm gap after slice 2 (spacing 3.0 mm)"),
    refused("gap too wide", of(lambda ds: [ds.pop(2), ds.pop(2)]), "9.0 mm gap after slice 2", "--allow-gap"),
    refused("duplicate slice", moved(3, z=-3), "has a duplicate slice (IM0017.dcm and IM0024.dcm lie at the same"),
    refused(
        "file copied under another name", copied_file, "IM0017.dcm: is the same instance as IM0017 (1).dcm; remove"
    ),
    refused("exported twice", exported_twice, "IM0003.dcm: is the same instance as export 1/IM0003.dcm; remove one"),
    refused("two patients in one folder", two_patients, "bad: holds DICOM files of two patients; give each"),
    refused("slice of another patient", one(PatientID="OTHER"), "holds DICOM files of two patients"),
    refused(
        "localiser in the series",
        one(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        "IM0017.dcm: has another orientation than the rest of series",
    ),
    refused("another orientation", one(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "(1 of 5 slices differ); move"),
    refused("another spacing", one(PixelSpacing=[0.8, 0.9375]), "IM0017.dcm: has another spacing than the rest"),
    refused("another size", of(smaller), "IM0017.dcm: has another size than the rest"),
    refused("another kind of pixels", one(PixelRepresentation=1), "IM0017.dcm: has another kind of pixels"),
    refused("truncated in its header", bytes_of(lambda data: data[:400]), "IM0017.dcm: is a damaged DICOM file"),
    refused("truncated in its pixels", bytes_of(half), "IM0017.dcm: is cut short"),
    refused("empty file", bytes_of(lambda data: b""), "IM0017.dcm: is a damaged DICOM file"),
    refused("nothing but damaged files", nothing_left, "IM0003.dcm: is a damaged DICOM file and 4 more"),
    refused("truncated, compressed", truncated_rle, "IM0017.dcm: is cut short"),
    refused("no pixels", one(PixelData=None), "IM0017.dcm: is cut short"),
    refused("no position", every(ImagePositionPatient=None), "IM0003.dcm: has no ImagePositionPatient"),
    refused("no position of one slice", one(ImagePositionPatient=None), "IM0017.dcm: has no ImagePositionPatient"),
    refused("no orientation", every(ImageOrientationPatient=None), "IM0003.dcm: has no ImageOrientationPatient"),
    refused("no spacing", every(PixelSpacing=None), "IM0003.dcm: has no PixelSpacing"),
    refused("spacing 0", every(PixelSpacing=[0, 0]), "IM0003.dcm: has a PixelSpacing that is not positive"),
    refused("decimal comma", bytes_of(comma), "IM0017.dcm: has no PixelSpacing that can be read"),
    refused(
        "orientation not unit", made_of(ImageOrientationPatient=[1.1, 0, 0, 0, 1, 0]), "is not unit and orthogonal"
    ),
    refused(
        "orientation not orthogonal", made_of(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "not unit and ortho"
    ),
    refused("gantry tilt", of(sheared), "is sheared by 9.5 degrees (gantry tilt); resample it"),
    refused("uneven spacing", moved(4, z=1), "is unevenly spaced: 4.00 mm after slice 4 (spacing 3.00 mm)"),
    refused("off the grid by more than 1% of the spacing", moved(3, x=0.2), "has slices off the grid by up to 0.1"),
    refused("4-D", of(twice_over), "is 4-D: it holds 2 slices at each of 5 positions; export one volume"),
    refused("mosaic", made_of(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "is a mosaic, several slices in one"),
    refused("enhanced multi-frame", of(framed, SOPClassUID=EnhancedMRImageStorage), "is enhanced multi-frame DICOM"),
    refused("enhanced with one frame", made_of(SOPClassUID=EnhancedMRImageStorage), "is enhanced multi-frame DICOM"),
    refused("multi-frame of another class", of(framed), "is enhanced multi-frame DICOM; convert it with dcm2niix"),
    refused(
        "codec unknown",
        compressed(RLELossless, lambda ds: [setattr(d.file_meta, "TransferSyntaxUID", MPEG2MPML) for d in ds]),
        "IM0003.dcm: is compressed in a way that is not supported (MPEG2",
    ),
    refused("CT", made_of(Modality="CT", SOPClassUID=CTImageStorage), "is not a FLAIR: its modality is CT, not MR; "),
    refused(
        "T1", made_of(**T1), "is not a FLAIR: its description does not say FLAIR; choose another with --series UID"
    ),
    refused("T1 FLAIR", made_of(SeriesDescription="AX T1 FLAIR"), "its description does not say FLAIR"),
    refused("FLAIR in words alone", made_of(EchoTime=9), "says FLAIR but TE 9 ms, TR 9000 ms, TI 2500 ms is none"),
    refused("nothing says FLAIR", made_of(SeriesDescription=None, EchoTime=None), "nothing in its header says FLAIR"),
    refused(
        "one slice of a T1",
        one(EchoTime=9, InversionTime=None, SeriesDescription="AX T1"),
        "IM0017.dcm: is not a FLAIR as the rest of",
    ),
    refused("colour", of(coloured), "IM0003.dcm: is a colour image, or says not what it is; give the grey images"),
    refused(
        "a screenshot", every(SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None), "IM0003.dcm: has no"
    ),
    refused("slope 0", one(RescaleSlope=0), "IM0017.dcm: has a rescale slope or intercept that is 0"),
    refused("all equal", made_of(np.full_like(head(), 7)), "holds nothing: all its voxels are equal"),
    refused("12 bits allocated", made_of(BitsAllocated=12), "IM0003.dcm: has 32 x 32 pixels of 12 bits"),
    refused("rows that lie", every(Rows=65535), "IM0003.dcm: is cut short"),
    refused("1,000 nested sequences", bytes_of(nested), "IM0017.dcm: is a damaged DICOM file"),
    refused("zip with ../", lambda folder: zipped(folder, "../"), "p.zip: holds '../IM0003.dcm', which would leave"),
    refused("zip bomb", lambda folder: zipped(folder, bomb=True), "p.zip: would unpack to"),
    refused(
        "no preamble",
        bytes_of(lambda data: data[132:], slice(None)),
        "IM0003.dcm: is DICOM without its prefix DICM and 4 more; rewrite",
    ),
    refused(
        "no preamble of one file",
        bytes_of(lambda data: data[132:], slice(4, 5)),
        "IM0031.dcm: is DICOM without its prefix DICM; rewrite",
    ),
    refused(
        "no preamble and no meta",
        bytes_of(without_meta, slice(4, 5)),
        "IM0031.dcm: is DICOM without its prefix DICM; rewrite",
    ),
    refused(
        "two frames of reference",
        differing(slice(4, 5), FrameOfReferenceUID="1.2.99"),
        "IM0031.dcm: has another frame of reference",
    ),
    refused("missing slice in a zip", lambda folder: zipped(folder, "s/", missing=2), "/p.zip/s: series"),
]

FINE = [
    fine("sound", made_of()),
    fine(
        "missing slice, asked for",
        of(lambda ds: ds.pop(2)),
        "slices missing from the series were interpolated: 3 (",
        "--allow-gap",
    ),
    Fault(
        GROUP,
        "slices off the grid by more than 0.01 mm",
        moved(3, x=0.02),
        says="slices are off the grid by up to 0.01",
        check=nearly_right,
    ),
    fine("InstanceNumber shuffled", of(shuffled)),
    fine("InstanceNumber absent", of(unnumbered)),
    fine(
        "slices from the top down", made_of(np.ascontiguousarray(head()[::-1]), start=(-10, -20, 42), step=(0, 0, -3.0))
    ),
    fine("localiser among them", beside(sound(head()[:3], StudyInstanceUID=STUDY, **LOCALISER)), "3 other files"),
    fine("decimal strings over 16 characters", bytes_of(long_decimals, slice(None), spacing=(0.5, 0.5, 3.0))),
    fine("MONOCHROME1", made_of(230 - head(), PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1 inverted"),
    fine("big-endian", of(swapped, syntax=ExplicitVRBigEndian)),
    fine("deflated", made_of(syntax=DeflatedExplicitVRLittleEndian)),
    fine("implicit VR", made_of(syntax=ImplicitVRLittleEndian)),
    fine("RLE", compressed(RLELossless)),
    fine("JPEG 2000", compressed(JPEG2000Lossless)),
    fine("junk among the files", junk, "4 other files"),
    fine("not FLAIR, forced", made_of(**T1), "not_flair", "--force"),
    fine("CT, forced", made_of(Modality="CT", SOPClassUID=CTImageStorage), "not_flair", "--force"),
    fine("FLAIR in ProtocolName alone", made_of(SeriesDescription=None, ProtocolName="t2_tirm_dark-fluid")),
    fine(
        "FLAIR by its times alone",
        made_of(SeriesDescription=None),
        "TE 120 ms, TR 9000 ms, TI 2500 ms is that of a FLAIR",
    ),
    fine("zip", lambda folder: zipped(folder, "study/")),
    fine("series split over two folders", two_folders),
    fine("report beside it", beside(other(BasicTextSRStorage, "SR")), "1 other file"),
    fine(
        "presentation state beside it", beside(other(GrayscaleSoftcopyPresentationStateStorage, "PR")), "1 other file"
    ),
    fine("segmentation beside it", beside(other(SegmentationStorage, "SEG"))),
    fine("private elements", bytes_of(private_garbage, slice(None))),
    fine(
        "wrong character set",
        bytes_of(no_charset, slice(None), SpecificCharacterSet="ISO_IR 100", SeriesDescription="AX FLAIR t\xeate"),
    ),
    fine("VR UN everywhere", bytes_of(unknown, slice(None))),
    Fault(GROUP, "last slice missing", of(last_missing), says="counts 5 images in the acquisition, 4 are here"),
    fine(
        "padding",
        made_of(padded(4095), PixelPaddingValue=4095),
        "padding pixels set",
    ),
    fine(
        "padding range",
        made_of(padded(4090), PixelPaddingValue=4080, PixelPaddingRangeLimit=4095),
        "padding pixels set",
    ),
    Fault(GROUP, "DICOMDIR with ../", dicomdir, check=sees_nothing_outside),
    Fault(
        GROUP,
        "DICOMDIR with ../, given itself",
        lambda folder: dicomdir(folder, "DICOMDIR"),
        check=sees_nothing_outside,
    ),
]

FAULTS = [
    *DEFECTS,
    *FINE,
    Situation(GROUP, "two series", two_flairs),
    Situation(GROUP, "two patients in two folders", patients_beside),
    Situation(GROUP, "transfer syntax without codec", codec_missing),
    Situation(GROUP, "deflated bomb", deflated_bomb),
]
