"""Compiled networks on the disk: had again, or compiled again, and never taken from where others can write."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import small_image, small_network

from brainseg.backends import has_openvino
from brainseg.backends import openvino as openvino_engine
from brainseg.backends.cache import KEPT, cache_folder, cached, keep
from brainseg.backends.openvino import OpenVinoEngine
from brainseg.bundle import Bundle, open_bundle


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "brainseg"


def test_the_folder_is_that_of_the_desktops_standard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == folder
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == Path("~/.cache/brainseg").expanduser()


def test_what_was_kept_is_had_again_and_nobody_else_may_read_or_write_it(folder: Path) -> None:
    assert cached("k") is None
    keep("k", b"network")
    assert cached("k") == b"network"
    assert (folder.stat().st_mode & 0o777, (folder / "k.compiled").stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in folder.iterdir()] == ["k.compiled"]


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: b"", lambda body: body[:-1] + b"X"])
def test_a_damaged_file_is_not_taken(folder: Path, damage: object) -> None:
    keep("k", b"network")
    path = folder / "k.compiled"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cached("k") is None


@pytest.mark.parametrize("which", ["", "k.compiled"])
def test_what_others_can_write_is_not_taken(folder: Path, which: str) -> None:
    keep("k", b"network")
    (folder / which).chmod(0o777)
    assert cached("k") is None


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    keep("k", b"network")
    (folder / "k.compiled").rename(tmp_path / "elsewhere")
    (folder / "k.compiled").symlink_to(tmp_path / "elsewhere")
    assert cached("k") is None


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    keep("k", b"network")
    assert cached("k") is None


def test_the_oldest_go(folder: Path) -> None:
    for number in range(KEPT + 2):
        keep(f"k{number:02}", b"network")
        os.utime(folder / f"k{number:02}.compiled", (number, number))
    keep("newest", b"network")
    kept = sorted(path.stem for path in folder.iterdir())
    assert kept == [*(f"k{number:02}" for number in range(3, KEPT + 2)), "newest"]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return replace(open_bundle("residual_unet", device="cpu"), network=small_network("residual_unet"))


@pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
def test_a_compiled_network_is_had_again_without_converting_and_a_damaged_one_compiled_again(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversions = []
    original = openvino_engine._converted
    monkeypatch.setattr(openvino_engine, "_converted", lambda *args: conversions.append(1) or original(*args))
    image = small_image(2)
    first = OpenVinoEngine(bundle, bf16=False).logits(image)
    assert (len(conversions), len(list(folder.iterdir()))) == (1, 1)
    assert torch.equal(OpenVinoEngine(bundle, bf16=False).logits(image), first)
    assert len(conversions) == 1
    (key,) = (path.stem for path in folder.iterdir())
    keep(key, b"whole, and no network")
    assert torch.equal(OpenVinoEngine(bundle, bf16=False).logits(image), first)
    assert len(conversions) == 2


@pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
def test_other_weights_are_another_compiled_network(bundle: Bundle, folder: Path) -> None:
    image = small_image(1)
    first = OpenVinoEngine(bundle, bf16=False).logits(image)
    changed = replace(bundle, network=small_network("residual_unet"))
    with torch.no_grad():
        changed.network[1].bias += 1  # type: ignore[operator]
    torch.testing.assert_close(OpenVinoEngine(changed, bf16=False).logits(image), first + 1, atol=1e-4, rtol=1e-4)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
def test_the_number_of_threads_changes_no_bit(bundle: Bundle) -> None:
    image, threads = small_image(5), torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        try:
            results.append(OpenVinoEngine(bundle, bf16=False).logits(image))
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")
def test_signals_are_handled_after_another_thread_let_go_of_a_network() -> None:
    """In a process of its own, which a segmentation fault would end."""
    script = """
import signal, threading, torch
from brainseg.backends.openvino import _Compiled
signal.signal(signal.SIGINT, lambda *_: print("handled"))
held = [_Compiled(torch.nn.Conv2d(3, 1, 1), torch.zeros(1, 3, 64, 64), "f32")]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
