"""Measures FLAIR abnormality (lower-grade glioma) in brain MRI. Research use only; never a diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainseg.bundle import open_bundle
    from brainseg.evaluation import evaluate
    from brainseg.inference import segment, segment_cases
    from brainseg.readers import read_case

__version__ = "0.1.0"
__all__ = ["evaluate", "open_bundle", "read_case", "segment", "segment_cases"]

# A function may not share its name with a module: importing the module would hide it.
_HOMES = {
    "evaluate": "evaluation",
    "open_bundle": "bundle",
    "read_case": "readers",
    "segment": "inference",
    "segment_cases": "inference",
}


def __getattr__(name: str) -> Any:
    """The public functions, imported when first used: `import brainseg` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'brainseg' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"brainseg.{_HOMES[name]}"), name)
