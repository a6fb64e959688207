"""segmentation_models_pytorch's Unet("resnet34"), untrained, in a script as plain: the peer of our resnet34_unet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import tifffile
import torch
from common import normalised, read_job, tiff_slices, timed

BATCH = 4


def importable() -> None:
    """Lets torchvision be imported where its build is not torch's (CUDA beside CPU); none of its operators is used."""
    package = find_spec("torchvision")
    try:
        torch.ops.load_library(Path(package.submodule_search_locations[0]) / "_C.so")
    except OSError:
        importable.operators = torch.library.Library("torchvision", "DEF")  # kept, or it is taken back
        for name in ("nms", "qnms"):
            importable.operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def network() -> torch.nn.Module:
    importable()
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    net = smp.Unet("resnet34", encoder_weights=None, in_channels=3, classes=1).eval()
    torch.nn.init.constant_(net.segmentation_head[0].bias, -100.0)  # marks nothing, as our own without training does
    return net


def main() -> None:
    job = read_job()
    net = network().to(job.device)
    with timed() as clock, torch.inference_mode(), torch.autocast("cuda", enabled=job.device != "cpu"):
        for patient in job.patients:
            with clock.patient(patient.name):
                volume = np.stack([tifffile.imread(file) for file in tiff_slices(patient)])
                images = torch.from_numpy(normalised(volume))
                logits = torch.cat([net(part.to(job.device)).float().cpu() for part in images.split(BATCH)])
                mask = (logits[:, 0] > 0).numpy().astype(np.uint8).transpose(2, 1, 0)
                (job.out / patient.name).mkdir(parents=True)
                nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), job.out / patient.name / "mask.nii.gz")


if __name__ == "__main__":
    main()
