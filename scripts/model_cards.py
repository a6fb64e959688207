#!/usr/bin/env python3
"""Write the bundles' model cards from the runs of scripts/train_all.py.

    python scripts/model_cards.py --data kaggle_3m --runs runs [--bundle NAME]
    python scripts/model_cards.py --data kaggle_3m --runs more --first runs     (train_all.py --out more --weights runs)

bundles/<name>/docs gets README.md, the patients one by one (cross_validation.csv) and three pictures: Dice of every
patient, the training curves, the ten worst patients. The words come from bundles/source/cards/<name>.yaml.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from monai.bundle import ConfigParser

from brainseg.evaluation import from_members, score_patients
from brainseg.members import open_member, training_record
from brainseg.study import find_patients
from brainseg.train import tunables
from brainseg.writers.overlay import contour_grid

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
SITES = {"CS": "#4477aa", "DU": "#66ccee", "EZ": "#228833", "FG": "#ccbb44", "HT": "#ee6677"}
LOOKS = {"all three": "all_sequences", "FLAIR alone": "flair_alone"}
SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of patients with masks")
    parser.add_argument("--runs", type=Path, required=True, help="what scripts/train_all.py wrote")
    parser.add_argument("--first", type=Path, help="the runs that those began with")
    parser.add_argument("--bundle", action="append", help="again for more; all that ship weights without it")
    args = parser.parse_args()
    for name in args.bundle or sorted(
        path.name for path in args.runs.iterdir() if (BUNDLES / path.name / "models").is_dir()
    ):
        docs = BUNDLES / name / "docs"
        docs.mkdir(exist_ok=True)
        folds = sorted(path for path in (args.runs / name).glob("fold_*") if path.is_dir())
        scores = {label: read(args.runs / "scores" / name / folder) for label, folder in LOOKS.items()}
        dice = {label: {row["case"]: float(row["dice"]) for row in rows} for label, (rows, _) in scores.items()}
        write_patients(docs / "cross_validation.csv", folds, dice)
        draw_dice(docs / "dice.png", dice)
        stages = [[runs / name / root.name for root in folds] for runs in (args.first, args.runs) if runs]
        draw_training(docs / "training.png", stages)
        draw_worst(docs / "worst.png", args.data, args.runs / name, dice["all three"])
        figures = {label: figure for label, (_, figure) in scores.items()}
        (docs / "README.md").write_text(card(name, stages, figures))
        print(docs / "README.md")


def read(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The rows of per_patient.csv and the figure of Dice."""
    with (folder / "per_patient.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    figures = json.loads((folder / "summary.json").read_text())["figures"]
    return rows, next(figure for figure in figures if figure["metric"] == "Dice")


def write_patients(path: Path, folds: Sequence[Path], dice: Mapping[str, Mapping[str, float]]) -> None:
    fold_of = {
        case: root.name.removeprefix("fold_") for root in folds for case in training_record(root)["validated_on"]
    }
    with path.open("w", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["case", "fold", "dice", "dice_flair_alone"])
        for case, value in sorted(dice["all three"].items()):
            writer.writerow([case, fold_of[case], f"{value:.4f}", f"{dice['FLAIR alone'][case]:.4f}"])


def draw_dice(path: Path, dice: Mapping[str, Mapping[str, float]]) -> None:
    """Patients in order of Dice, coloured by site; FLAIR alone as a small mark."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.add_subplot()
    order = sorted(dice["all three"], key=lambda case: dice["all three"][case])
    for site, colour in SITES.items():
        own = [k for k, case in enumerate(order) if case.split("_")[1] == site]
        axes.bar(own, [dice["all three"][order[k]] for k in own], width=0.8, color=colour, label=site)
    axes.plot([dice["FLAIR alone"][case] for case in order], "k_", markersize=4, label="FLAIR alone")
    axes.set(xlabel="patients, worst to best", ylabel="Dice", ylim=(0, 1), xlim=(-1, len(order)))
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(ncols=6, fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def draw_training(path: Path, stages: Sequence[Sequence[Path]]) -> None:
    """Dice of the training slices, epoch by epoch, of each fold; `stages` has the same folds, one after another."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.add_subplot()
    for parts in zip(*stages, strict=True):
        dice = [value for root in parts for value in training_dice(root)]
        axes.plot(range(1, len(dice) + 1), dice, linewidth=0.8, label=parts[0].name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel="Dice of training slices", ylim=(0, 1))
    axes.grid(linewidth=0.4)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def training_dice(root: Path) -> list[float]:
    """Of each epoch of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root))
    events.Reload()
    of_epoch = {one.step: one.value for one in events.Scalars("train_dice")}  # a run that was resumed repeats some
    return [of_epoch[epoch] for epoch in sorted(of_epoch)]


def draw_worst(path: Path, data: Path, runs: Path, dice: Mapping[str, float]) -> None:
    worst = sorted(dice, key=lambda case: dice[case])[:SHOWN]
    patients = [patient for patient in find_patients(data) if patient.name in worst]
    member = open_member(str(runs))
    pictures = score_patients(patients, from_members([member]), what=member.what).pictures
    titles = [f"{case.removeprefix('TCGA_').rsplit('_', 1)[0]}  {dice[case]:.2f}" for case in worst]
    figure = contour_grid([pictures[case] for case in worst], titles, columns=5)
    figure.savefig(path, dpi=75, facecolor=figure.get_facecolor(), metadata={"Software": None})


def card(name: str, stages: Sequence[Sequence[Path]], figures: Mapping[str, Mapping[str, Any]]) -> str:
    folds, examples = stages[-1], [roots[0] for roots in stages]  # the folds of a stage differ in their patients alone
    settings = tunables(name) | settings_of(folds[0])
    words = ConfigParser.load_config_file(BUNDLES / "source" / "cards" / f"{name}.yaml")
    rows = [
        {"sequences": label, "mean": f"{one['value']:.3f}", "low": f"{one['low']:.3f}", "high": f"{one['high']:.3f}"}
        | {"median": f"{one['median']:.3f}", "n": one["n"]}
        for label, one in figures.items()
    ]
    template = (BUNDLES / "source" / "card.md.j2").read_text()
    numbers = [root.name.removeprefix("fold_") for root in folds]
    places = ["--out first", "--out runs --weights first"] if len(stages) > 1 else ["--out runs"]
    wanted = f"--bundle {name}" + ("" if len(folds) == 5 else "".join(f" --fold {number}" for number in numbers))
    return (
        jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
        .from_string(template)
        .render(
            name=name,
            title=words["title"],
            network=words["network"],
            worst=words["worst"],
            note=f" {words['note']}" if "note" in words else "",
            temperature=settings["temperature"],
            threshold=settings["threshold"],
            half_too=settings["half_too"],
            smallest=settings["smallest_lesion_voxels"],
            lesion=settings["lesion_probability"],
            weights=words["weights"],
            schedule=" and then for ".join(schedule(name, root) for root in examples),
            folds=", ".join(numbers),
            commands=[f"{place} {wanted} {given(root)}" for place, root in zip(places, examples, strict=True)],
            rows=rows,
        )
    )


def settings_of(root: Path) -> dict[str, Any]:
    """What a run was given over its bundle's own train.json."""
    settings: dict[str, Any] = json.loads((root / "run.json").read_text())["settings"]
    return settings


def given(root: Path) -> str:
    """The same as they are written in a command."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in settings_of(root).items())


def schedule(name: str, root: Path) -> str:
    """Of a run, in words."""
    settings = tunables(name) | settings_of(root)
    per_step, epochs = settings["batch_size"] * settings["slices_per_patient"], settings["max_epochs"]
    steps = epochs * len(training_record(root)["trained_on"]) * settings["slices_per_patient"] // per_step
    coarse = f"the first {settings['coarse_share']:.0%} at half the resolution"
    return f"{epochs} epochs ({steps:,} steps of {per_step} slices, {coarse})"


if __name__ == "__main__":
    main()
