"""The U-Net of Buda, Saha, Mazurowski (2019), rebuilt from the paper: untrained, so its masks mean nothing.

Five levels of 32 to 512 channels, each two 3x3 convolutions with BatchNorm and ReLU; 2x2 transposed convolutions; one
sigmoid output for slices of 3x256x256. Before it every volume is cropped to the head, padded to squares, resized to 256
and normalised, with scikit-image. Masks are written on that grid: the way back to the scan's own is not timed.
"""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import tifffile
import torch
from common import read_job, tiff_slices, timed
from skimage.exposure import rescale_intensity
from skimage.transform import resize

WIDTHS = (32, 64, 128, 256, 512)
SIDE, BATCH = 256, 32


def two_convolutions(channels: int, features: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for given in (channels, features):
        layers += [torch.nn.Conv2d(given, features, 3, padding=1, bias=False), torch.nn.BatchNorm2d(features)]
        layers += [torch.nn.ReLU(inplace=True)]
    return torch.nn.Sequential(*layers)


class UNet(torch.nn.Module):
    """`(N, 3, 256, 256)` to probabilities `(N, 1, 256, 256)`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.ModuleList(map(two_convolutions, (3, *WIDTHS), WIDTHS))
        pairs = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.larger = torch.nn.ModuleList(torch.nn.ConvTranspose2d(deep, high, 2, stride=2) for deep, high in pairs)
        self.up = torch.nn.ModuleList(two_convolutions(2 * high, high) for _, high in pairs)
        self.last = torch.nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skipped: list[torch.Tensor] = []
        for number, level in enumerate(self.down):
            image = level(torch.nn.functional.max_pool2d(image, 2) if number else image)
            skipped.append(image)
        skipped.pop()
        for larger, level in zip(self.larger, self.up, strict=True):
            image = level(torch.cat([larger(image), skipped.pop()], 1))
        return torch.sigmoid(self.last(image))


def prepared(volume: Any) -> Any:
    """A volume `(Z, Y, X, 3)` as the network takes it: `(Z, 256, 256, 3)` of mean 0 and deviation 1 a channel."""
    bright = volume > 0.1 * volume.max()
    ranges = [np.flatnonzero(bright.any(tuple({0, 1, 2, 3} - {axis}))) for axis in (0, 1, 2)]
    volume = volume[tuple(slice(found[0], found[-1] + 1) for found in ranges)]
    rows, columns = volume.shape[1:3]
    side = max(rows, columns)
    gaps = [((side - length) // 2, side - length - (side - length) // 2) for length in (rows, columns)]
    volume = np.pad(volume, ((0, 0), *gaps, (0, 0)))
    shape = (len(volume), SIDE, SIDE, 3)
    volume = resize(volume, shape, order=2, mode="constant", preserve_range=True, anti_aliasing=False)
    low, high = np.percentile(volume, (10, 99))
    volume = rescale_intensity(volume, in_range=(low, high))
    return (volume - volume.mean((0, 1, 2))) / volume.std((0, 1, 2))


def main() -> None:
    job = read_job()
    torch.manual_seed(0)
    network = UNet().to(job.device).eval()
    with timed() as clock, torch.inference_mode():
        for patient in job.patients:
            with clock.patient(patient.name):
                volume = prepared(np.stack([tifffile.imread(file) for file in tiff_slices(patient)]))
                images = torch.from_numpy(volume.transpose(0, 3, 1, 2).astype(np.float32))
                found = torch.cat([network(part.to(job.device)).cpu() for part in images.split(BATCH)])
                mask = (found[:, 0] > 0.5).numpy().astype(np.uint8).transpose(2, 1, 0)
                (job.out / patient.name).mkdir(parents=True)
                nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), job.out / patient.name / "mask.nii.gz")


if __name__ == "__main__":
    main()
