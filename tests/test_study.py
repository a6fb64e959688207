"""What is found under a path: patients by layout, names, and the series chosen for each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from empty import touch

from brainseg.errors import InputError, UsageError
from brainseg.study import Patient, find_patients
from brainseg.study.names import natural, safe_name, unique
from brainseg.study.volumes import Named


def kaggle(root: Path, patient: str, slices: int = 12) -> Path:
    for i in range(1, slices + 1):
        touch(root, f"{patient}/{patient}_{i}.tif", f"{patient}/{patient}_{i}_mask.tif")
    return root


def names(patients: list[Patient]) -> list[str]:
    return [patient.name for patient in patients]


# --- paths


def test_path_that_does_not_exist_is_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: does not exist"):
        find_patients(tmp_path / "nowhere")


def test_folder_without_images_is_refused_with_its_count(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 2 files, none of which can be read; give a folder of TIFF"):
        find_patients(touch(tmp_path, "1.png", "2.jpg"))


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an image that can be read"):
        find_patients(touch(tmp_path, "notes.txt") / "notes.txt")


def test_link_to_a_folder_above_does_not_loop(tmp_path: Path) -> None:
    kaggle(tmp_path, "A")
    (tmp_path / "A" / "up").symlink_to(tmp_path)
    assert names(find_patients(tmp_path)) == ["A"]


# --- TIFF


def test_kaggle_tree_gives_a_patient_a_folder_with_slices_in_numerical_order(tmp_path: Path) -> None:
    kaggle(tmp_path, "TCGA_CS_4941_19960909")
    kaggle(tmp_path, "TCGA_CS_4942_19970222", slices=3)
    touch(tmp_path, "data.csv")
    first, second = find_patients(tmp_path)
    assert (first.name, second.name) == ("TCGA_CS_4941_19960909", "TCGA_CS_4942_19970222")
    assert first.path == tmp_path / "TCGA_CS_4941_19960909"
    assert [f.name for f in first.flair.files] == [f"TCGA_CS_4941_19960909_{i}.tif" for i in range(1, 13)]
    assert [f.name for f in first.masks] == [f"TCGA_CS_4941_19960909_{i}_mask.tif" for i in range(1, 13)]
    assert first.flair.layout == "tiff"
    assert first.certain is False
    assert first.problem is None


def test_patient_folder_is_named_after_itself_also_as_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle(tmp_path, "P7")
    assert names(find_patients(tmp_path / "P7")) == ["P7"]
    monkeypatch.chdir(tmp_path / "P7")
    assert names(find_patients(Path())) == ["P7"]


def test_images_and_masks_folders_are_one_patient_named_after_their_parent(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        touch(tmp_path, f"P1/images/{i + 90}.tif")
    for kind in ("images", "masks"):
        for i in range(1, 11):
            touch(tmp_path, f"P2/{kind}/{i}.tif")
    for path in (tmp_path / "P2", tmp_path / "P2" / "images"):
        (patient,) = find_patients(path)
        assert patient.name == "P2"
        assert [f.name for f in patient.flair.files] == [f"{i}.tif" for i in range(1, 11)]
        assert [str(f.relative_to(tmp_path)) for f in patient.masks] == [f"P2/masks/{i}.tif" for i in range(1, 11)]


def test_images_and_masks_may_mirror_a_tree_of_patients(tmp_path: Path) -> None:
    for i in (1, 2):
        touch(tmp_path, f"images/A/{i}.tif", f"masks/A/m{i}.tif", f"images/B/{i}.tif", f"masks/B/m{i}.tif")
    patients = find_patients(tmp_path)
    assert names(patients) == ["A", "B"]
    assert [len(p.masks) for p in patients] == [2, 2]


def test_flat_folder_of_several_patients_is_told_apart_by_prefix(tmp_path: Path) -> None:
    for patient in ("A_1", "B_1"):
        for i in (1, 2):
            touch(tmp_path, f"{patient}_{i}.tif", f"{patient}_{i}_mask.tif")
    patients = find_patients(tmp_path)
    assert names(patients) == ["A_1", "B_1"]
    assert [len(p.masks) for p in patients] == [2, 2]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["p_1.tif", "p_9.tif"], "slices 2 to 8 are missing between p_1.tif and p_9.tif; "),
        (["p_1.tif", "p_1.tiff"], "slice 1 is there twice (p_1.tif and p_1.tiff); "),
        (["p_1_mask.tif", "p_2_mask.tif"], "mask p_1_mask.tif has no image; "),
        (["p_1.tif", "p_2.tif", "overview.tif"], "overview.tif: has no slice number, among 2 slices that have one; "),
    ],
)
def test_tiff_folder_that_does_not_add_up_is_refused(tmp_path: Path, files: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        find_patients(touch(tmp_path, *files))
    assert says in str(caught.value)


def test_one_bad_patient_of_several_carries_its_problem_and_the_others_are_found(tmp_path: Path) -> None:
    kaggle(tmp_path, "good")
    touch(tmp_path, "bad/bad_1.tif", "bad/bad_3.tif")
    bad, good = find_patients(tmp_path)
    assert (bad.name, good.name) == ("bad", "good")
    assert "slice 2 is missing" in str(bad.problem)
    assert good.problem is None


def test_single_tiff_is_a_patient_with_its_mask(tmp_path: Path) -> None:
    touch(tmp_path, "p_5.tif", "p_5_mask.tif", "p_6.tif")
    (patient,) = find_patients(tmp_path / "p_5.tif")
    assert (patient.name, len(patient.flair.files), patient.masks) == ("p_5", 1, (tmp_path / "p_5_mask.tif",))


def test_own_results_hidden_files_and_macos_leftovers_are_passed_over(tmp_path: Path) -> None:
    kaggle(tmp_path, "A")
    touch(tmp_path, "out/run.json", "out/cohort.csv", "out/A/A_1_mask.tif")
    (tmp_path / "out" / "A").rename(tmp_path / "out" / "x")
    touch(tmp_path, "A/._A_1.tif", "__MACOSX/A_1.tif", ".A.part/A_1.tif", "out/cohort.csv")
    assert "A" in names(find_patients(tmp_path))


def test_a_scan_beside_its_own_results_is_found_and_they_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "one/flair.nii.gz", "one/.brainseg.lock", "one/run.json", "one/cohort.csv")
    touch(tmp_path, "one/flair/case.json", "one/flair/probability.nii.gz", "two/flair.nii.gz")
    assert names(find_patients(tmp_path)) == ["one", "two"]
    assert len(find_patients(tmp_path / "one")) == 1


# --- names


def test_names_are_safe_unique_and_numbered() -> None:
    assert safe_name("Müller, Jürgen (3)") == "Muller_Jurgen_3"
    assert safe_name("../..") == "case"
    assert safe_name("患者") == "case"
    assert unique(["a", "A", "a-2", "a"]) == ["a", "A-2", "a-2-2", "a-3"]
    assert sorted(["s10", "s2", "S1"], key=natural) == ["S1", "s2", "s10"]


def test_patients_of_one_name_in_different_folders_are_told_apart(tmp_path: Path) -> None:
    for site in ("north", "south"):
        kaggle(tmp_path / site, "P1", slices=2)
    kaggle(tmp_path / "south", "P2", slices=2)
    assert names(find_patients(tmp_path)) == ["north_P1", "P2", "south_P1"]


def test_unicode_folders_give_unique_ascii_names(tmp_path: Path) -> None:
    for folder in ("患者一", "患者二", "Zoë 1"):
        touch(tmp_path, f"{folder}/1.tif")
    found = names(find_patients(tmp_path))
    assert len(set(found)) == 3
    assert all(name.isascii() for name in found)
    assert "Zoe_1" in found


# --- volumes


@pytest.mark.parametrize(
    ("name", "role", "prefix"),
    [
        ("flair.nii.gz", "flair", ""),
        ("FLAIR.nii", "flair", ""),
        ("p1_flair.nii.gz", "flair", "p1"),
        ("p1_t2_flair.nii.gz", "flair", "p1"),
        ("p1_3D_T2FLAIR.mha", "flair", "p1"),
        ("sub_ax_dark-fluid.nrrd", "flair", "sub"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "flair", "BraTS-GLI-00000-000"),
        ("UPENN-GBM-00001_11_T1GD.nii.gz", "post", "UPENN-GBM-00001_11"),
        ("flair_to_t1.nii.gz", "flair", ""),
        ("p1_t1_flair.nii.gz", "pre", "p1"),
        ("t1.nii.gz", "pre", ""),
        ("T1pre.nii.gz", "pre", ""),
        ("sub-1_T1w.nii.gz", "pre", "sub-1"),
        ("t1_no_contrast.nii.gz", "pre", ""),
        ("t1c.nii.gz", "post", ""),
        ("t1ce.nii.gz", "post", ""),
        ("T1_Gd.nii.gz", "post", ""),
        ("t1post.nii.gz", "post", ""),
        ("sub-1_ce-gadolinium_T1w.nii.gz", "post", "sub-1"),
        ("p1_contrast.nii.gz", "post", "p1"),
        ("t2.nii.gz", "other", ""),
        ("p1_seg.nii.gz", "mask", "p1"),
        ("p1_flair_mask.nii.gz", "mask", "p1"),
        ("tumor_segmentation.nii.gz", "mask", "tumor"),
        ("flair_brain_mask.nii.gz", "other", "flair_brain"),
        ("p1_brain_parenchyma_segmentation.nii.gz", "other", "p1_brain_parenchyma"),
        ("sub-1_space-FLAIR_desc-lesion_dseg.nii.gz", "mask", "sub-1_space-FLAIR_desc-lesion"),
        ("UPENN-GBM-00001_11_segm.nii.gz", "mask", "UPENN-GBM-00001_11"),
        ("VSD.Brain_3more.XX.O.OT.54517.mha", "mask", "VSD.Brain_3more.XX.O"),
        ("p1_msk.nii.gz", "mask", "p1"),
        ("wmh.nii.gz", "mask", ""),
        ("lesion_FLAIR.nii.gz", "mask", ""),
        ("lesion_01_FLAIR.nii.gz", "flair", "lesion_01"),
        ("ples_lpa_mFLAIR.nii.gz", "mask", ""),
        ("p1_t2_space-flair.nii.gz", "flair", "p1"),
        ("T1_to_FLAIR.nii.gz", "pre", ""),
        ("p1_T1ce_reg_FLAIR.nii.gz", "post", "p1"),
        ("p1_T2_in_FLAIR.nii.gz", "other", "p1"),
        ("sub-01_space-FLAIR_T1w.nii.gz", "pre", "sub-01_space-FLAIR"),
        ("sub-01_ses-post_T1w.nii.gz", "pre", "sub-01_ses-post"),
        ("sub-01_ses-pre_ce-gadolinium_T1w.nii.gz", "post", "sub-01_ses-pre"),
        ("p1_t1_km.nii.gz", "post", "p1"),
        ("p1_t1_ohne_km.nii.gz", "pre", "p1"),
        ("p1_t1cor.nii.gz", "unknown", "p1_t1cor"),
        ("Pat-C-01_T1.nii.gz", "pre", "Pat-C-01"),
        ("p1_t1_c.nii.gz", "post", "p1"),
        ("scan.nii.gz", "unknown", "scan"),
    ],
)
def test_file_name_says_what_a_volume_holds(name: str, role: str, prefix: str) -> None:
    named = Named.of(Path(name))
    assert (named.role, named.prefix) == (role, prefix)


def test_folder_of_one_patients_volumes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"TCGA-FG-6692/{n}.nii.gz" for n in ("flair", "t1", "t1c", "t2", "flair_seg")))
    (patient,) = find_patients(tmp_path)
    assert patient.name == "TCGA-FG-6692"
    assert patient.pre is not None
    assert patient.post is not None
    assert [s.files[0].name for s in (patient.flair, patient.pre, patient.post)] == [
        "flair.nii.gz",
        "t1.nii.gz",
        "t1c.nii.gz",
    ]
    assert [m.name for m in patient.masks] == ["flair_seg.nii.gz"]
    assert patient.certain is False
    assert patient.why == "its file name says FLAIR"
    assert patient.skipped == 1


def test_t1_processed_as_the_flair_was_is_preferred(tmp_path: Path) -> None:
    (patient,) = find_patients(touch(tmp_path, "flair_brain.nii.gz", "t1_brain.nii.gz", "t1.nii.gz", "t1c_reg.nii.gz"))
    assert patient.pre is not None
    assert patient.pre.files[0].name == "t1_brain.nii.gz"
    assert patient.post is not None
    assert patient.post.files[0].name == "t1c_reg.nii.gz"


def test_plainer_of_two_flairs_is_taken_and_said(tmp_path: Path) -> None:
    (patient,) = find_patients(touch(tmp_path, "P_FLAIR.nii.gz", "P_FLAIR_bias.nii.gz", "P_T1.nii.gz"))
    assert patient.flair.files[0].name == "P_FLAIR.nii.gz"
    assert "P_FLAIR_bias.nii.gz" in patient.why


def test_several_flairs_of_different_prefix_are_several_patients(tmp_path: Path) -> None:
    touch(tmp_path, "p1_flair.nii.gz", "p2_flair.nii.gz", "p1_t1.nii.gz", "p2_mask.nii.gz", "atlas.nii.gz")
    first, second = find_patients(tmp_path)
    assert (first.name, second.name) == ("p1", "p2")
    assert first.pre is not None
    assert second.pre is None
    assert [m.name for m in second.masks] == ["p2_mask.nii.gz"]


def test_a_t1_of_another_patient_is_nobodys(tmp_path: Path) -> None:
    """Neither the only FLAIR's, nor silently left out: its patient lacks a FLAIR."""
    touch(tmp_path, "P1_flair.nii.gz", "P1_t1.nii.gz", "P2_t1ce.nii.gz")
    first, second = find_patients(tmp_path)
    assert (first.name, first.post, first.problem) == ("P1", None, None)
    assert first.pre is not None
    assert second.name == "P2"
    assert "no file name says FLAIR: P2_t1ce.nii.gz" in str(second.problem)


def test_a_patient_without_a_flair_among_others_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{p}_{kind}.nii.gz" for p in ("001", "002") for kind in ("flair", "t1")), "P3_t1.nii.gz")
    found = find_patients(tmp_path)
    assert names(found) == ["001", "002", "P3"]
    assert [patient.problem is None for patient in found] == [True, True, False]


def test_numbers_of_series_are_no_names_of_patients(tmp_path: Path) -> None:
    """As converters write them; where a number stands for the patient, another's T1 is not taken."""
    (patient,) = find_patients(touch(tmp_path / "a", "P1_5_FLAIR.nii.gz", "P1_6_T1.nii.gz", "P1_7_T1_Gd.nii.gz"))
    assert patient.pre is not None
    assert patient.post is not None
    found = find_patients(touch(tmp_path / "b", "001_flair.nii.gz", "001_t1.nii.gz", "002_t1ce.nii.gz"))
    assert [(one.name, one.problem is None) for one in found] == [("001", True), ("002", False)]
    assert found[0].post is None


def test_a_flair_with_its_own_name_for_the_sequence_keeps_its_t1(tmp_path: Path) -> None:
    (patient,) = find_patients(touch(tmp_path, "AX_T2_FLAIR.nii.gz", "SAG_T1.nii.gz", "T1_post.nii.gz"))
    assert patient.pre is not None
    assert patient.post is not None


def test_a_folder_for_each_sequence_is_one_patient(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        touch(tmp_path, *(f"{patient}/{kind}/{patient}.nii.gz" for kind in ("FLAIR", "T1", "T1GD", "T2")))
    first, second = find_patients(tmp_path)
    assert (first.name, second.name) == ("P1", "P2")
    assert first.problem is None
    assert first.pre is not None
    assert first.post is not None
    assert [one.files[0].parent.name for one in (first.flair, first.pre, first.post)] == ["FLAIR", "T1", "T1GD"]


def test_folders_of_many_patients_by_sequence_are_not_one_patient(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/P{n}_{kind}.nii.gz" for kind in ("FLAIR", "T1") for n in (1, 2)))
    assert names([one for one in find_patients(tmp_path) if one.problem is None]) == ["P1", "P2"]


def test_masks_in_folders_of_their_own_are_no_patients(tmp_path: Path) -> None:
    for folder in ("labels", "masks", "labelsTr", "images_segm"):
        touch(tmp_path, "images/P1_FLAIR.nii.gz", f"{folder}/P1_FLAIR.nii.gz")
    assert names(find_patients(tmp_path)) == ["P1"]
    touch(tmp_path / "bids", "rawdata/sub-1/anat/sub-1_FLAIR.nii.gz", "derivatives/x/sub-1/anat/sub-1_FLAIR.nii.gz")
    assert names(find_patients(tmp_path / "bids")) == ["sub-1"]


def test_a_folder_that_may_not_be_read_costs_only_its_own_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{name}/flair.nii.gz" for name in ("P1", "P2", "P3")))
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "P2":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_patients(tmp_path)
    assert names(found) == ["P1", "P2", "P3"]
    assert [patient.problem is None for patient in found] == [True, False, True]
    assert "P2: cannot be read (Permission denied); check its permissions" in str(found[1].problem)


def test_results_that_were_never_finished_are_no_patients(tmp_path: Path) -> None:
    touch(tmp_path, "P1/flair.nii.gz", "results/.brainseg.lock", "results/P1/probability.nii.gz")
    assert names(find_patients(tmp_path)) == ["P1"]


def test_bids_tree_gives_a_patient_a_session(tmp_path: Path) -> None:
    for ses in ("01", "02"):
        for end in ("FLAIR", "T1w", "ce-gadolinium_T1w", "T2w"):
            touch(tmp_path, f"sub-7/ses-{ses}/anat/sub-7_ses-{ses}_{end}.nii.gz")
        touch(tmp_path, f"sub-7/ses-{ses}/func/sub-7_ses-{ses}_task-rest_bold.nii.gz")
    touch(tmp_path, "sub-8/anat/sub-8_FLAIR.nii.gz", "derivatives/x/sub-7/anat/sub-7_FLAIR.nii.gz")
    touch(tmp_path, "dataset_description.json")
    patients = find_patients(tmp_path)
    assert names(patients) == ["sub-7_ses-01", "sub-7_ses-02", "sub-8"]
    post = patients[0].post
    assert post is not None
    assert post.files[0].name == "sub-7_ses-01_ce-gadolinium_T1w.nii.gz"
    assert all(patient.problem is None for patient in patients)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a.nii.gz", "b.nii.gz"], "no file name says FLAIR: a.nii.gz, b.nii.gz; rename"),
        (["t1.nii.gz"], "no file name says FLAIR: t1.nii.gz; rename"),
        (["p_flair_a.nii.gz", "p_flair_b.nii.gz"], "several volumes say FLAIR: p_flair_a.nii.gz, p_flair_b.nii.gz; "),
    ],
)
def test_volumes_without_one_flair_are_refused_by_list(tmp_path: Path, files: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        find_patients(touch(tmp_path, *files))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("file", "layout"), [("P.1.nii.gz", "nifti"), ("P.1.nii", "nifti"), ("P.1.mha", "itk"), ("P.1.nrrd", "itk")]
)
def test_single_volume_is_a_patient_of_its_stem(tmp_path: Path, file: str, layout: str) -> None:
    (patient,) = find_patients(touch(tmp_path, file) / file)
    assert (patient.name, patient.flair.layout, patient.certain) == ("P.1", layout, False)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_linked_files_are_found(tmp_path: Path) -> None:
    kaggle(tmp_path / "store", "A", slices=2)
    (tmp_path / "P").mkdir()
    for file in (tmp_path / "store" / "A").iterdir():
        (tmp_path / "P" / file.name).symlink_to(file)
    assert len(find_patients(tmp_path / "P")[0].flair.files) == 2
