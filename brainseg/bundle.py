"""Opens a MONAI bundle: its network with verified weights, and its own preprocessing, inferer and clean-up.

Shipped bundles are code of this package and are evaluated. A folder that `brainseg train` wrote gives its weights and
plain JSON only; network and preprocessing come from the shipped bundle it was trained from, with the shipped recipe
that its run.json names laid over them. The configs of any other folder are never evaluated, because a MONAI config is
code, unless the user trusts it.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg.errors import MachineError, UntrustedBundleError, UsageError

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser

    from brainseg.backends import Engine

DEFAULT = "residual_unet"
RUN_FILE = "run.json"
WEIGHTS = Path("models") / "model.pt"
MANIFEST = Path("models") / "model.pt.sha256"
TRAINING_FILE = Path("models") / "training.json"
NO_WEIGHTS = "no weights shipped: train it"


@dataclass(frozen=True)
class Bundle:
    """A network ready to segment, with the steps around it as the bundle's own configs define them.

    Attributes:
        name: of the shipped bundle whose configs are used.
        root: the folder the weights come from.
        network: on `device`, in evaluation mode, fp32.
        preprocessing: `{"image": (3, X, Y, Z) MetaTensor}` to the network's frame.
        inferer: `(image (1, 3, X, Y, Z), network) -> logits (1, 1, X, Y, Z)`.
        probability: `{"image", "pred" (1, X, Y, Z) logits}` to probability on the native grid.
        mask: probability in `pred` to a cleaned 0/1 mask.
        pixel_mm: in-plane pixel size of the network's frame, taken to be that of a slice without spacing.
        threshold: probability at or above which a voxel is abnormal.
        temperature: what the logits are divided by to make probabilities.
        presence: slope and offset of `presence.presence_probability`.
        weights_sha256: hash of the weights file.
        version: of the bundle, from its metadata.
        recipe: that it was trained by, whose input it takes; empty for the house's own.
        backend: what was asked to run the network; `engine` is what that comes to.
    """

    name: str
    root: Path
    network: torch.nn.Module
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    inferer: Callable[..., Any]
    probability: Callable[[dict[str, Any]], dict[str, Any]]
    mask: Callable[[dict[str, Any]], dict[str, Any]]
    device: torch.device
    pixel_mm: float
    threshold: float
    temperature: float
    presence: tuple[float, float]
    weights_sha256: str
    version: str
    recipe: str = ""
    backend: str = "auto"

    @cached_property
    def engine(self) -> Engine:
        """What runs the network; made ready when it is first used."""
        from brainseg.backends import engine_for

        return engine_for(self)

    @property
    def title(self) -> str:
        """The name, and the recipe where it is not the house's."""
        return f"{self.name} ({self.recipe})" if self.recipe else self.name


@lru_cache(maxsize=1)
def shipped() -> dict[str, Path]:
    """Name -> folder of the bundles that come with brainseg."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_bundles", here.parent / "bundles"):
        if folder.is_dir():
            found = sorted(path.parents[1] for path in folder.glob("*/configs/inference.json"))
            return {path.name: path for path in found}
    return {}


def ships_weights(name: str) -> bool:
    """Whether the shipped bundle of that name comes trained; one whose recorded weights were lost still counts."""
    return any((shipped()[name] / part).is_file() for part in (WEIGHTS, MANIFEST))


def recipes(name: str) -> dict[str, Path]:
    """Name -> file of the training recipes of a shipped bundle, each laid over any of its configs."""
    return {path.stem: path for path in sorted((shipped()[name] / "configs" / "recipes").glob("*.json"))}


def recorded_recipe(root: Path, name: str) -> str:
    """The recipe by which the run at `root` trained the shipped bundle `name`; empty for the house's own.

    Raises:
        UntrustedBundleError: not one of brainseg's recipes.
    """
    if not (root / RUN_FILE).is_file():
        return ""
    recipe = _plain_json(root / RUN_FILE).get("recipe") or ""
    known = recipes(name)
    if recipe and (not isinstance(recipe, str) or recipe not in known):
        remedy = f"only {', '.join(known)} are known: restore it, or train again"
        raise UntrustedBundleError(root / RUN_FILE, f"names the unknown recipe {str(recipe)[:40]!r}", remedy)
    return str(recipe)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; read in pieces, so that its size does not matter."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def recorded_hash(root: Path) -> str | None:
    """The SHA-256 that a bundle's `models/model.pt.sha256` (sha256sum's format) or a run's `run.json` records."""
    manifest = root / MANIFEST
    if manifest.is_file():
        words = manifest.read_text(encoding="utf-8").split()
        return words[0] if words else None
    run = root / RUN_FILE
    if run.is_file():
        value = _plain_json(run).get("weights_sha256")
        return str(value) if value else None
    return None


def locate(name_or_path: str) -> tuple[str, Path]:
    """(name of the shipped bundle, folder with the weights) for a bundle's name or a folder.

    Raises:
        UsageError: neither a shipped bundle's name nor a folder.
        UntrustedBundleError: a folder whose configs are not those of a shipped bundle.
    """
    known = shipped()
    if name_or_path in known:
        return name_or_path, known[name_or_path]
    root = Path(name_or_path)
    if not root.is_dir():
        raise UsageError(name_or_path, "no bundle of that name and no such folder", f"choose one of {', '.join(known)}")
    if (root / RUN_FILE).is_file():
        name = _plain_json(root / RUN_FILE).get("bundle")
        if name in known:
            return str(name), root
    config = root / "configs" / "inference.json"
    if config.is_file():
        for name, folder in known.items():
            if config.read_bytes() == (folder / "configs" / "inference.json").read_bytes():
                return name, root
    raise UntrustedBundleError(
        root, "its configs are not those of a shipped bundle, and a config is code", "pass --trust-bundle to run it"
    )


def open_bundle(
    name_or_path: str = DEFAULT,
    *,
    device: str = "auto",
    backend: str = "auto",
    threshold: float | None = None,
    trust: bool = False,
) -> Bundle:
    """A bundle ready to segment.

    Args:
        name_or_path: a shipped bundle's name, a run of `brainseg train`, or a copy of a bundle.
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: one of `brainseg.backends.BACKENDS`.
        threshold: in place of the bundle's own.
        trust: evaluate the folder's own configs even if they are foreign. They can run any code.

    Raises:
        UsageError: no such bundle, device or backend, or a shipped bundle without weights.
        UntrustedBundleError: foreign configs, an unknown recipe, or weights that are damaged, missing or of another
            network.
    """
    try:
        name, root = locate(name_or_path)
        configs, recipe = shipped()[name], recorded_recipe(root, name)
    except UntrustedBundleError:
        if not trust:
            raise
        root = configs = Path(name_or_path)
        name, recipe = root.resolve().name, ""
    if root == shipped().get(name) and not ships_weights(name):
        trained = ", ".join(one for one in shipped() if ships_weights(one))
        remedy = f"train it (brainseg train --bundle {name}) and give its run, or choose one of {trained}"
        raise UsageError(name, "no weights shipped", remedy)
    chosen = choose_device("cpu" if (device, backend) == ("auto", "openvino") else device)
    parser = read_config(configs, "inference", recipe)
    parser["device"] = chosen
    if threshold is not None:
        parser["threshold"] = threshold
    network = parser.get_parsed_content("network_def")
    state, weights_sha256 = _read_weights(root, network.state_dict())
    network.load_state_dict(state)
    network.to(chosen).eval()
    metadata = _plain_json(configs / "configs" / "metadata.json")
    bundle = Bundle(
        name=name,
        root=root,
        network=network,
        preprocessing=parser.get_parsed_content("preprocessing"),
        inferer=parser.get_parsed_content("inferer"),
        probability=parser.get_parsed_content("probability"),
        mask=parser.get_parsed_content("mask"),
        device=chosen,
        pixel_mm=float(parser.get_parsed_content("pixel_mm")),
        threshold=float(parser.get_parsed_content("threshold")),
        temperature=float(parser.get_parsed_content("temperature")),
        presence=(
            float(parser.get_parsed_content("presence_slope")),
            float(parser.get_parsed_content("presence_offset")),
        ),
        weights_sha256=weights_sha256,
        version=str(metadata["version"]),
        recipe=recipe,
        backend=backend,
    )
    _ = bundle.engine  # refused here, once, if it cannot be
    return bundle


def with_threshold(bundle: Bundle, threshold: float) -> Bundle:
    """`bundle` with the same network, its mask cut at another threshold.

    Raises:
        ValueError: if its configs are not those of a shipped bundle, so that they cannot be read again safely.
    """
    if bundle.name not in shipped():
        raise ValueError(f"expected a bundle with shipped configs, got {bundle.name}")
    parser = read_config(shipped()[bundle.name], "inference", bundle.recipe)
    parser["device"] = bundle.device
    parser["threshold"] = threshold
    return replace(bundle, threshold=threshold, mask=parser.get_parsed_content("mask"))


def config_files(root: Path, kind: str, recipe: str = "") -> list[str]:
    """The config files of `kind` of the bundle at `root`, for MONAI to merge in this order."""
    configs = root / "configs"
    return [str(configs / f"{kind}.json"), *([str(configs / "recipes" / f"{recipe}.json")] if recipe else [])]


def read_config(root: Path, kind: str, recipe: str = "") -> ConfigParser:
    """MONAI's parser over `configs/<kind>.json` of the bundle at `root` and a recipe over it, not yet evaluated."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(config_files(root, kind, recipe))
    parser.read_meta(str(root / "configs" / "metadata.json"))
    parser["bundle_root"] = str(root)
    return parser


def choose_device(device: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        UsageError: a device that is not there.
    """
    import torch

    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError("--device", f"{device} is not a device", "give auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError("--device", f"{device} is not there", "pass --device cpu, or auto")
    return chosen


def _read_weights(root: Path, expected: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """The state_dict of the bundle at `root`, checked against its recorded hash and the network, and its SHA-256."""
    import torch

    path = root / WEIGHTS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UntrustedBundleError(
            path, "no weights there", "train the bundle, or choose one that ships them"
        ) from None
    except OSError as error:
        raise MachineError(path, error.strerror or "cannot be read", "check the disk and permissions") from None
    digest = hashlib.sha256(content).hexdigest()
    if recorded_hash(root) not in (None, digest):
        raise UntrustedBundleError(
            path, "its SHA-256 is not the recorded one", "restore the weights; they were changed"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols, on the way to an error
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UntrustedBundleError(path, "holds more than tensors", "use a plain state_dict") from None
    except (RuntimeError, EOFError, KeyError, ValueError):
        raise UntrustedBundleError(path, "damaged or not a PyTorch file", "restore the weights") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UntrustedBundleError(path, "not a plain state_dict", "save network.state_dict() alone")
    wrong = [key for key in expected.keys() | state.keys() if _shape(expected, key) != _shape(state, key)]
    if wrong:
        raise UntrustedBundleError(
            path, f"made for another network ({len(wrong)} of {len(expected)} tensors differ)", "choose its own bundle"
        )
    return {key: value.to(expected[key].dtype) for key, value in state.items()}, digest


def _shape(state: Mapping[str, torch.Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if key in state else None


def _plain_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UntrustedBundleError(path, "not readable as JSON", "restore the bundle") from None
    if not isinstance(content, dict):
        raise UntrustedBundleError(path, "not a JSON object", "restore the bundle")
    return content


def describe(name_or_path: str) -> dict[str, str]:
    """What there is to say about a bundle, as label -> text; opens no network."""
    name, root = locate(name_or_path)
    metadata = _plain_json(shipped()[name] / "configs" / "metadata.json")
    weights = root / WEIGHTS
    if weights.is_file():
        kept = f"{weights.stat().st_size / 1e6:.1f} MB, SHA-256 {file_sha256(weights)}"
    else:
        kept = "missing" if root != shipped()[name] or ships_weights(name) else NO_WEIGHTS
    return {
        "name": name,
        "description": str(metadata["description"]),
        "version": str(metadata["version"]),
        **({"recipe": recipe} if (recipe := recorded_recipe(root, name)) else {}),
        "weights": kept,
        "licence": "code Apache-2.0; weights from the public set CC BY-NC-SA 4.0 (not for commercial use)",
        "use": str(metadata["intended_use"]),
        "folder": str(root),
    }


def export_torchscript(name_or_path: str, path: Path) -> float:
    """Writes the network as TorchScript that maps `(N, 3, H, W)` to logits `(N, 1, H, W)`.

    Returns:
        the largest absolute difference between its logits and the network's, on noise of 256x256.
    """
    import torch

    from brainseg.writers.atomic import replacing

    network = open_bundle(name_or_path, device="cpu").network
    scripted = torch.jit.script(network)
    with replacing(path) as temporary:
        torch.jit.save(scripted, str(temporary))
    sample = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
        return float((loaded(sample) - network(sample)).abs().max())
