"""nnU-Net's predictor with the bundle's network in it, without mirroring.

The plans written here tell nnU-Net to window slices by 256x256 and to leave the scale alone, which is the bundle's.
Between reading and clean-up the steps are its own: crop to nonzero, Gaussian-weighted windows, softmax, the way back.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import nibabel
import numpy as np
import tifffile
import torch
from common import (
    normalised,
    open_network,
    read_job,
    shared_with_neighbours,
    tiff_slices,
    timed,
    without_unsure_lesions,
)
from skimage.morphology import remove_small_objects

ORDER = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
CONFIGURATION = {
    "preprocessor_name": "DefaultPreprocessor",
    "patch_size": [256, 256],
    "spacing": [1.0, 1.0],
    "normalization_schemes": ["NoNormalization"] * 3,
    "use_mask_for_norm": [False] * 3,
    "architecture": {},
} | {
    f"resampling_fn_{what}{suffix}": value
    for what in ("data", "seg", "probabilities")
    for suffix, value in (("", "resample_data_or_seg_to_shape"), ("_kwargs", {**ORDER, "is_seg": what == "seg"}))
}
PLANS = {
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(3)},
    "configurations": {"2d": CONFIGURATION},
}
DATASET = {"labels": {"background": 0, "abnormality": 1}}


class TwoClasses(torch.nn.Module):
    """Background 0 beside the bundle's logit: a softmax of both is the logit's sigmoid.

    Where the bundle looks more than once, the logit is that of the mean of the probabilities.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.network(image)
        if logits.shape[1] > 1:
            mean = torch.sigmoid(logits.float() / self.temperature).mean(1, keepdim=True)
            logits = self.temperature * torch.logit(mean, 1e-6)
        return torch.cat([torch.zeros_like(logits), logits], 1)


def main() -> None:
    job = read_job()
    os.environ["nnUNet_def_n_proc"] = str(job.threads)  # noqa: SIM112
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    network, setting = open_network(job.bundle, job.device)
    threshold, temperature, least = setting("threshold"), setting("temperature"), setting("lesion_probability")
    two = TwoClasses(setting("look")(network), temperature)
    plans = PlansManager(PLANS)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device(job.device), allow_tqdm=False)
    configuration = plans.get_configuration("2d")
    predictor.manual_initialization(two, plans, configuration, [two.state_dict()], DATASET, "nnUNetTrainer", None)
    with timed() as clock:
        for patient in job.patients:
            with clock.patient(patient.name):
                volume = normalised(np.stack([tifffile.imread(file) for file in tiff_slices(patient)]))
                image = np.ascontiguousarray(volume.transpose(1, 0, 3, 2))  # the network's rows are X
                spacing = {"spacing": [1.0, 1.0, 1.0]}
                _, found = predictor.predict_single_npy_array(image, spacing, save_or_return_probabilities=True)
                logits = torch.logit(torch.as_tensor(found[1]).float(), 1e-6).permute(1, 2, 0)[None]
                probability = torch.sigmoid(shared_with_neighbours(logits) / temperature)
                mask = without_unsure_lesions(probability, threshold, least)[0].numpy() >= threshold
                mask = remove_small_objects(mask, setting("smallest_lesion_voxels")).astype(np.uint8)
                (job.out / patient.name).mkdir(parents=True)
                nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), job.out / patient.name / "mask.nii.gz")


if __name__ == "__main__":
    main()
