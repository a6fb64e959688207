"""Bundles and weights that are damaged, of another network, or written by somebody else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from faults.exploits import EXPLOITS, NAME, Canary, copy_of, edit, patients, replace_weights, saved, segment
from faults.fault import Met, Situation
from monai.networks.nets import BasicUNet

from brainseg.app.visit import Networks
from brainseg.bundle import MANIFEST, WEIGHTS, shipped
from brainseg.errors import UntrustedBundleError

GROUP = "bundle, weights"


def refused(spoil: Callable[[Path], None], says: str, code: int = 6) -> Callable[[Met], None]:
    """Plays a segmentation with a spoiled copy of a bundle, which must end in one line, before any result."""

    def play(met: Met) -> None:
        root = copy_of(NAME, met)
        spoil(root)
        got, lines = met.command(*segment(met, root))
        assert (got, len(lines)) == (code, 1), (got, lines)
        assert lines[0].startswith(f"error: {root}"), lines
        assert says in lines[0], lines
        assert not (met.out / "cohort.csv").exists()

    return play


def flipped(root: Path) -> None:
    content = bytearray((root / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (root / WEIGHTS).write_bytes(content)


def without_hash(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    def play(root: Path) -> None:
        spoil(root)
        (root / MANIFEST).unlink()

    return play


def truncated(root: Path) -> None:
    content = (root / WEIGHTS).read_bytes()
    (root / WEIGHTS).write_bytes(content[: len(content) // 2])


def state() -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(shipped()[NAME] / WEIGHTS, weights_only=True)
    return loaded


def other_channels(root: Path) -> None:
    first, *_ = (key for key, value in state().items() if value.ndim == 4 and value.shape[1] == 3)
    replace_weights(root, saved({**state(), first: state()[first][:, :1]}))


def not_finite(root: Path) -> None:
    first = next(iter(state()))
    replace_weights(root, saved({**state(), first: torch.full_like(state()[first], float("nan"))}))


def device(root: Path) -> None:
    (root / WEIGHTS).unlink()
    (root / WEIGHTS).symlink_to("/dev/zero")


def pipe(root: Path) -> None:
    (root / WEIGHTS).unlink()
    os.mkfifo(root / WEIGHTS)


def one_byte_more(root: Path) -> None:
    with (root / "configs" / "inference.json").open("a") as stream:
        stream.write(" ")


def run_json(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "run.json").write_text(text)

    return write


def every_command(met: Met) -> None:
    root, canary = copy_of(NAME, met), Canary(met.folder / "canary")
    edit(root / "configs" / "inference.json", threshold=f"${canary.expression} or 0.5")
    data = patients(met)
    for arguments in (
        ("evaluate", "--data", data, "--bundle", root, "--out", met.out / "scores"),
        ("compare", root, NAME, "--data", data, "--out", met.out / "compared"),
        ("saliency", data / "p0", "--bundle", root, "--out", met.out / "seen"),
        ("follow", met.sound, data / "p0", "--bundle", root, "--out", met.out / "followed", "--days", "0,9"),
        ("bundle", "verify", root),
        ("bundle", "info", root),
        ("bundle", "export", root, "--out", met.out / "network.ts"),
    ):
        code, lines = met.command(*arguments)
        assert (code, len(lines)) == (6, 1), (arguments, lines)
        assert "pass --trust-bundle" in lines[0], lines
    try:
        Networks([str(root)]).get(str(root))  # of `brainseg app`
    except UntrustedBundleError:
        pass
    else:
        raise AssertionError("the page opened a foreign bundle")
    assert not canary.path.exists()


def shown_before_it_runs(met: Met) -> None:
    root = copy_of(NAME, met)
    edit(root / "configs" / "inference.json", threshold="$__import__('sys').stderr.write('it runs\\n') and 0.5")
    code, lines = met.command(*segment(met, root), "--trust-bundle")
    assert code == 0, lines
    assert lines[0] == f"warning: {root} is not one of brainseg's; opening it runs"
    shown = lines.index("    threshold: $__import__('sys').stderr.write('it runs\\n') and 0.5")
    assert any(line.startswith("    unet::_target_: UNet") for line in lines), lines
    assert shown < lines.index("it runs")


def trusted_but_useless(spoil: Callable[[Path], None], says: str) -> Callable[[Met], None]:
    def play(met: Met) -> None:
        root = copy_of(NAME, met)
        spoil(root)
        code, lines = met.command(*segment(met, root), "--trust-bundle")
        assert code == 6, lines
        assert says in lines[-1], lines

    return play


def without_preprocessing(root: Path) -> None:
    path = root / "configs" / "inference.json"
    content = json.loads(path.read_text())
    del content["preprocessing"], content["probability"]
    path.write_text(json.dumps(content))


def one_channel(root: Path) -> None:
    network = {"_target_": "BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "features": [4] * 6}
    edit(root / "configs" / "inference.json", network_def=network)
    replace_weights(root, saved(BasicUNet(2, 1, 1, features=[4] * 6).state_dict()))


FAULTS = [
    *(Situation(GROUP, exploit.what, exploit.play) for exploit in EXPLOITS),
    Situation(GROUP, "foreign $, by every command that opens a bundle", every_command),
    Situation(GROUP, "foreign $, trusted: shown before it runs", shown_before_it_runs),
    Situation(GROUP, "flipped bit", refused(flipped, "its SHA-256 is not the recorded one")),
    Situation(GROUP, "flipped bit, no hash recorded", refused(without_hash(flipped), "damaged")),
    Situation(GROUP, "truncated", refused(truncated, "its SHA-256 is not the recorded one")),
    Situation(GROUP, "truncated, no hash recorded", refused(without_hash(truncated), "damaged")),
    Situation(
        GROUP,
        "wrong architecture",
        refused(
            lambda root: replace_weights(root, (shipped()["basic_unet"] / WEIGHTS).read_bytes()),
            "made for another network",
        ),
    ),
    Situation(GROUP, "wrong channels", refused(other_channels, "made for another network (1 of")),
    Situation(GROUP, "wrong channels, trusted", trusted_but_useless(one_channel, "give no bundle for brainseg")),
    Situation(
        GROUP, "configs without preprocessing, trusted", trusted_but_useless(without_preprocessing, "preprocessing")
    ),
    Situation(GROUP, "NaN in the weights", refused(not_finite, "holds NaN")),
    Situation(GROUP, "weights that are a device without an end", refused(device, "is not a plain file")),
    Situation(GROUP, "weights that are a pipe", refused(pipe, "is not a plain file")),
    Situation(GROUP, "no weights", refused(lambda root: (root / WEIGHTS).unlink(), "no weights there")),
    Situation(GROUP, "configs that differ by one byte", refused(one_byte_more, "configs/inference.json is not that")),
    Situation(
        GROUP,
        "newer schema",
        refused(
            lambda root: edit(root / "configs" / "metadata.json", schema="of 2031"), "configs/metadata.json is not"
        ),
    ),
    Situation(
        GROUP,
        "run of a newer brainseg",
        refused(run_json(f'{{"bundle": "{NAME}", "brainseg": "99.1"}}'), "was written by brainseg 99.1"),
    ),
    Situation(GROUP, "run.json cut short", refused(run_json('{"bundle": "resi'), "not readable as JSON")),
    Situation(GROUP, "run.json nested without end", refused(run_json("[" * 100_000), "not readable as JSON")),
    Situation(
        GROUP,
        "recorded hash that is no text",
        refused(lambda root: (root / MANIFEST).write_bytes(b"\xff\xfe\xff"), "not readable as text"),
    ),
]
