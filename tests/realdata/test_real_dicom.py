"""The real T1 series: geometry equal to its own tags and to ITK's, voxels equal to ITK's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import itk_image
from seg_judges import JUDGES, errors_of, marker, needs_dciodvfy, written

from brainseg.errors import NotFlairError
from brainseg.readers import read_patient
from brainseg.readers.archive import opened
from brainseg.readers.dicom import read_dicom
from brainseg.study import Patient, find_patients
from brainseg.study.headers import quiet

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ZIP = DATA / "dicom" / "t1_structural.zip"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not ZIP.is_file(), reason="the real data set (../shared/data) is not here"),
]


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    with opened(ZIP) as folder:
        (found,) = find_patients(folder, name=ZIP.stem)
        yield found


def test_zip_holds_one_patient_whose_series_does_not_say_flair(patient: Patient) -> None:
    assert patient.name == "t1_structural"
    assert len(patient.flair.files) == 48
    assert patient.certain is False
    assert patient.why == "its description does not say FLAIR"
    with pytest.raises(NotFlairError):
        read_dicom(patient.flair)


def test_affine_equals_the_tags_of_every_slice(patient: Patient) -> None:
    volume = read_dicom(patient.flair, force=True)
    assert volume.array.shape == (274, 384, 48)
    for z, file in enumerate(volume.files):
        with quiet():
            ds = pydicom.dcmread(file)
            row, column = np.reshape([float(v) for v in ds.ImageOrientationPatient], (2, 3))
            down, across = (float(v) for v in ds.PixelSpacing)
            position = np.array([float(v) for v in ds.ImagePositionPatient])
        for i, j in ((0, 0), (273, 0), (0, 383), (273, 383)):
            tagged = position + i * across * row + j * down * column
            ours = (LPS @ volume.affine @ [i, j, z, 1])[:3]
            assert np.linalg.norm(tagged - ours) < 1e-3
        np.testing.assert_array_equal(volume.array[:, :, z].T, ds.pixel_array)


def test_itk_agrees_on_geometry_and_voxels(patient: Patient) -> None:
    volume = read_dicom(patient.flair, force=True)
    image = itk_image(patient.flair.files[0].parent)
    assert tuple(image.GetLargestPossibleRegion().GetSize()) == volume.array.shape
    theirs = np.eye(4)
    theirs[:3, :3] = np.asarray(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
    theirs[:3, 3] = list(image.GetOrigin())
    for corner in np.ndindex(2, 2, 2):
        voxel = np.append(np.array(corner) * (np.array(volume.array.shape) - 1), 1)
        assert np.linalg.norm((LPS @ theirs @ voxel - volume.affine @ voxel)[:3]) < 1e-3
    np.testing.assert_array_equal(np.asarray(image).transpose(2, 1, 0), volume.array)


def test_a_seg_of_it_is_read_back_voxel_for_voxel_by_every_judge(patient: Patient, tmp_path: Path) -> None:
    case = read_patient(patient, force=True)
    mask = marker(case.shape)
    mask[100:130, 200:220, 20:24] = 1
    written(case, tmp_path / "seg.dcm", mask)
    for judge in JUDGES:
        np.testing.assert_array_equal(judge(tmp_path / "seg.dcm", case), mask, err_msg=judge.__name__)


@needs_dciodvfy
def test_a_seg_of_it_has_no_error_although_its_source_has(patient: Patient, tmp_path: Path) -> None:
    case = read_patient(patient, force=True)
    for name, per_lesion in (("one", False), ("lesions", True)):
        written(case, tmp_path / f"{name}.dcm", per_lesion=per_lesion)
        assert errors_of(tmp_path / f"{name}.dcm") == set()
    assert len(errors_of(case.files[0])) > 0
