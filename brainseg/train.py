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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainseg import __version__
from brainseg.bundle import (
    RUN_FILE,
    TRAINING_FILE,
    USE,
    WEIGHTS,
    config_files,
    read_config,
    recipes,
    recorded_recipe,
    shipped,
    ships_weights,
)
from brainseg.datalist import monai_datalist, write_datalist
from brainseg.errors import BrainsegError, InputError, UntrustedBundleError, UsageError, one_line
from brainseg.foreign import code_in_setting, plain_json
from brainseg.members import began_with
from brainseg.slice_dataset import needs_volumes, write_volumes
from brainseg.slice_split import SliceSplit, training_slices
from brainseg.study import Patient
from brainseg.training_faults import faults_of_machine
from brainseg.weights import file_sha256, read_state, read_weights
from brainseg.writers.atomic import remove_partials, replacing
from brainseg.writers.tables import write_json

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

log = logging.getLogger(__name__)
Advance = Callable[[str], None]
Progress = Callable[[int], AbstractContextManager[Advance]]
ALL = -1  # the fold of no patient
COUNTS = ("max_epochs", "batch_size", "slices_per_patient", "val_interval")  # of train.json, none of which may be 0
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
        weights: what the network starts from: a file, "shipped", or nothing.
        by_slice: trained on the training slices of a split by slice, or on slices that carry no patient: for a
            comparison only and never to be shipped.
        recipe: laid over the bundle's configs; empty for the house's own.
        began_with: of the weights that it starts from, see `members.began_with`; empty without any.
    """

    root: Path
    bundle: str
    fold: int
    trained_on: tuple[str, ...]
    validated_on: tuple[str, ...]
    settings: Mapping[str, Any]
    weights: str | None = None
    by_slice: bool = False
    recipe: str = ""
    began_with: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
    weights: str | None = None,
    resume: bool = False,
) -> Run:
    """Lays out `root` as a bundle with its own datalist, ready for `train`.

    With `split` every patient trains (`fold` is `ALL`), on its training slices only. Slices in a format that bundles do
    not read are written to `root` as volumes first. A run that is resumed keeps the recipe that it began with; of
    other settings that are not as they were, which it does not keep, the log tells.

    Raises:
        UsageError: no such bundle, recipe, fold or setting, a `pretrained_encoder` that does not fit, a share of no
            weights, `root` holds a run already and `resume` is not given, or it began with other patients to validate
            on.
        UntrustedBundleError: a setting that is code, or a run to resume that is damaged.
        InputError: no patient to train or to validate on, or none of the slices of `split`.
    """
    recipe_then = recorded_recipe(root, name) if resume and name in shipped() else ""
    known = tunables(name, recipe or recipe_then)
    if fold != ALL and not 0 <= fold < len(folds):
        raise UsageError("--fold", f"there is no fold {fold}", f"give 0 to {len(folds) - 1}, or {ALL} to train on all")
    unknown = [key for key in (settings or {}) if key.split("::")[0].split("#")[0] not in known]
    if unknown:
        raise UsageError(unknown[0], "not a setting of the bundle's train.json", "see its first lines for the tunables")
    check_start(name, settings or {})
    if (settings or {}).get("start_share") and not weights:
        raise UsageError("start_share", "is a share of weights to begin with", "give them by --weights")
    if (root / RUN_FILE).exists() != resume:
        cause = "holds no run to resume" if resume else "holds a run already"
        raise UsageError(root, cause, "leave --resume out" if resume else "pass --resume, or choose another folder")
    by_slice = split is not None or any(patient.alone for patient in patients)
    began = plain_json(root / RUN_FILE) if resume else {}
    if resume and began.get("bundle") != name:
        raise UsageError("--bundle", "is not that which the run began with", "resume with the same")
    if resume and bool(began.get("by_slice")) != by_slice:
        raise UsageError("--split", "is not as it was when the run began", "resume with the options that it began with")
    if resume:
        if recipe not in ("", recipe_then):
            remedy = "leave --recipe out: the run goes on with its own"
            raise UsageError("--recipe", f"the run began with {recipe_then or 'the house recipe'}", remedy)
        recipe = recipe_then
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
        weights=weights,
        by_slice=by_slice,
        recipe=recipe,
        began_with=began.get("began_with") or (began_with(_starting_weights(name, weights)) if weights else {}),
    )
    if not run.trained_on or not (run.validated_on or fold == ALL):
        raise InputError(data, "a fold or its complement has no patient with a mask", "check the folds and the masks")
    if resume and began.get("validated_on", list(run.validated_on)) != list(run.validated_on):
        cause = "other patients validate than when the run began"
        raise UsageError("--fold, --folds", cause, "resume with those that it began with")
    if changed := _changed(began, run):
        log.warning("%s goes on with another %s than it began with, so it ends otherwise", root, ", ".join(changed))
    if not resume:
        _copy_bundle(shipped()[name], root, recipe, {key: value for key, value in run.settings.items() if key in USE})
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


def train(run: Run, data: Path, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Trains; returns the file with the best weights (patient-level Dice on the validation fold).

    Where every patient trains nobody is left to choose by: with `val_interval` at `max_epochs` the last epoch is kept.

    Args:
        run: from `prepare`.
        data: folder that the datalist's paths are relative to.
        resume: go on from the newest training state that can be read, or begin again where none was written yet.
            On the CPU a run that was stopped and resumed ends with the very weights of one that was not.
        progress: called with the number of epochs to come, gives a function to call with a line on each.

    Raises:
        UsageError: weights that are not there.
        BrainsegError: no weights are there, or the loss was no number.
        MachineError: the GPU is out of memory, or the disk full.
    """
    from monai.bundle import ConfigWorkflow

    root = shipped()[run.bundle]
    remove_partials(run.root)
    state = newest_state(run.root) if resume else None
    own = run.root / DATASET
    overrides = {
        **(_one_slice_each(run.bundle) if own.is_dir() else {}),
        "bundle_root": str(root),
        # absolute paths, because a relative one may begin with what MONAI would run
        "dataset_dir": str((own if own.is_dir() else data).absolute()),
        "datalist": str(run.root.absolute() / "datalist.json"),
        "output_dir": str(run.root.absolute()),
        "fold": run.fold,
        "checkpoint": str(state.absolute()) if state else "",
        "weights": str(_starting_weights(run.bundle, run.weights).absolute()) if run.weights else "",
        **({"coarse_share": 0} if run.weights else {}),  # they know what half the resolution teaches
        **run.settings,
    }
    workflow = ConfigWorkflow(
        config_file=config_files(root, "train", run.recipe),
        logging_file=False,
        workflow_type="train",
        **overrides,
    )
    if run.settings.get("amp"):
        warn_of_emulation()
    workflow.initialize()
    to_come = int(workflow.parser.get_parsed_content("max_epochs")) - (_epoch(state) if state else 0)
    with faults_of_machine(run.root), progress(to_come) if progress else nullcontext() as advance:
        if advance is not None:
            _tell_of_epochs(workflow, advance)
        workflow.run()
    workflow.finalize()
    stopped = workflow.parser.get_parsed_content("train#trainer").state
    diverged = bool(stopped.output) and not math.isfinite(float(stopped.output["loss"]))  # none: all was trained
    best = run.root / WEIGHTS
    if not best.is_file() and not diverged:
        raise BrainsegError(run.root, "the training was over and its weights are gone", "train in another folder")
    if best.is_file():
        _record(run, weights_sha256=file_sha256(best))
        interval, epochs = map(workflow.parser.get_parsed_content, ("val_interval", "max_epochs"))
        record = {"bundle": run.bundle, "fold": run.fold}
        record |= {"trained_on": run.trained_on, "validated_on": run.validated_on}
        record["chosen_by"] = run.validated_on if interval < epochs else ()
        write_json(run.root / TRAINING_FILE, record | _apart(run))
    if diverged:
        cause = f"the loss was no number in epoch {stopped.epoch}, so training stopped there"
        kept = "its last good weights are kept; lower learning_rate, and --resume"
        raise BrainsegError(run.root, cause, kept if best.is_file() else "lower learning_rate, and train again")
    return best


def _tell_of_epochs(workflow: ConfigWorkflow, advance: Advance) -> None:
    """Calls `advance` after each epoch, once it was validated where it is."""
    from ignite.engine import Engine, Events

    trainer, evaluator = (workflow.parser.get_parsed_content(one) for one in ("train#trainer", "validate#evaluator"))

    def tell(engine: Engine) -> None:
        line = f"epoch {engine.state.epoch}, loss {float(engine.state.output['loss']):.3f}"
        validated = evaluator.state.epoch == engine.state.epoch and evaluator.state.metrics
        advance(line + (f", validation Dice {evaluator.state.metrics['val_dice_mean']:.3f}" if validated else ""))

    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell)


def warn_of_emulation() -> None:
    """Tells the log where `amp` would make a training slower by far: on a CPU that does not compute in bfloat16."""
    import torch

    from brainseg.backends import has_bfloat16

    if not torch.cuda.is_available() and not has_bfloat16():
        log.warning("amp: this CPU does not compute in bfloat16 and takes many times as long with it; leave amp out")


def _one_slice_each(name: str) -> dict[str, int]:
    """Settings that give a batch its usual number of slices where each is a volume of its own, seen once an epoch."""
    usual = tunables(name)
    return {"slices_per_patient": 1, "batch_size": usual["batch_size"] * usual["slices_per_patient"]}


def told_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` as a run tells of them: of a path, which names places and people, its last part."""
    return {
        key: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for key, value in settings.items()
    }


def newest_state(root: Path) -> Path | None:
    """The newest training state under `root` that can be read, one that cannot is named in the log; None without any.

    Raises:
        UsageError: there are some, but none can be read.
    """
    states = sorted((root / "models").glob("state_checkpoint_epoch=*.pt"), key=_epoch, reverse=True)
    for path in states:
        try:
            read_state(path)
        except UntrustedBundleError as error:
            log.warning("%s cannot be read (%s); going back to the one before", path.name, error.cause)
            continue
        return path
    if states:
        raise UsageError(root, "holds no training state that can be read", "train again in another folder")
    log.warning("%s holds no training state yet; beginning again", root)
    return None


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
    usual = tunables(name, recipe)
    for key, value in settings.items():
        if option := OPTIONS.get(re.split("::|#", key)[0]):
            raise UsageError(key, "is not a setting", f"give it by {option}")
        if code := code_in_setting(key, value):
            raise UntrustedBundleError(key, f"holds code ({one_line(code)[:80]})", "give a plain value")
        _check_number(key, value, usual.get(key))
    _check_encoder(shipped()[name], settings.get("pretrained_encoder"))
    if weights:
        parser = read_config(shipped()[name], "train", recipe)
        for key, value in settings.items():
            parser[key] = value
        read_weights(_starting_weights(name, weights), parser.get_parsed_content("network_def").state_dict())


def _check_number(key: str, value: object, usual: object) -> None:
    """That a setting is a number where it usually is, and a count one that things can be counted by."""
    if not isinstance(usual, int | float) or isinstance(usual, bool):
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError(key, f"is {one_line(str(value))[:80]}", f"give a number, such as {usual}")
    if key in COUNTS and (value != int(value) or value < 1):
        raise UsageError(key, f"is {value}", f"give a whole number from 1, such as {usual}")


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


def _copy_bundle(bundle: Path, root: Path, recipe: str, use: Mapping[str, Any]) -> None:
    """A copy of a shipped bundle without its weights, each config complete in itself with its recipe and `use`."""
    left_out = shutil.ignore_patterns("models", "__pycache__", *(["recipes"] if recipe else []))
    shutil.copytree(bundle, root, dirs_exist_ok=True, ignore=left_out, copy_function=_copy)
    for kind in ("train", "evaluate", "inference") if recipe or use else ():
        from monai.bundle import ConfigParser

        content = ConfigParser.load_config_files(config_files(bundle, kind, recipe))
        write_json(root / "configs" / f"{kind}.json", {**content, **use})


def _copy(source: str, target: str) -> None:
    with replacing(Path(target)) as partial:
        shutil.copyfile(source, partial)


def _apart(run: Run) -> dict[str, Any]:
    """What sets a run apart from others."""
    kept = {"by_slice": run.by_slice, "recipe": run.recipe, "began_with": run.began_with}
    return {key: value for key, value in kept.items() if value}


def _changed(began: Mapping[str, Any], run: Run) -> list[str]:
    """Settings of `run` that are not those it began with, by what its run.json says."""
    now = {**told_settings(run.settings), "weights": _name(run.weights)}
    before = {**began.get("settings", now), "weights": began.get("weights", now["weights"])}
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _name(weights: str | None) -> str | None:
    return weights and Path(weights).name


def _record(run: Run, *, weights_sha256: str | None) -> None:
    content = {
        "brainseg": __version__,
        "bundle": run.bundle,
        "fold": run.fold,
        "trained_on": run.trained_on,
        "validated_on": run.validated_on,
        "settings": told_settings(run.settings),
        "weights": _name(run.weights),
        "weights_sha256": weights_sha256,
        **_apart(run),
    }
    write_json(run.root / RUN_FILE, content)
