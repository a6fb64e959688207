"""What runs a bundle's network: the choice, and the one interface of all engines.

`torch` is PyTorch as the bundle itself uses it: on a CPU in fp32, and then its masks are those of `monai.bundle run`
voxel for voxel. `openvino` runs on CPUs. `auto` takes the fastest engine whose masks were measured to agree with those
of fp32 PyTorch (`scripts/engines.py`): on a GPU `torch`; on a CPU OpenVINO where it is installed, else PyTorch with the
network rewritten; both in bfloat16 where the CPU computes in it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from brainseg.errors import UsageError

if TYPE_CHECKING:
    import torch

    from brainseg.bundle import Bundle

BACKENDS = ("auto", "torch", "openvino")


class Engine(Protocol):
    """Runs one bundle's network.

    Attributes:
        name: engine and precision, as run.json says it; two results can differ only where their engines do.
    """

    name: str

    def logits(self, image: Any, *, tta: bool = False) -> torch.Tensor:
        """Logits `(looks, X, Y, Z)` of a preprocessed `image` `(3, X, Y, Z)`, float32, on the bundle's device.

        With `tta` the mean of the logits of the image and of its mirror image (left and right exchanged).
        """
        ...


def engine_for(bundle: Bundle) -> Engine:
    """The engine that `bundle.backend` chooses for a bundle; nothing is converted or compiled before it is used.

    Raises:
        UsageError: no such backend, or one that is not installed or not for the bundle's device.
    """
    backend = bundle.backend
    if backend not in BACKENDS:
        raise UsageError("--backend", f"{backend} is not a backend", f"give {', '.join(BACKENDS)}")
    on_cpu = bundle.device.type == "cpu"
    if backend == "openvino":
        if not on_cpu:
            raise UsageError("--backend", "openvino runs on the CPU", "pass --device cpu, or --backend torch")
        if not has_openvino():
            raise UsageError("--backend", "openvino is not installed", 'pip install "brainseg[openvino]"')
    known = on_cpu and _measured(bundle.network)
    if backend == "openvino" or (backend == "auto" and known and has_openvino()):
        from brainseg.backends.openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, bf16=has_bfloat16())
    if backend == "auto" and known:
        from brainseg.backends.torch_cpu import RewrittenEngine

        return RewrittenEngine(bundle, bf16=has_bfloat16())
    from brainseg.backends.torch import TorchEngine

    return TorchEngine(bundle)


def _measured(network: torch.nn.Module) -> bool:
    from brainseg.backends.rewrite import stem_of

    return stem_of(network) is not None


def has_openvino() -> bool:
    """Whether the extra `openvino` is installed."""
    return find_spec("openvino") is not None


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16, and not only in its place (AVX512_BF16 or AMX)."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
