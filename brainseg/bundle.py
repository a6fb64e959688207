"""Opens a MONAI bundle: its network with verified weights, and its own preprocessing, inferer and clean-up.

Shipped bundles are code of this package and are evaluated. A folder that `brainseg train` wrote gives its weights and
plain JSON only; network and preprocessing come from the shipped bundle it was trained from, with the shipped recipe
that its run.json names laid over them. The configs of any other folder are never evaluated, because a MONAI config is
code, unless the user trusts it, whom `foreign_code` shows what will run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg import __version__
from brainseg.errors import BrainsegError, UntrustedBundleError, UsageError, one_line
from brainseg.foreign import code_of, foreign_file, plain_json, plain_text, same_file
from brainseg.weights import file_sha256, read_weights, refuse_escape

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser

    from brainseg.backends import Engine

Network = Callable[[Any], Any]
log = logging.getLogger(__name__)
DEFAULT = "residual_unet"
RUN_FILE = "run.json"
WEIGHTS = Path("models") / "model.pt"
INFERENCE = Path("configs") / "inference.json"
MANIFEST = Path("models") / "model.pt.sha256"
TRAINING_FILE = Path("models") / "training.json"
USE = (  # tunables that also decide how a trained network is used
    "threshold",
    "temperature",
    "presence_slope",
    "presence_offset",
    "smallest_lesion_voxels",
    "lesion_probability",
    "pixel_mm",
    "half_too",
)
NO_WEIGHTS = "no weights shipped: train it"


@dataclass(frozen=True)
class Bundle:
    """A network ready to segment, with the steps around it as the bundle's own configs define them.

    Attributes:
        name: of the shipped bundle whose configs are used.
        root: the folder the weights come from.
        network: on `device`, in evaluation mode, fp32.
        preprocessing: `{"image": (3, X, Y, Z) MetaTensor}` to the network's frame.
        inferer: `(image (1, 3, X, Y, Z), network) -> logits (1, looks, X, Y, Z)`.
        look: makes of a network one that looks as often as the bundle wants: `(N, 3, H, W)` to `(N, looks, H, W)`.
        probability: `{"image", "pred" (looks, X, Y, Z) logits}` to probability on the native grid.
        mask: probability in `pred` to a cleaned 0/1 mask.
        pixel_mm: in-plane pixel size of the network's frame, taken to be that of a slice without spacing.
        threshold: probability at or above which a voxel is abnormal.
        temperature: what the logits are divided by to make probabilities.
        presence: slope and offset of `presence.presence_probability`.
        weights_sha256: hash of the weights file.
        configs_sha256: hash of how the network is used: the configs, and what a run recorded in their place.
        version: of the bundle, from its metadata.
        recipe: that it was trained by, whose input it takes; empty for the house's own.
        backend: what was asked to run the network; `engine` is what that comes to.
    """

    name: str
    root: Path
    network: torch.nn.Module
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    inferer: Callable[..., Any]
    look: Callable[[Network], Network]
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
    configs_sha256: str = ""

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
    recipe = plain_json(root / RUN_FILE).get("recipe") or ""
    known = recipes(name)
    if recipe and (not isinstance(recipe, str) or recipe not in known):
        remedy = f"only {', '.join(known)} are known: restore it, or train again"
        raise UntrustedBundleError(root / RUN_FILE, f"names the unknown recipe {str(recipe)[:40]!r}", remedy)
    return str(recipe)


def recorded_hash(root: Path) -> str | None:
    """The SHA-256 that a bundle's `models/model.pt.sha256` (sha256sum's format) or a run's `run.json` records."""
    manifest = root / MANIFEST
    if manifest.is_file():
        words = plain_text(manifest).split()
        return words[0] if words else None
    run = root / RUN_FILE
    if run.is_file():
        value = plain_json(run).get("weights_sha256")
        return str(value) if value else None
    return None


def locate(name_or_path: str) -> tuple[str, Path]:
    """(name of the shipped bundle, folder with the weights) for a bundle's name or a folder.

    Raises:
        UsageError: neither a shipped bundle's name nor a folder.
        UntrustedBundleError: a folder whose configs are not those of a shipped bundle, a run of a newer brainseg, or an
            archive that would leave its folder.
    """
    known = shipped()
    if name_or_path in known:
        return name_or_path, known[name_or_path]
    root = Path(name_or_path)
    if root.is_file():
        if zipfile.is_zipfile(root):
            with zipfile.ZipFile(root) as archive:
                refuse_escape(root, archive)
        raise UsageError(name_or_path, "is a file, and a bundle is a folder", "unpack it and give the folder")
    if not root.is_dir():
        raise UsageError(name_or_path, "no bundle of that name and no such folder", f"choose one of {', '.join(known)}")
    if (root / RUN_FILE).is_file():
        run = plain_json(root / RUN_FILE)
        name = run.get("bundle")
        if isinstance(name, str) and name in known:
            _refuse_newer(root / RUN_FILE, str(run.get("brainseg", "")))
            return name, root
    different = str(INFERENCE)
    for name, folder in known.items():
        if same_file(root / INFERENCE, folder / INFERENCE):
            different = foreign_file(root, folder)
            if not different:
                return name, root
    raise UntrustedBundleError(
        root, f"{different} is not that of a shipped bundle, and a config is code", "pass --trust-bundle to run it"
    )


def foreign_code(name_or_path: str) -> list[str]:
    """What `open_bundle(name_or_path, trust=True)` would run that is not brainseg's, a line each; evaluates nothing.

    Raises:
        UsageError: neither a shipped bundle's name nor a folder.
        UntrustedBundleError: configs that cannot be read.
    """
    try:
        _known(name_or_path)
    except UntrustedBundleError:
        root = Path(name_or_path).resolve()
        with _foreign(root):
            parser = read_config(root, "inference")
            parser.resolve_macro_and_relative_ids()
            return [one_line(f"{where}: {text}") for where, text in code_of(parser.get())]
    return []


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
        trust: evaluate the folder's own configs even if they are foreign. They can run any code; see `foreign_code`.

    Raises:
        UsageError: no such bundle, device, backend or threshold, or a shipped bundle without weights.
        UntrustedBundleError: foreign configs, an unknown recipe, or weights that are damaged, missing or of another
            network.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError("--threshold", f"is {threshold}", "give a probability, 0 to 1")
    chosen = choose_device("cpu" if (device, backend) == ("auto", "openvino") else device)
    try:
        name, root, recipe = _known(name_or_path)
    except UntrustedBundleError:
        if not trust:
            raise
        root = Path(name_or_path).resolve()
        with _foreign(root):
            bundle = _opened(root.name, root, root, "", chosen, backend, threshold)
            _refuse_other_channels(bundle)
        return bundle
    if root == shipped().get(name) and not ships_weights(name):
        trained = ", ".join(one for one in shipped() if ships_weights(one))
        remedy = f"train it (brainseg train --bundle {name}) and give its run, or choose one of {trained}"
        raise UsageError(name, "no weights shipped", remedy)
    return _opened(name, root, shipped()[name], recipe, chosen, backend, threshold)


def _known(name_or_path: str) -> tuple[str, Path, str]:
    """Name, folder with the weights and recipe of a bundle whose configs are brainseg's own."""
    name, root = locate(name_or_path)
    return name, root, recorded_recipe(root, name)


def _opened(
    name: str, root: Path, configs: Path, recipe: str, device: torch.device, backend: str, threshold: float | None
) -> Bundle:
    """The bundle with the weights at `root`; evaluates the configs of the folder `configs`."""
    import torch

    parser = _inference(configs, root, recipe, device, threshold)
    network = parser.get_parsed_content("network_def")
    state, weights_sha256 = read_weights(root / WEIGHTS, network.state_dict(), recorded_hash(root))
    network.load_state_dict(state)
    try:
        network.to(device).eval()
    except torch.cuda.OutOfMemoryError:
        log.warning("the GPU has no memory left for the network, which goes to the CPU")
        return _opened(name, root, configs, recipe, torch.device("cpu"), backend, threshold)
    slope, offset = (float(parser.get_parsed_content(f"presence_{one}")) for one in ("slope", "offset"))
    bundle = Bundle(
        name=name,
        root=root,
        network=network,
        preprocessing=parser.get_parsed_content("preprocessing"),
        inferer=parser.get_parsed_content("inferer"),
        look=parser.get_parsed_content("look") if "look" in parser else lambda network: network,
        probability=parser.get_parsed_content("probability"),
        mask=parser.get_parsed_content("mask"),
        device=device,
        pixel_mm=float(parser.get_parsed_content("pixel_mm")),
        threshold=float(parser.get_parsed_content("threshold")),
        temperature=float(parser.get_parsed_content("temperature")),
        presence=(slope, offset),
        weights_sha256=weights_sha256,
        version=str(plain_json(configs / "configs" / "metadata.json")["version"]),
        recipe=recipe,
        backend=backend,
        configs_sha256=_used_hash(configs, root, recipe),
    )
    _ = bundle.engine  # refused here, once, if it cannot be
    return bundle


def _inference(configs: Path, root: Path, recipe: str, device: torch.device, threshold: float | None) -> ConfigParser:
    """The inference.json of `configs`, with what the run at `root` recorded of how its network is to be used."""
    parser = read_config(configs, "inference", recipe)
    parser["device"] = device
    for key, value in ({} if root == configs else recorded_use(root)).items():
        parser[key] = value
    if threshold is not None:
        parser["threshold"] = threshold
    return parser


def _used_hash(configs: Path, root: Path, recipe: str) -> str:
    digest = hashlib.sha256()
    for path in config_files(configs, "inference", recipe):
        digest.update(Path(path).read_bytes())
    digest.update(json.dumps({} if root == configs else recorded_use(root), sort_keys=True).encode())
    return digest.hexdigest()


def recorded_use(root: Path) -> dict[str, float]:
    """The settings of a run that its network is used by, where they are not its bundle's: plain numbers alone."""
    settings = plain_json(root / RUN_FILE).get("settings") if (root / RUN_FILE).is_file() else None
    kept = settings if isinstance(settings, dict) else {}
    return {key: kept[key] for key in USE if isinstance(kept.get(key), int | float)}


@contextmanager
def _foreign(root: Path) -> Iterator[None]:
    """Around foreign configs, which may fail in any way."""
    try:
        yield
    except (BrainsegError, MemoryError):
        raise
    except Exception as error:
        cause = f"its configs give no bundle for brainseg ({type(error).__name__}: {one_line(str(error))[:200]})"
        raise UntrustedBundleError(root, cause, "mend them, or choose another bundle") from error


def _refuse_other_channels(bundle: Bundle) -> None:
    """Refuses a network that does not make one logit of three channels."""
    import torch

    with torch.inference_mode():
        made = tuple(bundle.inferer(torch.zeros(1, 3, 64, 64, 2, device=bundle.device), bundle.network).shape)
    if made != (1, 1, 64, 64, 2):
        cause = f"its network makes {made} of (1, 3, 64, 64, 2), where brainseg needs one channel"
        raise UntrustedBundleError(bundle.root, cause, "choose another bundle")


def with_threshold(bundle: Bundle, threshold: float) -> Bundle:
    """`bundle` with the same network, its mask cut at another threshold.

    Raises:
        ValueError: if its configs are not those of a shipped bundle, so that they cannot be read again safely.
    """
    if bundle.name not in shipped():
        raise ValueError(f"expected a bundle with shipped configs, got {bundle.name}")
    parser = _inference(shipped()[bundle.name], bundle.root, bundle.recipe, bundle.device, threshold)
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
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError("--device", f"{device} is not supported", "give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError("--device", f"{device} is not there", "pass --device cpu, or auto")
    return chosen


def _refuse_newer(path: Path, version: str) -> None:
    """Refuses a run of a later brainseg, whose network or preprocessing may be others."""
    theirs, own = ([int(number) for number in re.findall(r"\d+", one)[:3]] for one in (version, __version__))
    if theirs > own:
        cause = f"was written by brainseg {one_line(version)[:20]}, and this is {__version__}"
        raise UntrustedBundleError(path, cause, "install that version or a later one")


def describe(name_or_path: str) -> dict[str, str]:
    """What there is to say about a bundle, as label -> text; opens no network."""
    name, root = locate(name_or_path)
    metadata = plain_json(shipped()[name] / "configs" / "metadata.json")
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
        written = BytesIO()  # a full disk ends the process where torch writes the file itself
        torch.jit.save(scripted, written)
        temporary.write_bytes(written.getbuffer())
    sample = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
        return float((loaded(sample) - network(sample)).abs().max())
