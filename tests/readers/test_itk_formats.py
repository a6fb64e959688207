"""MetaImage and NRRD to volumes: what ITK writes and where it puts a point, and every defect by its sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import itk
import numpy as np
import pytest

from brainseg.errors import InputError
from brainseg.readers.itk_formats import itk_grid, read_itk, read_itk_mask

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
VOXELS = np.arange(1, 5 * 6 * 7 + 1, dtype=np.int16).reshape(5, 6, 7)  # (X, Y, Z)
SPACING, ORIGIN = (0.5, 0.75, 3.0), (-10.0, 20.0, 30.0)
OBLIQUE = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
FORMATS = ["f.mha", "f.mhd", "f.nrrd", "f.nhdr"]


def image(array: np.ndarray = VOXELS, direction: np.ndarray = OBLIQUE) -> itk.Image:
    made = itk.image_from_array(np.ascontiguousarray(array.T))
    made.SetSpacing(SPACING)
    made.SetOrigin(ORIGIN)
    made.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    return made


def write(folder: Path, name: str, array: np.ndarray = VOXELS, *, packed: bool = False) -> Path:
    itk.imwrite(image(array), str(folder / name), compression=packed)
    return folder / name


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_voxels_and_geometry_are_those_that_itk_gives(tmp_path: Path, name: str, packed: bool) -> None:
    path = write(tmp_path, name, packed=packed)
    volume = read_itk(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.array.dtype == np.float32
    assert volume.spacing_mm == pytest.approx(SPACING)
    assert volume.files == (path,)
    made = image()
    for index in np.ndindex(2, 2, 2):
        voxel = np.array(index) * (np.array(VOXELS.shape) - 1)
        point = made.TransformIndexToPhysicalPoint([int(i) for i in voxel])
        np.testing.assert_allclose(LPS @ volume.affine @ [*voxel, 1], [*point, 1], atol=1e-6)
    grid = itk_grid(path)
    assert grid.shape == VOXELS.shape
    np.testing.assert_array_equal(grid.affine, volume.affine)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("name", ["f.mha", "f.nrrd"])
def test_any_scalar_type_gives_the_same_values(tmp_path: Path, name: str, dtype: str) -> None:
    array = (VOXELS % 100).astype(dtype)
    if dtype in ("i8", "u8", "i4", "u4", "i1"):  # for which this build of ITK wraps no writer
        kind = {"i8": "int64", "u8": "uint64", "i4": "int32", "u4": "uint32", "i1": "int8"}[dtype]
        met = {"i8": "LONG_LONG", "u8": "ULONG_LONG", "i4": "INT", "u4": "UINT", "i1": "CHAR"}[dtype]
        path = mha(tmp_path, ElementType=f"MET_{met}") if name == "f.mha" else nrrd(tmp_path, type=kind)
        head = path.read_bytes()[: -VOXELS.nbytes]
        path.write_bytes(head + array.tobytes(order="F"))
    else:
        path = write(tmp_path, name, array)
    np.testing.assert_array_equal(read_itk(path).array, VOXELS % 100)


def mha(folder: Path, *, data: bytes | None = None, name: str = "f.mha", **fields: str | None) -> Path:
    """A MetaImage as text and bytes, with fields changed or, where None, left out."""
    shown: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "-10 20 30",
        "ElementSpacing": "0.5 0.75 3",
        "DimSize": "5 6 7",
        "ElementType": "MET_SHORT",
        **fields,
    }
    named = shown.pop("ElementDataFile", "LOCAL")
    text = "".join(f"{key} = {value}\n" for key, value in shown.items() if value is not None)
    path = folder / name
    path.write_bytes(f"{text}ElementDataFile = {named}\n".encode() + (VOXELS.tobytes("F") if data is None else data))
    return path


def nrrd(folder: Path, *, data: bytes | None = None, magic: str = "NRRD0004", **fields: str | None) -> Path:
    """A NRRD as text and bytes, with fields (spaces as underscores) changed or, where None, left out."""
    shown: dict[str, str | None] = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "5 6 7",
        "space_directions": "(0.5,0,0) (0,0.75,0) (0,0,3)",
        "endian": "little",
        "encoding": "raw",
        "space_origin": "(-10,20,30)",
        **fields,
    }
    text = "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in shown.items() if value is not None)
    path = folder / "f.nrrd"
    path.write_bytes(f"{magic}\n{text}\n".encode() + (VOXELS.tobytes("F") if data is None else data))
    return path


def test_big_endian_data_at_the_end_of_its_own_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "f.img").write_bytes(b"some header" + VOXELS.astype(">i2").tobytes("F"))
    path = mha(
        tmp_path, name="f.mhd", data=b"", ElementDataFile="f.img", HeaderSize="-1", BinaryDataByteOrderMSB="True"
    )
    np.testing.assert_array_equal(read_itk(path).array, VOXELS)


@pytest.mark.parametrize("make", [mha, nrrd])
def test_file_written_by_hand_is_sound(tmp_path: Path, make: Callable[..., Path]) -> None:
    volume = read_itk(make(tmp_path))
    np.testing.assert_array_equal(volume.array, VOXELS)
    expected = LPS @ [[0.5, 0, 0, -10], [0, 0.75, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("space", "to_ras"),
    [
        ("right-anterior-superior", [1, 1, 1]),
        ("RAS", [1, 1, 1]),
        ("left-anterior-superior", [-1, 1, 1]),
        ("left-posterior-superior", [-1, -1, 1]),
    ],
)
def test_every_space_of_a_nrrd_becomes_ras(tmp_path: Path, space: str, to_ras: list[int]) -> None:
    volume = read_itk(nrrd(tmp_path, space=space))
    expected = np.diag([*to_ras, 1.0]) @ [[0.5, 0, 0, -10], [0, 0.75, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)


def test_one_frame_of_four_dimensions_is_squeezed(tmp_path: Path) -> None:
    matrix = " ".join(str(int(i == j)) for i in range(4) for j in range(4))
    path = mha(
        tmp_path, NDims="4", DimSize="5 6 7 1", TransformMatrix=matrix, Offset="1 2 3 0", ElementSpacing="1 2 3 1"
    )
    volume = read_itk(path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    np.testing.assert_allclose(volume.affine, LPS @ [[1, 0, 0, 1], [0, 2, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])


def cut(folder: Path, name: str, keep: int, packed: bool) -> Path:
    path = write(folder, name, packed=packed)
    path.write_bytes(path.read_bytes()[:-keep])
    return path


def text(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def flipped(folder: Path, name: str) -> Path:
    path = write(folder, name, packed=True)
    data = bytearray(path.read_bytes())
    data[-12] ^= 255
    path.write_bytes(data)
    return path


def without_data(folder: Path, name: str) -> Path:
    path = write(folder, name)
    path.with_suffix(".raw").unlink()
    return path


def outside(folder: Path) -> Path:
    (folder / "in").mkdir()
    (folder / "secret.raw").write_bytes(VOXELS.tobytes("F"))
    return mha(folder / "in", name="f.mhd", data=b"", ElementDataFile="../secret.raw")


def colour(folder: Path, name: str) -> Path:
    picture = itk.image_from_array(np.zeros((7, 6, 5, 3), np.uint8), is_vector=True)
    itk.imwrite(picture, str(folder / name))
    return folder / name


INF = np.where(VOXELS == 9, np.inf, VOXELS).astype(np.float32)
NAN = np.where(VOXELS == 9, np.nan, VOXELS).astype(np.float32)
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty mha": (lambda f: text(f, "f.mha", b""), "is empty"),
    "empty nrrd": (lambda f: text(f, "f.nrrd", b""), "is empty"),
    "text mha": (lambda f: text(f, "f.mha", b"hello\n" * 9), "is not a MetaImage"),
    "endless mha": (lambda f: text(f, "f.mha", b"a = b\n" * 400000), "is not a MetaImage"),
    "text nrrd": (lambda f: text(f, "f.nrrd", b"hello\n" * 9), "is not a NRRD file"),
    "half a header mha": (lambda f: text(f, "f.mha", mha(f).read_bytes()[:60]), "its header is cut short"),
    "half a header nrrd": (lambda f: text(f, "f.nrrd", nrrd(f).read_bytes()[:60]), "says nothing of its"),
    "mha truncated": (lambda f: cut(f, "f.mha", 20, False), "is cut short: it has 400 bytes of voxels and needs 420"),
    "packed mha truncated": (lambda f: cut(f, "f.mha", 20, True), "is cut short"),
    "nrrd truncated": (lambda f: cut(f, "f.nrrd", 20, False), "is cut short: it has 400 bytes"),
    "packed nrrd truncated": (lambda f: cut(f, "f.nrrd", 20, True), "is cut short or damaged"),
    "packed nrrd without checksum": (lambda f: cut(f, "f.nrrd", 8, True), "is cut short or damaged"),
    "mha with flipped bits": (lambda f: flipped(f, "f.mha"), "is cut short or damaged"),
    "nrrd with flipped bits": (lambda f: flipped(f, "f.nrrd"), "is cut short or damaged"),
    "mhd without data": (lambda f: without_data(f, "f.mhd"), "names a file of voxels beside it"),
    "nhdr without data": (lambda f: without_data(f, "f.nhdr"), "names a file of voxels beside it, which is not there"),
    "data outside": (outside, "points at voxels outside its folder"),
    "data anywhere": (lambda f: mha(f, name="f.mhd", ElementDataFile="/etc/passwd"), "outside its folder"),
    "nrrd data outside": (lambda f: nrrd(f, data=b"", data_file="../x.raw"), "outside its folder"),
    "data under an endless name": (lambda f: mha(f, ElementDataFile="x" * 5000), "beside it, which is not there"),
    "data in slices": (lambda f: mha(f, name="f.mhd", ElementDataFile="s%03d.raw 1 7 1"), "in several files"),
    "data in a list": (lambda f: mha(f, name="f.mhd", ElementDataFile="LIST"), "in several files"),
    "mha dimension lies": (lambda f: mha(f, DimSize="5 6 700"), "is cut short: it has 420 bytes"),
    "mha bomb": (lambda f: mha(f, DimSize="30000 30000 30000"), "more than the 536870912"),
    "nrrd bomb": (lambda f: nrrd(f, sizes="30000 30000 30000"), "more than the 536870912"),
    "mha dimension 0": (lambda f: mha(f, DimSize="5 0 7"), "declares 5 x 0 x 7 voxels"),
    "nrrd dimension 0": (lambda f: nrrd(f, sizes="5 0 7"), "declares 5 x 0 x 7 voxels"),
    "mha dimension -5": (lambda f: mha(f, DimSize="-5 6 7"), "declares -5 x 6 x 7 voxels"),
    "2-D": (lambda f: mha(f, NDims="2", DimSize="5 42", TransformMatrix="1 0 0 1"), "is not a volume but an image"),
    "several frames": (
        lambda f: mha(f, NDims="4", DimSize="5 6 1 7", TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"),
        "holds several frames (5 x 6 x 1 x 7)",
    ),
    "no spacing": (lambda f: mha(f, ElementSpacing=None), "says nothing of its spacing"),
    "no orientation": (lambda f: mha(f, TransformMatrix=None), "says nothing of its orientation"),
    "no position": (lambda f: mha(f, Offset=None), "says nothing of its position"),
    "spacing 0": (lambda f: mha(f, ElementSpacing="0.5 0 3"), "has voxels of 0.5 x 0 x 3 mm"),
    "spacing too large": (lambda f: mha(f, ElementSpacing="500 750 3000"), "has voxels of 500 x 750 x 3000 mm"),
    "sheared mha": (lambda f: mha(f, TransformMatrix="1 0 0 0.3 1 0 0 0 1"), "has a sheared affine"),
    "sheared nrrd": (lambda f: nrrd(f, space_directions="(0.5,0,0) (0.2,0.75,0) (0,0,3)"), "has a sheared affine"),
    "nrrd without space": (lambda f: nrrd(f, space=None, space_dimension="3"), "its orientation"),
    "nrrd of a scanner": (lambda f: nrrd(f, space="scanner-xyz"), "its orientation"),
    "nrrd without directions": (lambda f: nrrd(f, space_directions=None), "says nothing of its spacing"),
    "nrrd without origin": (lambda f: nrrd(f, space_origin=None), "says nothing of its position"),
    "nrrd in metres": (lambda f: nrrd(f, space_units='"m" "m" "m"'), "is not measured in mm"),
    "nrrd in hex": (lambda f: nrrd(f, encoding="hex"), "has an encoding that is not read"),
    "nrrd that skips": (lambda f: nrrd(f, byte_skip="-1"), "skips bytes or lines"),
    "mha as text": (lambda f: mha(f, BinaryData="False"), "holds its voxels as text"),
    "colour mha": (lambda f: mha(f, ElementNumberOfChannels="3", data=VOXELS.tobytes() * 3), "holds 3 values a voxel"),
    "vector nrrd": (
        lambda f: nrrd(
            f,
            dimension="4",
            sizes="3 5 6 7",
            kinds="vector domain domain domain",
            space_directions="none (0.5,0,0) (0,0.75,0) (0,0,3)",
            data=VOXELS.tobytes() * 3,
        ),
        "holds 3 values a voxel",
    ),
    "unknown type": (lambda f: mha(f, ElementType="MET_BANANA"), "has values of a type that is not read"),
    "type of no fixed size": (lambda f: mha(f, ElementType="MET_LONG"), "has values of a type that is not read"),
    "nrrd of unknown type": (lambda f: nrrd(f, type="block"), "has values of a type that is not read"),
    "nrrd without byte order": (lambda f: nrrd(f, endian=None), "says nothing of its byte order"),
    "words for numbers": (lambda f: mha(f, DimSize="5 six 7"), "has sizes that cannot be read"),
    "too few numbers": (lambda f: mha(f, ElementSpacing="1 1"), "has a spacing that cannot be read"),
    "NaN in the header": (lambda f: nrrd(f, space_origin="(nan,0,0)"), "has an origin that cannot be read"),
    "half a voxel": (lambda f: mha(f, DimSize="5 6 7.5"), "has sizes that are not whole numbers"),
    "more directions than sizes": (
        lambda f: nrrd(f, space_directions="none (1,0,0) (0,1,0) (0,0,1)"),
        "has 3 sizes and 4 directions",
    ),
    "NaN": (lambda f: write(f, "f.mha", NAN), "has NaN values (1 of 210 voxels)"),
    "infinity": (lambda f: write(f, "f.nrrd", INF), "has infinite values (1 of 210 voxels)"),
    "all zero": (lambda f: write(f, "f.mha", 0 * VOXELS), "holds nothing"),
}


@pytest.mark.parametrize("name", BAD)
def test_defective_file_is_refused_with_its_cause(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, fragment = BAD[name]
    path = make(tmp_path)
    capfd.readouterr()
    with pytest.raises(InputError) as caught:
        read_itk(path)
    assert fragment in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", FORMATS)
def test_mask_is_1_where_a_voxel_is_not_0(tmp_path: Path, name: str) -> None:
    mask = read_itk_mask(write(tmp_path, name, (VOXELS % 3).astype(np.uint8)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, VOXELS % 3 != 0)


def test_image_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 16 different values"):
        read_itk_mask(write(tmp_path, "f.nrrd"))
