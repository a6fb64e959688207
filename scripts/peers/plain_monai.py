"""A plain MONAI script: dictionary transforms, Dataset, DataLoader, SliceInferer over windows of 256x256, SaveImage.

As a person would write it after MONAI's tutorials, with the bundle's own network, weights, normalisation and clean-up,
so that its masks are the bundle's. Whole slices: it does not crop to the head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import VOLUMES, open_network, read_job, shared_with_neighbours, tiff_slices, timed, without_unsure_lesions
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.inferers import SliceInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    Invertd,
    Lambdad,
    LoadImaged,
    Orientationd,
    RemoveSmallObjectsd,
    SaveImaged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
)

WORKERS = 2


def item(patient: Path) -> dict[str, Any]:
    files = tiff_slices(patient) or [patient / name for name in VOLUMES]
    return {"image": [str(file) for file in files], "case": patient.name}


def stacked(image: Any) -> Any:
    """`(W, H, 3N)`, as PILReader has a list of colour slices, to `(3, X, Y, Z)`."""
    array = image.as_tensor().reshape(*image.shape[:2], -1, 3).permute(3, 0, 1, 2).contiguous()
    return MetaTensor(array, affine=torch.diag(torch.tensor([-0.9375, -0.9375, 1.0, 1.0], dtype=torch.float64)))


def over_mean_of_head(image: Any) -> Any:
    means = torch.stack([channel[channel > channel.mean()].mean().nan_to_num(1.0) for channel in image.as_tensor()])
    return image / means[:, None, None, None]


def named(case: dict[str, Any]) -> dict[str, Any]:
    """Its mask is saved under the patient's name; files are called the same for every patient."""
    case["image"].meta["filename_or_obj"] = f"{case['case']}.nii.gz"
    return case


def main() -> None:
    job = read_job()
    network, setting = open_network(job.bundle, job.device)
    network = setting("look")(network)
    threshold, least = setting("threshold"), setting("lesion_probability")
    tiff = bool(tiff_slices(job.patients[0]))
    frame: list[Any] = [
        ScaleIntensityRangePercentilesd("image", 1, 99.8, 0, 1, clip=True, channel_wise=True),
        Lambdad("image", over_mean_of_head, track_meta=True),
    ]
    if tiff:
        load = [LoadImaged("image", reader="PILReader"), Lambdad("image", stacked)]
    else:
        pixels = (setting("pixel_mm"), setting("pixel_mm"), -1)
        load = [LoadImaged("image", reader="NibabelReader")]
        frame = [Orientationd("image", "LPS", labels=None), Spacingd("image", pixels), *frame]
    prepare = Compose(frame)
    after = Compose(
        [
            Lambdad("pred", lambda logits: shared_with_neighbours(logits) / setting("temperature")),
            Activationsd("pred", sigmoid=True),
            Lambdad("pred", lambda looks: looks.mean(0, keepdim=True)),
            Invertd("pred", prepare, orig_keys="image", nearest_interp=False),
            Lambdad("pred", lambda probability: without_unsure_lesions(probability.cpu(), threshold, least)),
            AsDiscreted("pred", threshold=threshold),
            RemoveSmallObjectsd("pred", min_size=setting("smallest_lesion_voxels")),
        ]
    )
    save = SaveImaged("pred", output_dir=job.out, output_postfix="mask", output_dtype=np.uint8, resample=False)
    loader = DataLoader(
        Dataset([item(patient) for patient in job.patients], Compose([*load, named, prepare])), num_workers=WORKERS
    )
    inferer = SliceInferer(roi_size=(256, 256), sw_batch_size=4, spatial_dim=2)
    with timed(), torch.inference_mode(), torch.autocast("cuda", enabled=job.device != "cpu"):
        for batch in loader:
            batch["pred"] = inferer(batch["image"].to(job.device), network)
            for one in decollate_batch(batch):
                save(after(one))


if __name__ == "__main__":
    main()
