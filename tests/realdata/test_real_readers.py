"""The real data set through the readers: one patient both as TIFF and as NIfTI, oblique volumes, ITK as the judge."""

from __future__ import annotations

import runpy
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest

from brainseg.case import Case
from brainseg.readers import read_case, read_ground_truth
from brainseg.readers.grid import resample_onto
from brainseg.readers.nifti import read_nifti
from brainseg.study import find_patients

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
VOLUMES = DATA / "volumes"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not VOLUMES.is_dir(), reason="the real data set (../shared/data) is not here"),
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of TCGA_DU_7294's TIFF slices, written as the data set's own script does."""
    pytest.importorskip("imagecodecs")
    target = tmp_path_factory.mktemp("kaggle_3m")
    name = "TCGA_DU_7294_19890104"
    runpy.run_path(str(DATA / "unpack.py"))["unpack"](DATA / "lgg" / f"{name}.zip", target)
    return target / name


def in_lps(case: Case) -> np.ndarray:
    """The FLAIR with columns to the patient's left, rows to posterior and slices to the head, turned by nibabel."""
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(case.image[1], case.affine))
    return np.asarray(turned.dataobj)[::-1, ::-1]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_tiff_and_nifti_of_one_patient_lie_the_same_way(slices: Path) -> None:
    # The volumes are skull-stripped, and their slices drift against the TIFF ones by up to 1.5 rows from slice 30 down
    # (they were straightened), so only the upper slices agree pixel for pixel.
    tiff = in_lps(read_case(slices))
    nifti = in_lps(read_case(VOLUMES / "TCGA-DU-7294"))[..., ::2]
    assert tiff.shape == nifti.shape == (256, 256, 34)
    brain = nifti > 0
    assert correlation(tiff[brain], nifti[brain]) > 0.9
    assert correlation(tiff[..., 29][brain[..., 29]], nifti[..., 29][brain[..., 29]]) > 0.99
    for axes in (0, 1, 2, (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        assert correlation(np.flip(tiff, axes)[brain], nifti[brain]) < 0.4
    assert correlation(tiff.transpose(1, 0, 2)[brain], nifti[brain]) < 0.4
    for offset in (-1, 1):
        assert correlation(np.roll(tiff, offset, 2)[brain], nifti[brain]) < 0.8


def test_tiff_patient_has_its_masks_and_three_sequences(slices: Path) -> None:
    case = read_case(slices)
    assert case.missing == ()
    assert case.notes == ()
    assert case.spacing_mm is None
    assert [file.stem.rsplit("_", 1)[1] for file in case.files] == [str(n) for n in range(1, 35)]
    truth = read_ground_truth(find_patients(slices)[0])
    assert truth is not None
    assert truth.shape == case.shape
    inside = truth == 1
    assert 0.001 < inside.mean() < 0.05
    head = case.image[1] > 20
    assert (
        case.image[1][inside].mean() > 1.3 * case.image[1][head & ~inside].mean()
    )  # bright in FLAIR, so not displaced


@pytest.mark.parametrize("name", ["TCGA-FG-6692", "TCGA-DU-7294"])
def test_nibabel_and_itk_agree_on_every_volume(name: str) -> None:
    for path in sorted((VOLUMES / name).glob("*.nii.gz")):
        volume = read_nifti(path)
        theirs = nibabel.load(path)
        np.testing.assert_allclose(volume.array, theirs.get_fdata(), rtol=1e-6)
        np.testing.assert_allclose(volume.affine, theirs.affine, atol=1e-4)
        image = itk.imread(path, itk.F)
        assert tuple(image.GetLargestPossibleRegion().GetSize()) == volume.array.shape
        for corner in np.ndindex(2, 2, 2):
            voxel = [int(v) for v in np.array(corner) * (np.array(volume.array.shape) - 1)]
            point = LPS @ volume.affine @ [*voxel, 1]
            assert np.linalg.norm(point[:3] - list(image.TransformIndexToPhysicalPoint(voxel))) < 1e-3


def test_oblique_t1_is_resampled_as_itk_does() -> None:
    folder = VOLUMES / "TCGA-FG-6692"
    flair, t1 = read_nifti(folder / "flair.nii.gz"), read_nifti(folder / "t1.nii.gz")
    x, y, z = flair.array.shape
    ours = resample_onto(t1, flair.affine, (x, y, z))
    resampler = itk.ResampleImageFilter.New(
        itk.imread(folder / "t1.nii.gz", itk.F),
        reference_image=itk.imread(folder / "flair.nii.gz", itk.F),
        use_reference_image=True,
    )
    resampler.Update()
    theirs = itk.array_from_image(resampler.GetOutput()).transpose(2, 1, 0)
    differs = np.abs(ours.array - theirs) > 1e-3 * t1.array.max()
    assert differs.mean() < 1e-4  # at the border of the field of view, where the last bit decides


def test_oblique_patient_has_three_sequences_on_the_grid_of_the_flair() -> None:
    case = read_case(VOLUMES / "TCGA-FG-6692")
    assert case.image.shape == (3, 208, 256, 26)
    assert case.missing == ()
    assert case.spacing_mm == pytest.approx((0.8984, 0.8984, 5.5), abs=1e-3)
    brain = case.image[1] > np.percentile(case.image[1], 75)
    for channel in (0, 2):
        inside = brain & (case.image[channel] > 0)
        assert inside.sum() > 0.85 * brain.sum()
