"""The synthetic patient: known volumes, the same head on every grid, and the same voxels in every format."""

from __future__ import annotations

from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from scipy import ndimage

from brainseg.case import FLAIR
from brainseg.phantom import (
    Phantom,
    make_phantom,
    write_phantom_dicom,
    write_phantom_nifti,
    write_phantom_tiff,
)

SMALL = (64, 64, 16)
SMALL_MM = (3.6, 3.6, 9.0)
GRIDS = {
    "axial": {"shape": SMALL, "spacing_mm": SMALL_MM, "axes": "LPS"},
    "flipped": {"shape": SMALL, "spacing_mm": SMALL_MM, "axes": "RAS"},
    "sagittal": {"shape": (64, 64, 40), "spacing_mm": (3.6, 3.6, 4.0), "axes": "PIL"},
    "coronal": {"shape": (64, 64, 30), "spacing_mm": (3.6, 3.6, 6.0), "axes": "LIP"},
    "oblique": {"shape": (64, 64, 32), "spacing_mm": (3.6, 3.6, 5.0), "axes": "LPS", "rotation_deg": (17, -11, 8)},
}


@pytest.fixture(scope="module")
def small() -> Phantom:
    return make_phantom(shape=SMALL, spacing_mm=SMALL_MM, lesions=2)


@pytest.fixture(scope="module", params=GRIDS)
def grid(request: pytest.FixtureRequest) -> Phantom:
    return make_phantom(lesions=2, noise=0, **GRIDS[request.param])


def at(phantom: Phantom, array: np.ndarray, point_mm: tuple[float, float, float]) -> float:
    """Value of `array` at a point of the world, linear between voxels."""
    index = np.linalg.inv(phantom.affine) @ [*point_mm, 1]
    return float(ndimage.map_coordinates(array.astype(float), index[:3, None], order=1, mode="nearest")[0])


def mask_ml(phantom: Phantom) -> float:
    return float(phantom.mask.sum() * np.prod(phantom.spacing_mm) / 1000)


@pytest.mark.parametrize(("lesions", "volume_ml"), [(0, 0), (1, 30), (2, 36)])
def test_mask_has_the_declared_volume(lesions: int, volume_ml: float) -> None:
    phantom = make_phantom(shape=(96, 128, 40), spacing_mm=(1.8, 1.8, 4.0), lesions=lesions)
    assert phantom.volume_ml == pytest.approx(volume_ml)
    assert mask_ml(phantom) == pytest.approx(volume_ml, rel=0.03)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_seed_has_its_lesion_where_and_as_large_as_declared(seed: int) -> None:
    phantom = make_phantom(shape=(40, 40, 40), spacing_mm=(3, 3, 3), seed=seed)
    assert mask_ml(phantom) == pytest.approx(30, rel=0.03)
    centroid = phantom.affine @ [*np.argwhere(phantom.mask).mean(axis=0), 1]
    assert centroid[:3] == pytest.approx(phantom.lesions[0].centre_mm, abs=1)


def test_growth_scales_the_volume_and_keeps_the_head() -> None:
    before, after = (make_phantom(shape=(40, 40, 40), spacing_mm=(3, 3, 3), noise=0, growth=g) for g in (1, 1.5))
    assert after.volume_ml == 45
    assert mask_ml(after) == pytest.approx(45, rel=0.03)
    left = before.affine[0, 0] * np.arange(40) + before.affine[0, 3] < -8
    np.testing.assert_array_equal(before.image[:, left], after.image[:, left])


def test_lesions_lie_on_the_right_on_every_grid(grid: Phantom) -> None:
    assert mask_ml(grid) == pytest.approx(36, rel=0.08)
    world = grid.affine[:3, :3] @ np.argwhere(grid.mask).T + grid.affine[:3, 3:]
    assert world[0].min() > 0
    for lesion in grid.lesions:
        x, y, z = lesion.centre_mm
        assert x > 15
        assert at(grid, grid.mask, (x, y, z)) > 0.5
        assert at(grid, grid.mask, (-x, y, z)) == 0


def test_every_grid_shows_the_same_head(grid: Phantom, small: Phantom) -> None:
    first = small.lesions[0].centre_mm
    white = (-24.0, -12.0, 27.0)
    air = (60.0, 100.0, 40.0)
    assert at(grid, grid.image[FLAIR], first) > 1.5 * at(grid, grid.image[FLAIR], white)
    assert at(grid, grid.image[0], first) < 0.85 * at(grid, grid.image[0], white)
    assert at(grid, grid.image[FLAIR], air) == 0


def test_same_world_point_has_the_same_signal_on_grids_that_share_it() -> None:
    axial = make_phantom(shape=(33, 33, 33), spacing_mm=(4, 4, 4), axes="LPS", noise=0)
    sagittal = make_phantom(shape=(33, 33, 33), spacing_mm=(4, 4, 4), axes="PIR", noise=0)
    turned = sagittal.image.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1]  # P, I, R to L, P, S
    assert np.abs(axial.image - turned).max() <= 1  # rounding
    np.testing.assert_array_equal(axial.mask, sagittal.mask.transpose(2, 0, 1)[::-1, :, ::-1])


def test_contrast_is_that_of_the_sequences() -> None:
    phantom = make_phantom(shape=(80, 100, 23), spacing_mm=(2, 2, 3), noise=0)
    points = {"white": (-24.0, -12.0, 27.0), "csf": (-9.5, 0.0, 18.0), "deep grey": (-12.0, -16.0, 2.0)}
    signal = {
        tissue: [at(phantom, phantom.image[channel], point) for channel in range(3)] for tissue, point in points.items()
    }
    pre, flair, _ = range(3)
    assert signal["white"][pre] > signal["deep grey"][pre] > 2 * signal["csf"][pre]
    assert signal["deep grey"][flair] > signal["white"][flair] > 3 * signal["csf"][flair]


def test_sinus_enhances_after_contrast() -> None:
    phantom = make_phantom(shape=(128, 128, 12), spacing_mm=(1.8, 1.8, 5.0))
    pre, _, post = phantom.image
    midline = np.abs(phantom.affine[0, 0] * np.arange(128) + phantom.affine[0, 3]) < 4
    assert (post - pre)[midline].max() > 60


def test_values_are_whole_grey_levels(small: Phantom) -> None:
    assert small.image.dtype == np.float32
    assert small.image.shape == (3, *SMALL)
    assert small.mask.dtype == np.uint8
    assert small.affine.dtype == np.float64
    assert np.array_equal(small.image, np.rint(small.image))
    assert 0 <= small.image.min() < 1 < 150 < small.image.max() <= 255


def test_same_seed_gives_the_same_patient_and_another_seed_another() -> None:
    first, again, other = (make_phantom(shape=(32, 32, 8), spacing_mm=(7, 7, 18), seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.lesions == again.lesions
    assert first.lesions != other.lesions
    assert not np.array_equal(first.mask, other.mask)


def test_noise_in_air_is_rician() -> None:
    phantom = make_phantom(shape=(32, 32, 4), spacing_mm=(7, 7, 1), noise=4)
    corner = phantom.image[:, :4, :4]
    assert corner.mean() == pytest.approx(4 * np.sqrt(np.pi / 2), rel=0.2)  # Rayleigh


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"axes": "LPP"}, "axes"),
        ({"axes": "lps"}, "axes"),
        ({"lesions": 3}, "lesions"),
        ({"growth": 3}, "growth"),
        ({"noise": -1}, "noise"),
        ({"spacing_mm": (1, 0, 1)}, "spacing_mm"),
    ],
)
def test_arguments_that_make_no_phantom_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_phantom(**wrong)  # type: ignore[arg-type]


def test_tiff_has_the_layout_of_the_data_set(small: Phantom, tmp_path: Path) -> None:
    folder = write_phantom_tiff(small, tmp_path)
    assert folder == tmp_path / "phantom"
    assert len(list(folder.iterdir())) == 2 * SMALL[2]
    for n in range(1, SMALL[2] + 1):
        pixels = tifffile.imread(folder / f"phantom_{n}.tif")
        mask = tifffile.imread(folder / f"phantom_{n}_mask.tif")
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == mask.dtype == np.uint8
        np.testing.assert_array_equal(pixels.transpose(2, 1, 0), small.image[..., n - 1])
        np.testing.assert_array_equal(mask.T, small.mask[..., n - 1] * 255)
    _, columns = np.nonzero(np.any([tifffile.imread(f) for f in folder.glob("*_mask.tif")], axis=0))
    assert columns.max() < 32  # the patient's right is at the left of the picture


@pytest.mark.parametrize("turn", [{"axes": "RAS"}, {"rotation_deg": (0, 0, 5)}])
def test_tiff_refuses_a_grid_it_cannot_mean(turn: dict[str, object], tmp_path: Path) -> None:
    phantom = make_phantom(shape=(16, 16, 4), spacing_mm=(14, 14, 40), lesions=0, **turn)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LPS"):
        write_phantom_tiff(phantom, tmp_path)


def test_nifti_holds_image_mask_and_both_affines(grid: Phantom, tmp_path: Path) -> None:
    folder = write_phantom_nifti(grid, tmp_path, "patient")
    assert sorted(f.name for f in folder.iterdir()) == ["flair.nii.gz", "flair_mask.nii.gz", "t1.nii.gz", "t1c.nii.gz"]
    for channel, stem in enumerate(("t1", "flair", "t1c")):
        image = nibabel.load(folder / f"{stem}.nii.gz")
        assert image.get_data_dtype() == np.int16
        np.testing.assert_array_equal(image.get_fdata(), grid.image[channel])
    mask = nibabel.load(folder / "flair_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), grid.mask)
    for affine, code in (mask.get_sform(coded=True), mask.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, grid.affine, atol=1e-4)


def test_dicom_geometry_and_voxels_agree_with_highdicom(grid: Phantom, tmp_path: Path) -> None:
    folder = write_phantom_dicom(grid, tmp_path)
    for channel, series in enumerate(("T1_PRE", "FLAIR", "T1_POST")):
        volume = highdicom.get_volume_from_series([pydicom.dcmread(f) for f in sorted((folder / series).iterdir())])
        array = np.asarray(volume.array)
        lps = np.array(volume.affine)  # (slice, row, column)
        if np.linalg.norm(lps[:3, 0] / -grid.spacing_mm[2] - [-1, -1, 1] * grid.affine[:3, 2] / grid.spacing_mm[2]) < 1:
            array = array[::-1]  # highdicom orders slices against row x column
            lps[:3, 3] += lps[:3, 0] * (array.shape[0] - 1)
            lps[:3, 0] *= -1
        ras = np.diag([-1, -1, 1, 1]) @ lps[:, [2, 1, 0, 3]]
        np.testing.assert_allclose(ras, grid.affine, atol=1e-3)
        np.testing.assert_array_equal(array.transpose(2, 1, 0), grid.image[channel])


def test_dicom_says_which_series_is_which(small: Phantom, tmp_path: Path) -> None:
    folder = write_phantom_dicom(small, tmp_path)
    flair, pre, post = (pydicom.dcmread(folder / series / "0001.dcm") for series in ("FLAIR", "T1_PRE", "T1_POST"))
    assert (flair.SeriesDescription, flair.EchoTime, flair.RepetitionTime, flair.InversionTime) == (
        "AX T2 FLAIR",
        120,
        9000,
        2500,
    )
    assert (pre.SeriesDescription, post.SeriesDescription) == ("AX T1 PRE", "AX T1 POST GAD")
    assert [("ContrastBolusAgent" in ds) for ds in (flair, pre, post)] == [False, False, True]
    assert flair.StudyInstanceUID == pre.StudyInstanceUID == post.StudyInstanceUID
    assert flair.FrameOfReferenceUID == pre.FrameOfReferenceUID
    assert len({ds.SeriesInstanceUID for ds in (flair, pre, post)}) == 3
    assert flair.PatientName == "Phantom^Head"
    assert flair.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian


def test_dicom_is_the_same_file_twice_and_unique_in_each_slice(small: Phantom, tmp_path: Path) -> None:
    first, second = (write_phantom_dicom(small, tmp_path / name) for name in "ab")
    files = sorted(first.rglob("*.dcm"))
    assert all(f.read_bytes() == (second / f.relative_to(first)).read_bytes() for f in files)
    assert len({pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID for f in files}) == 3 * SMALL[2]


def test_descending_dicom_numbers_slices_from_the_top(small: Phantom, tmp_path: Path) -> None:
    folder = write_phantom_dicom(small, tmp_path, descending=True)
    slices = [pydicom.dcmread(f, stop_before_pixels=True) for f in sorted((folder / "FLAIR").iterdir())]
    assert [ds.InstanceNumber for ds in slices] == list(range(1, SMALL[2] + 1))
    heights = [float(ds.ImagePositionPatient[2]) for ds in slices]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == pytest.approx(67.5)


def test_dicom_is_a_source_that_a_segmentation_can_refer_to(small: Phantom, tmp_path: Path) -> None:
    folder = write_phantom_dicom(small, tmp_path)
    sources = [pydicom.dcmread(f) for f in sorted((folder / "FLAIR").iterdir())]
    code = highdicom.sr.CodedConcept("49755003", "SCT", "Morphologically abnormal structure")
    described = highdicom.seg.SegmentDescription(1, "lesion", code, code, "MANUAL")
    seg = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=small.mask.transpose(2, 1, 0),
        segmentation_type="BINARY",
        segment_descriptions=[described],
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=9,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
        manufacturer="brainseg",
        manufacturer_model_name="test",
        software_versions="0",
        device_serial_number="0",
    )
    assert seg.StudyInstanceUID == sources[0].StudyInstanceUID
    assert int(seg.pixel_array.sum()) == int(small.mask.sum())
