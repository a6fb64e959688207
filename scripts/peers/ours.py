"""How the runners of brainseg open a network with a backend: one of `--backend`, or "auto" without OpenVINO."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from common import Job

import brainseg.backends
from brainseg import open_bundle

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

WITHOUT_OPENVINO = "auto without OpenVINO"


def choice(job: Job) -> dict[str, Any]:
    """Bundle, device and backend as keywords of `brainseg.job.Options`."""
    chosen: dict[str, Any] = {"bundle": str(job.bundle), "device": job.device.split(":")[0]}
    if "backend" in signature(open_bundle).parameters:
        chosen["backend"] = job.backend
    if job.backend == WITHOUT_OPENVINO:
        brainseg.backends.has_openvino = lambda: False
        chosen["backend"] = "auto"
    return chosen


def logits(bundle: Bundle, image: torch.Tensor) -> torch.Tensor:
    """What the bundle's engine makes of `(3, X, Y, Z)`."""
    if hasattr(bundle, "engine"):
        return bundle.engine.logits(image)
    from brainseg.backends.torch import logits

    return logits(bundle, image)


def made_ready(bundle: Bundle) -> Bundle:
    """An engine converts and compiles its network when it is first used: loading, so not timed."""
    with torch.inference_mode():
        logits(bundle, torch.rand(3, 64, 64, 2))
    return bundle
