"""Trains a shipped bundle on a user's patients; what it leaves is a bundle itself, ready for `--bundle`.

The work is the shipped bundle's own (configs/train.json through MONAI's ConfigWorkflow); this module gives it
patient-level folds, resumes it, and records what the weights come from. The run's folder gets a copy of the bundle, so
that MONAI can use it alone, with its recipe laid over its configs; brainseg itself runs the shipped one, on `--resume`
too.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainseg import __version__
from brainseg.bundle import (
    RUN_FILE,
    TRAINING_FILE,
    WEIGHTS,
    config_files,
    read_config,
    recipes,
    recorded_recipe,
    shipped,
    ships_weights,
)
from brainseg.datalist import monai_datalist, write_datalist
from brainseg.errors import BrainsegError, InputError, MachineError, UntrustedBundleError, UsageError, one_line
from brainseg.foreign import code_in_setting, plain_json
from brainseg.slice_dataset import needs_volumes, write_volumes
from brainseg.slice_split import SliceSplit, training_slices
from brainseg.study import Patient
from brainseg.weights import file_sha256, read_state, read_weights
from brainseg.writers.atomic import of_machine
from brainseg.writers.tables import write_json

log = logging.getLogger(__name__)
ALL = -1  # the fold of no patient
LOUD = (
    "monai.handlers.StatsHandler",
    "ignite.handlers.terminate_on_nan.TerminateOnNan",
)  # loggers that print on their own
OPTIONS = {  # of train.json, which options of the command set
    "bundle_root": "--bundle",
    "dataset_dir": "--data",
    "datalist": "--data",
    "output_dir": "--out",
    "fold": "--fold",
    "checkpoint": "--resume",
    "weights": "--weights",
}
DATASET = (
    "dataset"  # of a run, for slices that its bundle cannot read; there a bundle looks when it is told of no other
)


@dataclass(frozen=True)
class Run:
    """A folder of training: what was asked for and where it is.

    Attributes:
        root: bundle folder with configs/, models/, datalist.json, run.json and TensorBoard events.
        bundle: name of the shipped bundle it was made from.
        fold: fold that validates; `ALL` when every patient trains.
        trained_on, validated_on: case names.
        settings: the tunables given to train.json.
        by_slice: trained on the training slices of a split by slice, or on slices that carry no patient: for a
            comparison only and never to be shipped.
        recipe: laid over the bundle's configs; empty for the house's own.
    """

    root: Path
    bundle: str
    fold: int
    trained_on: tuple[str, ...]
    validated_on: tuple[str, ...]
    settings: Mapping[str, Any]
    by_slice: bool = False
    recipe: str = ""


def prepare(
    name: str,
    patients: Sequence[Patient],
    folds: Sequence[Sequence[str]],
    data: Path,
    root: Path,
    *,
    fold: int = 0,
    settings: Mapping[str, Any] | None = None,
    split: SliceSplit | None = None,
    recipe: str = "",
    resume: bool = False,
) -> Run:
    """Lays out `root` as a bundle with its own datalist, ready for `train`.

    With `split` every patient trains (`fold` is `ALL`), on its training slices only. Slices in a format that bundles do
    not read are written to `root` as volumes first. A run that is resumed keeps the recipe that it began with.

    Raises:
        UsageError: no such bundle, recipe, fold or setting, a `pretrained_encoder` that does not fit, or `root` holds
            a run already and `resume` is not given.
        UntrustedBundleError: a setting that is code, or a run to resume that is damaged.
        InputError: no patient to train or to validate on, or none of the slices of `split`.
    """
    known = tunables(name, recipe)
    if fold != ALL and not 0 <= fold < len(folds):
        raise UsageError("--fold", f"there is no fold {fold}", f"give 0 to {len(folds) - 1}, or {ALL} to train on all")
    unknown = [key for key in (settings or {}) if key.split("::")[0].split("#")[0] not in known]
    if unknown:
        raise UsageError(unknown[0], "not a setting of the bundle's train.json", "see its first lines for the tunables")
    check_start(name, settings or {})
    if (root / RUN_FILE).exists() != resume:
        cause = "holds no run to resume" if resume else "holds a run already"
        raise UsageError(root, cause, "leave --resume out" if resume else "pass --resume, or choose another folder")
    by_slice = split is not None or any(patient.alone for patient in patients)
    if resume and plain_json(root / RUN_FILE).get("bundle") != name:
        raise UsageError("--bundle", "is not that which the run began with", "resume with the same")
    if resume and _by_slice(root) != by_slice:
        raise UsageError("--split", "is not as it was when the run began", "resume with the options that it began with")
    if resume:
        began = recorded_recipe(root, name)
        if recipe not in ("", began):
            remedy = "leave --recipe out: the run goes on with its own"
            raise UsageError("--recipe", f"the run began with {began or 'the house recipe'}", remedy)
        recipe = began
    listed = monai_datalist(patients, folds, base=data)
    if split is not None:
        listed = training_slices(listed, split)
    items = listed["training"]
    run = Run(
        root=root,
        bundle=name,
        fold=fold,
        trained_on=tuple(item["case"] for item in items if item["fold"] != fold),
        validated_on=tuple(item["case"] for item in items if item["fold"] == fold),
        settings=dict(settings or {}),
        by_slice=by_slice,
        recipe=recipe,
    )
    if not run.trained_on or not (run.validated_on or fold == ALL):
        raise InputError(data, "a fold or its complement has no patient with a mask", "check the folds and the masks")
    if not resume:
        _copy_bundle(shipped()[name], root, recipe)
        if needs_volumes(patients):
            pixel_mm = float((settings or {}).get("pixel_mm", known["pixel_mm"]))
            listed = write_volumes(listed, patients, data, root / DATASET, pixel_mm=pixel_mm)
        write_datalist(root / "datalist.json", listed)
        _record(run, weights_sha256=None)
    return run


def tunables(name: str, recipe: str = "") -> dict[str, Any]:
    """What the train.json of a shipped bundle sets, and a recipe over it.

    Raises:
        UsageError: no such bundle or recipe.
    """
    if name not in shipped():
        raise UsageError(name, "no bundle of that name", f"choose one of {', '.join(shipped())}")
    if recipe and recipe not in recipes(name):
        raise UsageError("--recipe", f"no recipe is called {recipe}", f"choose one of {', '.join(recipes(name))}")
    content: dict[str, Any] = {}
    for path in config_files(shipped()[name], "train", recipe):
        content |= json.loads(Path(path).read_text(encoding="utf-8"))
    return content


def train(run: Run, data: Path, *, weights: str | None = None, resume: bool = False) -> Path:
    """Trains; returns the file with the best weights (patient-level Dice on the validation fold).

    Where every patient trains nobody is left to choose by: with `val_interval` at `max_epochs` the last epoch is kept.

    Args:
        run: from `prepare`.
        data: folder that the datalist's paths are relative to.
        weights: a state_dict to start from; "shipped" for those of the shipped bundle.
        resume: go on from the newest training state that can be read.

    Raises:
        UsageError: weights that are not there.
        BrainsegError: training ended without weights (validation never came), or the loss was no number.
        MachineError: the GPU is out of memory, or the disk full.
    """
    from monai.bundle import ConfigWorkflow

    root = shipped()[run.bundle]
    own = run.root / DATASET
    overrides = {
        **(_one_slice_each(run.bundle) if own.is_dir() else {}),
        "bundle_root": str(root),
        # absolute paths, because a relative one may begin with what MONAI would run
        "dataset_dir": str((own if own.is_dir() else data).absolute()),
        "datalist": str(run.root.absolute() / "datalist.json"),
        "output_dir": str(run.root.absolute()),
        "fold": run.fold,
        "checkpoint": str(newest_state(run.root).absolute()) if resume else "",
        "weights": str(_starting_weights(run.bundle, weights).absolute()) if weights else "",
        **({"coarse_share": 0} if weights else {}),  # they know what half the resolution teaches
        **run.settings,
    }
    workflow = ConfigWorkflow(
        config_file=config_files(root, "train", run.recipe),
        logging_file=False,
        workflow_type="train",
        **overrides,
    )
    workflow.initialize()
    with _faults_of_machine(run.root):
        workflow.run()
    workflow.finalize()
    stopped = workflow.parser.get_parsed_content("train#trainer").state
    diverged = not math.isfinite(float(stopped.output[0]["loss"]))
    best = run.root / WEIGHTS
    if not best.is_file() and not diverged:
        raise BrainsegError(run.root, "no validation in the epochs given, so no weights", "lower val_interval")
    if best.is_file():
        _record(run, weights_sha256=file_sha256(best))
        record = {"bundle": run.bundle, "fold": run.fold}
        record |= {"trained_on": run.trained_on, "validated_on": run.validated_on}
        write_json(run.root / TRAINING_FILE, record | _apart(run))
    if diverged:
        cause = f"the loss was no number in epoch {stopped.epoch}, so training stopped there"
        raise BrainsegError(run.root, cause, "its last good weights are kept; lower learning_rate, and --resume")
    return best


@contextmanager
def _faults_of_machine(root: Path) -> Iterator[None]:
    """Says of a GPU without memory and of a full disk what they are; of these PyTorch makes errors of its own.

    What MONAI and ignite print of an error, with its traceback, is left out unless with -v.
    """
    import torch

    def progress_alone(record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING or log.isEnabledFor(logging.DEBUG)

    loggers = [logging.getLogger(name) for name in LOUD]
    for logger in loggers:
        logger.addFilter(progress_alone)
    try:
        yield
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # MONAI wraps what a config's expression raises
            cause = cause.__cause__
        if isinstance(cause, torch.cuda.OutOfMemoryError):
            remedy = "lower batch_size or slices_per_patient, or free the GPU; then --resume"
            raise MachineError(root, "the GPU is out of memory", remedy) from error
        if isinstance(cause, OSError) and (machine := of_machine(cause, root)) is not None:
            raise machine from error
        if "PytorchStreamWriter" not in str(cause) and "unexpected pos" not in str(cause):
            raise
        for partial in (root / "models").glob("*.pt"):
            try:
                read_state(partial)
            except UntrustedBundleError:
                partial.unlink()
        raise MachineError(root, "a checkpoint could not be written", "free some space; then --resume") from error
    finally:
        for logger in loggers:
            logger.removeFilter(progress_alone)


def _one_slice_each(name: str) -> dict[str, int]:
    """Settings that give a batch its usual number of slices where each is a volume of its own, seen once an epoch."""
    usual = tunables(name)
    return {"slices_per_patient": 1, "batch_size": usual["batch_size"] * usual["slices_per_patient"]}


def newest_state(root: Path) -> Path:
    """The newest training state under `root` that can be read; one that cannot is named in the log.

    Raises:
        UsageError: there is none.
    """
    states = sorted((root / "models").glob("state_checkpoint_epoch=*.pt"), key=_epoch, reverse=True)
    for path in states:
        try:
            read_state(path)
        except UntrustedBundleError as error:
            log.warning("%s cannot be read (%s); going back to the one before", path.name, error.cause)
            continue
        return path
    raise UsageError(root, "holds no training state to resume from", "train again without --resume")


def _epoch(path: Path) -> int:
    found = re.search(r"epoch=(\d+)", path.name)
    return int(found[1]) if found else -1


def check_start(name: str, settings: Mapping[str, Any], *, weights: str | None = None, recipe: str = "") -> None:
    """That `settings` are plain values, and `weights` those of the network, before anything is written.

    Raises:
        UsageError: a setting that options of the command set, a `pretrained_encoder` that does not fit, or weights that
            are not there.
        UntrustedBundleError: a setting that is code, or weights that are damaged or of another network.
    """
    for key, value in settings.items():
        if option := OPTIONS.get(re.split("::|#", key)[0]):
            raise UsageError(key, "is not a setting", f"give it by {option}")
        if code := code_in_setting(key, value):
            raise UntrustedBundleError(key, f"holds code ({one_line(code)[:80]})", "give a plain value")
    _check_encoder(shipped()[name], settings.get("pretrained_encoder"))
    if weights:
        parser = read_config(shipped()[name], "train", recipe)
        for key, value in settings.items():
            parser[key] = value
        read_weights(_starting_weights(name, weights), parser.get_parsed_content("network_def").state_dict())


def _starting_weights(name: str, weights: str) -> Path:
    if weights == "shipped" and not ships_weights(name):
        raise UsageError("--weights shipped", f"{name} ships none", "leave --weights out, or give a file")
    path = shipped()[name] / WEIGHTS if weights == "shipped" else Path(weights)
    if not path.exists():
        raise UsageError(path, "no weights there", "give a file, or shipped")
    return path


def _check_encoder(root: Path, pretrained: object) -> None:
    """That a file given as `pretrained_encoder` fits the network, before anything else takes time."""
    if not pretrained or pretrained == "imagenet":
        return
    parser = read_config(root, "train")
    parser["pretrained_encoder"] = pretrained
    try:
        parser.get_parsed_content("network_def")
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValueError):
            raise
        raise UsageError("pretrained_encoder", str(error.__cause__), "give such a file, or imagenet") from None


def _copy_bundle(bundle: Path, root: Path, recipe: str) -> None:
    """A copy of a shipped bundle without its weights, each config that a recipe is laid over complete in itself."""
    left_out = shutil.ignore_patterns("models", "__pycache__", *(["recipes"] if recipe else []))
    shutil.copytree(bundle, root, dirs_exist_ok=True, ignore=left_out)
    for kind in ("train", "evaluate", "inference") if recipe else ():
        from monai.bundle import ConfigParser

        write_json(
            root / "configs" / f"{kind}.json", ConfigParser.load_config_files(config_files(bundle, kind, recipe))
        )


def _apart(run: Run) -> dict[str, Any]:
    """What sets a run apart from those whose weights may be shipped."""
    return {**({"by_slice": True} if run.by_slice else {}), **({"recipe": run.recipe} if run.recipe else {})}


def _by_slice(root: Path) -> bool:
    """Whether the run at `root` trains on a split by slice."""
    return bool(plain_json(root / RUN_FILE).get("by_slice"))


def _record(run: Run, *, weights_sha256: str | None) -> None:
    content = {
        "brainseg": __version__,
        "bundle": run.bundle,
        "fold": run.fold,
        "settings": dict(run.settings),
        "weights_sha256": weights_sha256,
        **_apart(run),
    }
    write_json(run.root / RUN_FILE, content)
