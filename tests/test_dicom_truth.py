"""Published DICOM SEGs as ground truth: which one is taken, and the mask it becomes on the FLAIR's grid."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from command import brainseg
from dicom_files import SAGITTAL, edited, series, voxels, write
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from brainseg.errors import InputError
from brainseg.readers import read_ground_truth, read_patient
from brainseg.readers.dicom_seg import _nearest, read_dicom_seg
from brainseg.readers.grid import Grid
from brainseg.study import find_patients
from brainseg.study.segmentation import truth_cautions

STUDY, FRAME = "1.2.3.1", "1.2.3.2"
SHAPE = (8, 6, 5)  # slices, rows, columns
EDEMA, NECROSIS = codes.SCT.Edema, codes.SCT.Necrosis
BRAIN = Code("12738006", "SCT", "Brain")
ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
ANATOMICAL = codes.SCT.AnatomicalStructure


def flair(**tags: Any) -> list[FileDataset]:
    more = {"SOPClassUID": pydicom.uid.MRImageStorage, "PatientSex": "O", "PatientBirthDate": "", "StudyDate": ""}
    more |= {"StudyTime": "", "AccessionNumber": "", "StudyID": "", "ReferringPhysicianName": ""}
    tags = {"StudyInstanceUID": STUDY, "FrameOfReferenceUID": FRAME, **more, **tags}
    return series(voxels(*SHAPE), **tags)


def block() -> NDArray[np.bool_]:
    """Two segments (slice, row, column, segment): one voxel of necrosis inside a block of oedema of 12 voxels."""
    mask = np.zeros((*SHAPE, 2), dtype=np.bool_)
    mask[2:5, 1:3, 1:3, 0] = True
    mask[3, 1, 1, 0], mask[3, 1, 1, 1] = False, True
    return mask


def write_seg(
    path: Path,
    source: list[FileDataset],
    mask: NDArray[np.bool_] | None = None,
    *,
    description: str = "AI segmentation",
    algorithm: str = "AUTOMATIC",
    kinds: tuple[Code, ...] = (EDEMA, NECROSIS),
) -> Path:
    """A SEG over `source`, as a group that publishes annotations would make it: empty frames left out."""
    import highdicom as hd

    mask = block() if mask is None else mask
    identification = hd.AlgorithmIdentificationSequence(
        name="net", version="1", family=codes.DCM.ArtificialIntelligence
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segments = [
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=kind.meaning,
                segmented_property_category=ANATOMICAL if kind is BRAIN else ABNORMAL,
                segmented_property_type=kind,
                algorithm_type=algorithm,
                algorithm_identification=None if algorithm == "MANUAL" else identification,
            )
            for number, kind in enumerate(kinds, 1)
        ]
        seg = hd.seg.Segmentation(
            source_images=source,
            pixel_array=mask[..., : len(kinds)].astype(np.uint8),
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=generate_uid(),
            series_number=300,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="Somebody",
            manufacturer_model_name="annotations",
            software_versions="1",
            device_serial_number="1",
            series_description=description,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def union() -> NDArray[np.bool_]:
    """The tumour of `block` indexed (X, Y, Z)."""
    return np.asarray(block().any(axis=-1).transpose(2, 1, 0))


def test_seg_over_the_flair_is_its_ground_truth_with_all_segments_of_the_tumour(tmp_path: Path) -> None:
    source = flair()
    write(tmp_path / "P" / "flair", source)
    file = write_seg(tmp_path / "P" / "seg" / "1.dcm", source)
    (patient,) = find_patients(tmp_path / "P")
    assert patient.masks == (file,)
    assert patient.why.endswith("its mask is the DICOM SEG AI segmentation, by an algorithm")
    assert patient.skipped == 0
    mask = read_ground_truth(patient)
    assert mask is not None
    assert int(mask.sum()) == 12
    assert np.array_equal(mask.astype(bool), union())
    assert "an algorithm drew 1 of the 1 masks" in truth_cautions([patient])[0]


@pytest.mark.parametrize("step", [(0.0, 0.0, 3.0), (0.0, 0.0, -3.0)])
def test_mask_lies_on_the_same_voxels_whichever_way_the_slices_run(
    tmp_path: Path, step: tuple[float, float, float]
) -> None:
    source = series(voxels(*SHAPE), step=step, **_tags(flair()[0]))
    write(tmp_path / "P", source)
    write_seg(tmp_path / "P" / "seg.dcm", source)
    (patient,) = find_patients(tmp_path / "P")
    case, mask = read_patient(patient), read_ground_truth(patient)
    assert mask is not None
    assert mask.shape == case.shape
    ordered = voxels(*SHAPE)[:: 1 if step[2] > 0 else -1].transpose(2, 1, 0)
    assert np.array_equal(case.image[1], ordered.astype(np.float32))
    assert np.array_equal(mask.astype(bool), union()[..., :: 1 if step[2] > 0 else -1])


def _tags(ds: FileDataset) -> dict[str, Any]:
    kept = ("StudyInstanceUID", "FrameOfReferenceUID", "PatientSex", "PatientBirthDate", "StudyDate", "StudyTime")
    return {key: ds.get(key) for key in (*kept, "AccessionNumber", "StudyID", "ReferringPhysicianName")}


def test_seg_on_the_t1_is_brought_to_the_flair_by_nearest_neighbour(tmp_path: Path) -> None:
    source = flair()
    t1 = series(  # twice as fine along Z, in the same place: slices of 1.5 mm from the lower edge of the first
        voxels(16, 6, 5),
        spacing=(0.5, 0.75, 1.5),
        start=(-10.0, -20.0, 29.25),
        SeriesDescription="AX T1 POST",
        InversionTime=None,
        **_tags(source[0]),
    )
    write(tmp_path / "P" / "flair", source)
    write(tmp_path / "P" / "t1", t1)
    file = write_seg(tmp_path / "P" / "seg.dcm", t1, np.repeat(block(), 2, axis=0), algorithm="MANUAL")
    (patient,) = find_patients(tmp_path / "P")
    assert patient.masks == (file,)
    assert patient.why.endswith("by hand, on another series")
    mask = read_ground_truth(patient)
    assert mask is not None
    assert np.array_equal(mask.astype(bool), union())
    assert truth_cautions([patient]) == ()


def test_voxel_of_a_grid_with_other_axes_goes_where_its_affine_says_and_nowhere_outside() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    array = np.zeros((4, 5, 6), dtype=np.bool_)
    array[3, 1, 2] = True
    turned = np.zeros((4, 4))
    turned[0, 2] = turned[1, 0] = turned[2, 1] = 2.0  # array axes are Y, Z, X
    turned[3, 3] = 1.0
    mask = _nearest(array, turned, (6, 4, 5), affine)
    assert np.argwhere(mask).tolist() == [[2, 3, 1]]
    assert _nearest(array, turned, (2, 2, 1), affine @ np.diag([-1.0, 1, 1, 1])).sum() == 0


def test_corrected_seg_comes_before_that_of_an_algorithm_and_of_two_equals_none_is_taken(tmp_path: Path) -> None:
    source = flair()
    write(tmp_path / "P" / "flair", source)
    write_seg(tmp_path / "P" / "a.dcm", source)
    by_hand = write_seg(tmp_path / "P" / "b.dcm", source, description="radiologist 11 corrected segmentation")
    (patient,) = find_patients(tmp_path / "P")
    assert patient.masks == (by_hand,)
    write_seg(tmp_path / "P" / "c.dcm", source, description="radiologist 3 corrected segmentation")
    (patient,) = find_patients(tmp_path / "P")
    assert patient.masks == ()
    assert patient.why.endswith("2 DICOM SEGs of the tumour lie beside it and none is taken")


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"kinds": (BRAIN,)}, "a DICOM SEG lies beside it and names no tumour"),
        ({"description": "FLAIR abnormality, brainseg, research use only"}, "damaged, or written by brainseg"),
        ({"frame": "1.2.3.99"}, "a DICOM SEG lies beside it in another frame of reference"),
        ({"damaged": True}, "damaged, or written by brainseg"),
    ],
)
def test_seg_that_is_no_ground_truth_is_not_taken_and_why_says_so(
    tmp_path: Path, says: dict[str, Any], why: str
) -> None:
    source = flair()
    write(tmp_path / "P" / "flair", source)
    frame, damaged = says.pop("frame", None), says.pop("damaged", False)
    file = write_seg(tmp_path / "P" / "seg.dcm", source, **says)
    if frame:
        edited(file, lambda ds: setattr(ds, "FrameOfReferenceUID", frame))
    if damaged:
        edited(file, lambda ds: setattr(ds, "SegmentSequence", [pydicom.Dataset()]))
    (patient,) = find_patients(tmp_path / "P")
    assert patient.masks == ()
    assert why in patient.why
    assert read_ground_truth(patient) is None


def test_damaged_or_tumourless_seg_given_to_the_reader_is_refused(tmp_path: Path) -> None:
    source = flair()
    grid = Grid((5, 6, 8), np.eye(4))
    file = write_seg(tmp_path / "seg.dcm", source, kinds=(BRAIN,))
    with pytest.raises(InputError, match="has no segment that names a tumour"):
        read_dicom_seg(file, grid)
    (image, *_) = write(tmp_path / "images", source)
    with pytest.raises(InputError, match="is not a DICOM SEG that can be read"):
        read_dicom_seg(image, grid)
    whole = write_seg(tmp_path / "cut.dcm", source)
    edited(whole, lambda ds: setattr(ds, "PixelData", ds.PixelData[:4]))
    with pytest.raises(InputError, match=r"cut\.dcm: is a damaged DICOM SEG"):
        read_dicom_seg(whole, grid)
    edited(whole, lambda ds: setattr(ds, "Rows", 60000))
    edited(whole, lambda ds: setattr(ds, "Columns", 60000))
    with pytest.raises(InputError, match="60000 x 60000 voxels, more than"):
        read_dicom_seg(whole, grid)


def test_evaluate_scores_predictions_against_the_seg_and_says_who_drew_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import nibabel

    source = flair()
    write(tmp_path / "data" / "P" / "flair", source)
    write_seg(tmp_path / "data" / "P" / "seg.dcm", source)
    case = read_patient(find_patients(tmp_path / "data" / "P")[0])
    predicted = union()
    predicted[..., 2] = False  # 4 of 12 voxels missed: Dice 2 * 8 / (8 + 12)
    (tmp_path / "masks" / "data").mkdir(parents=True)
    nibabel.save(
        nibabel.Nifti1Image(predicted.astype(np.uint8), case.affine), tmp_path / "masks" / "data" / "mask.nii.gz"
    )
    code = brainseg(
        "evaluate", "--data", tmp_path / "data", "--predictions", tmp_path / "masks", "--out", tmp_path / "out", "-q"
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "| Dice | 0.800 |" in out
    assert "Caution: an algorithm drew 1 of the 1 masks, and against those the figures say how alike" in out


def test_sagittal_flair_with_its_seg_keeps_its_voxels(tmp_path: Path) -> None:
    source = flair(orientation=SAGITTAL)
    write(tmp_path / "P", source)
    write_seg(tmp_path / "P" / "seg.dcm", source)
    (patient,) = find_patients(tmp_path / "P")
    mask = read_ground_truth(patient)
    case = read_patient(patient)
    assert mask is not None
    inside = {float(value) for value in voxels(*SHAPE)[block().any(axis=-1)]}
    assert {float(value) for value in case.image[1][mask == 1]} == inside
