"""Files with bytes changed at random: each is read or refused in one line; none crashes, hangs or prints."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
import tifffile

from brainseg.errors import InputError
from brainseg.readers.itk_formats import read_itk
from brainseg.readers.nifti import read_nifti
from brainseg.readers.tiff import read_tiff
from brainseg.study import Series

NAMES = ["f.nii", "f.nii.gz", "raw.mha", "packed.mha", "raw.nrrd", "packed.nrrd", "raw.tif", "strips.tif", "tiles.tif"]
EACH = 45


def write_seed(path: Path) -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(1, 1000, (12, 14, 9)).astype(np.int16)
    name = path.name
    if name.endswith(".tif"):
        options = {"strips": {"compression": "zlib", "rowsperstrip": 8}, "tiles": {"tile": (16, 16)}}.get(path.stem, {})
        tifffile.imwrite(path, rng.integers(0, 255, (32, 40, 3), dtype=np.uint8), photometric="rgb", **options)
    elif name.startswith("f.nii"):
        content = nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1.0])).to_bytes()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    else:
        itk.imwrite(itk.image_from_array(voxels), str(path), compression=path.stem == "packed")


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    reach = len(data) if rng.random() < 0.4 else min(len(data), 400)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        changed[rng.randrange(reach)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256), 48 + rng.randrange(10)])
    if rng.random() < 0.15:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


@pytest.mark.parametrize("name", NAMES)
def test_mutated_file_is_read_or_refused(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    write_seed(path)
    sound = path.read_bytes()
    rng = random.Random(name)
    refused: list[str] = []
    capfd.readouterr()
    for _ in range(EACH):
        path.write_bytes(mutated(sound, rng))
        try:
            if name.endswith(".tif"):
                values = read_tiff(Series("tiff", (path,))).channels
            else:
                values = (read_nifti if ".nii" in name else read_itk)(path).array
            assert np.isfinite(values).all()
        except InputError as error:
            refused.append(str(error))
    assert refused
    assert all(len(message.splitlines()) == 1 for message in refused)
    assert capfd.readouterr().err == ""
