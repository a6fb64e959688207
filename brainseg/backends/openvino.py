"""OpenVINO on a CPU (extra `openvino`), compiled once and then kept in the user's cache folder.

Every slice is computed by one thread and as many at a time as there are threads, which is faster than many threads on
one slice, and gives the same logits with any number of threads. The sides of a slice are left open: compiling for each
size costs more than it saves.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brainseg.backends.cache import cached, keep
from brainseg.backends.rewrite import CHANNELS, SIDE, Halves, divided, rewritten, stem_of
from brainseg.backends.slices import SliceEngine
from brainseg.errors import UsageError

if TYPE_CHECKING:
    from brainseg.bundle import Bundle

_FORMAT = 2  # of what the key of a compiled network stands for


class OpenVinoEngine(SliceEngine):
    """See `brainseg.backends.rewrite`; a network without a stem is computed in fp32 whatever `bf16` says.

    In bfloat16 instance norms are group norms still: how far masks agree was measured with those.
    """

    def __init__(self, bundle: Bundle, *, bf16: bool) -> None:
        known = stem_of(bundle.network) is not None
        super().__init__(bundle, f"openvino-{'bf16' if bf16 and known else 'fp32'}")

    def quick(self, slices: torch.Tensor) -> torch.Tensor:
        """See `SliceEngine`."""
        if not self.rounds:
            return self._whole.run(torch.split(slices, 1))
        stem, rest = self._parts
        group = 8 * torch.get_num_threads()  # what a stem gives for all slices at once would fill the memory
        return rest.run(one for part in torch.split(slices, group) for one in torch.split(stem(part), 1))

    @cached_property
    def _parts(self) -> tuple[Callable[[torch.Tensor], torch.Tensor], _Compiled]:
        stem, rest = divided(self.network)
        example = torch.zeros(1, CHANNELS, 4 * SIDE, 4 * SIDE)
        compiled = _Compiled(rest, stem(example), "bf16")
        if isinstance(stem, Halves):
            return stem, compiled
        first = _Compiled(stem, example, "f32")
        return lambda slices: first.run(torch.split(slices, 1)), compiled

    @cached_property
    def _whole(self) -> _Compiled:
        network = rewritten(self._bundle.network, groups=False)
        return _Compiled(network, torch.zeros(1, CHANNELS, 4 * SIDE, 4 * SIDE), "f32")


class _Compiled:
    """A network that OpenVINO runs; `example` `(1, C, h, w)` is traced, and any H and W can follow."""

    def __init__(self, network: nn.Module, example: torch.Tensor, precision: str) -> None:
        openvino = _openvino()
        core = _core()
        threads = torch.get_num_threads()
        kept = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT", "ENABLE_CPU_PINNING": False}
        settings = {**kept, "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
        key = _key(network, [openvino.__version__, _machine(core), kept, list(example.shape)])
        compiled = None
        if (content := cached(key)) is not None:
            try:
                compiled = core.import_model(io.BytesIO(content), "CPU", settings)
            except RuntimeError:  # of another build
                compiled = None
        if compiled is None:
            compiled = core.compile_model(_converted(openvino, network, example), "CPU", settings)
            keep(key, bytes(compiled.export_model().getvalue()))
        self._queue = openvino.AsyncInferQueue(compiled, threads)

    def run(self, slices: Iterable[torch.Tensor]) -> torch.Tensor:
        """What the network makes of each of `slices` `(1, C, H, W)`, together; the next is made ready meanwhile."""
        results: list[torch.Tensor] = []

        def store(request: Any, number: int) -> None:
            results[number] = torch.from_numpy(request.get_output_tensor().data.copy())

        self._queue.set_callback(store)
        for number, one in enumerate(slices):
            results.append(one)
            self._queue.start_async(one.numpy(), number)
        self._queue.wait_all()
        return torch.cat(results)


@lru_cache(maxsize=1)
def _openvino() -> Any:
    """OpenVINO without the package that reports every import and conversion to a server, which it can do without."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise UsageError("--backend", f"openvino cannot be loaded ({error})", "pass --backend torch") from None
    return openvino


_LOADING = Lock()


def _core() -> Any:
    """The one core of the process, kept to its end.

    Every core loads OpenVINO's CPU plugin anew, which gives the thread that loads it a stack for signal handlers and
    takes it away with the core. Where another thread lets go of the core, the next signal that the first one handles
    (Ctrl-C, the end of a child process) ends the process with a segmentation fault. So none is ever let go.
    """
    with _LOADING:
        return _only_core()


@lru_cache(maxsize=1)
def _only_core() -> Any:
    return _openvino().Core()


def _converted(openvino: Any, network: nn.Module, example: torch.Tensor) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's tracing
            model = openvino.convert_model(network, example_input=example)
            model.reshape([1, example.shape[1], -1, -1])
    except Exception as error:  # of whatever kind: it runs torch and OpenVINO's own converter
        cause = f"openvino cannot convert this network ({str(error).splitlines()[0][:120]})"
        raise UsageError("--backend", cause, "pass --backend torch") from None
    return model


def _key(network: nn.Module, settings: list[Any]) -> str:
    import monai

    digest = hashlib.sha256(
        json.dumps([_FORMAT, torch.__version__, monai.__version__, repr(network), settings]).encode()
    )
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _machine(core: Any) -> list[str]:
    return [
        core.get_property("CPU", "FULL_DEVICE_NAME"),
        *sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    ]
