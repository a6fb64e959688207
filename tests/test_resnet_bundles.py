"""The ResNet bundles: their encoder starts from ImageNet's weights, and a run's copy of their code is never run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from command import brainseg
from torch.nn import functional

from brainseg.bundle import open_bundle, read_config, shipped
from brainseg.phantom import make_phantom, write_phantom_tiff

DEPTHS = {"resnet34_unet": 34, "resnet50_unet": 50, "resnet50_attention_unet": 50}
BLOCKS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
State = dict[str, torch.Tensor]


def published(depth: int) -> State:
    """A state_dict of noise with the names and shapes of torchvision's ResNet-34 or ResNet-50."""
    state: State = {}
    noise = torch.Generator().manual_seed(depth)

    def convolution(name: str, out: int, into: int, side: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, side, side, generator=noise) * (2 / (into * side**2)) ** 0.5

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = 0.5 + torch.rand(channels, generator=noise)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    into = 64
    for layer, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), 1):
        out = width if depth == 34 else 4 * width
        for block in range(blocks):
            prefix = f"layer{layer}.{block}"
            sides = (3, 3) if depth == 34 else (1, 3, 1)
            channels = [into, *[width] * (len(sides) - 1), out]
            for number, side in enumerate(sides, 1):
                convolution(f"{prefix}.conv{number}", channels[number], channels[number - 1], side)
                norm(f"{prefix}.bn{number}", channels[number])
            if block == 0 and into != out:
                convolution(f"{prefix}.downsample.0", out, into, 1)
                norm(f"{prefix}.downsample.1", out)
            into = out
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, into), torch.zeros(1000)
    return state


def features(state: State, depth: int, image: torch.Tensor) -> list[torch.Tensor]:
    """The five feature maps of the published network, written from its definition (He et al. 2016; stride in 3x3)."""

    def layer(name: str, x: torch.Tensor, number: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{name}conv{number}.weight"]
        return norm(f"{name}bn{number}", functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, weight, bias)

    maps = [layer("", image, "1", 2).relu()]
    x = functional.max_pool2d(maps[0], 3, 2, 1)
    for number, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            name, stride = f"layer{number}.{block}.", 2 if number > 1 and block == 0 else 1
            short = x
            if f"{name}downsample.0.weight" in state:
                short = norm(
                    f"{name}downsample.1", functional.conv2d(x, state[f"{name}downsample.0.weight"], None, stride)
                )
            if depth == 34:
                x = layer(name, layer(name, x, "1", stride).relu(), "2")
            else:
                x = layer(name, layer(name, layer(name, x, "1").relu(), "2", stride).relu(), "3")
            x = (x + short).relu()
        maps.append(x)
    return maps


def network(name: str, kind: str = "train", **settings: Any) -> torch.nn.Module:
    """The network that the bundle's config makes."""
    parser = read_config(shipped()[name], kind)
    parser.update(settings)
    made: torch.nn.Module = parser.get_parsed_content("network_def")
    return made.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Depth -> a file with a published state_dict."""
    folder = tmp_path_factory.mktemp("published")
    paths = {depth: folder / f"resnet{depth}.pth" for depth in (34, 50)}
    for depth, path in paths.items():
        torch.save(published(depth), path)
    return paths


@pytest.mark.parametrize(("depth", "tensors", "parameters"), [(34, 218, 21_797_672), (50, 320, 25_557_032)])
def test_the_tests_state_dict_has_the_published_number_of_parameters(depth: int, tensors: int, parameters: int) -> None:
    state = published(depth)
    learned = [value for key, value in state.items() if key.endswith((".weight", ".bias"))]
    assert (len(state), sum(value.numel() for value in learned)) == (tensors, parameters)


@pytest.mark.parametrize(("name", "depth"), DEPTHS.items())
def test_every_tensor_of_the_encoder_comes_from_the_published_weights(
    name: str, depth: int, files: dict[int, Path]
) -> None:
    state = published(depth)
    encoder = network(name, pretrained_encoder=str(files[depth])).encoder
    own = encoder.state_dict()
    assert own.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(own[key], state[key]) for key in own)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, theirs in zip(encoder(image), features(state, depth, image), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_weights_without_counts_of_batches_are_taken(files: dict[int, Path], tmp_path: Path) -> None:
    state = {key: value for key, value in published(34).items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "older.pth")
    encoder = network("resnet34_unet", pretrained_encoder=str(tmp_path / "older.pth")).encoder
    assert torch.equal(encoder.layer4[2].conv2.weight, state["layer4.2.conv2.weight"])


def test_one_channel_gets_the_sum_of_the_first_convolutions_three(files: dict[int, Path]) -> None:
    settings = {"network_def::in_channels": 1, "pretrained_encoder": str(files[34])}
    first = network("resnet34_unet", **settings).encoder.conv1.weight
    assert torch.allclose(first, published(34)["conv1.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize("name", DEPTHS)
def test_a_side_may_have_any_length(name: str) -> None:
    made = network(name, "inference")
    with torch.inference_mode():
        assert made(torch.zeros(1, 3, 48, 81)).shape == (1, 1, 48, 81)


def test_gates_weigh_each_of_the_four_skip_connections() -> None:
    made = network("resnet50_attention_unet", "inference")
    gates = [block.gate for block in made.decoder.blocks[:4]]
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        open_ = made(image)
        for gate in gates:
            torch.nn.init.constant_(gate.psi[1].bias, -100.0)
            closed = made(image)
            assert not torch.equal(open_, closed)
            open_ = closed


def test_weights_that_cannot_be_fetched_leave_noise_and_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, bool]] = []
    said: list[str] = []

    def unreachable(url: str, check_hash: bool = False, **_: object) -> None:
        asked.append((url, check_hash))
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr(
        logging.getLogger("brainseg.resnet_unet"), "warning", lambda form, *args: said.append(form % args)
    )
    for name in DEPTHS:
        network(name, pretrained_encoder="imagenet")
    assert asked == [
        ("https://download.pytorch.org/models/resnet34-b627a593.pth", True),
        ("https://download.pytorch.org/models/resnet50-0676ba61.pth", True),
        ("https://download.pytorch.org/models/resnet50-0676ba61.pth", True),
    ]
    assert said[0] == f"{asked[0][0]}: not to be had (no route to host); the encoder starts from scratch"
    assert len(said) == 3


def test_training_goes_on_from_scratch_and_says_so_where_nothing_can_be_fetched(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    code = brainseg(
        "train", "--bundle", "resnet34_unet", "--data", data, "--out", tmp_path / "run", "--folds", data / "folds.json",
        "--epochs", 1, "batch_size=1", "num_workers=0", "window=[64, 64]", "pretrained_encoder=imagenet",
    )  # fmt: skip
    assert code == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "scratch" in line]
    assert len(said) == 1
    assert said[0].endswith("not to be had (no route to host); the encoder starts from scratch")


def test_fetched_weights_of_another_hash_are_not_taken(
    files: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import importlib

    network("resnet34_unet")  # its module can be imported from now on
    module = importlib.import_module("resnet34_unet_network")
    fake = files[34].rename(tmp_path / "resnet34-b627a593.pth")
    torch.save(published(34), files[34])
    monkeypatch.setitem(module.PUBLISHED, 34, fake.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with caplog.at_level(logging.WARNING):
        encoder = network("resnet34_unet", pretrained_encoder="imagenet").encoder
    assert not torch.equal(encoder.conv1.weight, published(34)["conv1.weight"])
    assert [record for record in caplog.records if "invalid hash value" in record.getMessage()]


def test_weights_in_the_cache_whose_hash_is_another_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cached = tmp_path / "hub" / "checkpoints" / "resnet34-b627a593.pth"
    cached.parent.mkdir(parents=True)
    torch.save(published(34), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        encoder = network("resnet34_unet", pretrained_encoder="imagenet").encoder
    assert not torch.equal(encoder.conv1.weight, published(34)["conv1.weight"])
    assert [record for record in caplog.records if f"invalid hash value of {cached}" in record.getMessage()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for number in range(2):
        phantom = make_phantom(shape=(64, 64, 4), spacing_mm=(3.6, 3.6, 24.0), seed=number)
        write_phantom_tiff(phantom, folder, f"p{number}")
    (folder / "folds.json").write_text(json.dumps({"folds": [["p0"], ["p1"]]}))
    return folder


@pytest.mark.parametrize(
    ("content", "cause"),
    [(None, "no such file"), (b"no weights", "not a plain state_dict"), (50, "not this encoder's")],
)
def test_a_file_that_is_not_the_encoders_is_a_usage_error(
    content: bytes | int | None, cause: str, data: Path, files: dict[int, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = files[content] if isinstance(content, int) else tmp_path / "encoder.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    arguments = ("--data", data, "--out", tmp_path / "run", "--folds", data / "folds.json")
    assert brainseg("train", "--bundle", "resnet34_unet", *arguments, f"pretrained_encoder={path}") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: pretrained_encoder: ")
    assert cause in said[0]
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_ship_cannot_be_fine_tuned(data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, "--out", tmp_path / "run", "--folds", data / "folds.json", "--weights", "shipped")
    assert brainseg("train", "--bundle", "resnet34_unet", *arguments) == 2


@pytest.fixture(scope="module")
def run(data: Path, files: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch of the ResNet-34 U-Net from published weights; then its copy of the network's code is poisoned."""
    out = tmp_path_factory.mktemp("runs") / "run"
    code = brainseg(
        "train", "--bundle", "resnet34_unet", "--data", data, "--out", out, "--folds", data / "folds.json",
        "--epochs", 1, "batch_size=1", "num_workers=0", "window=[64, 64]", f"pretrained_encoder={files[34]}", "-q",
    )  # fmt: skip
    assert code == 0
    module = out / "resnet34_unet_network.py"
    assert module.read_bytes() == (shipped()["resnet34_unet"] / module.name).read_bytes()
    module.write_text(f"open({str(out / 'ran')!r}, 'w')\n")
    return out


def test_a_run_segments_with_the_shipped_code_and_its_own_weights(run: Path) -> None:
    opened = open_bundle(str(run), device="cpu")
    assert opened.weights_sha256 == json.loads((run / "run.json").read_text())["weights_sha256"]
    assert opened.network.encoder.bn1.running_mean.shape == (64,)
    assert not (run / "ran").exists()


def test_training_moves_the_encoder_away_from_the_weights_it_started_from_but_not_far(run: Path) -> None:
    state, trained = published(34), torch.load(run / "models" / "model.pt", weights_only=True)
    moved = (trained["encoder.conv1.weight"] - state["conv1.weight"]).abs().max()
    assert 0 < moved < 0.01


def test_a_run_resumes_with_the_shipped_code(run: Path, data: Path) -> None:
    code = brainseg(
        "train", "--bundle", "resnet34_unet", "--data", data, "--out", run, "--folds", data / "folds.json",
        "--epochs", 2, "--resume", "batch_size=1", "num_workers=0", "window=[64, 64]", "val_interval=1", "-q",
    )  # fmt: skip
    assert code == 0
    assert (run / "models" / "state_checkpoint_epoch=2.pt").is_file()
    assert not (run / "ran").exists()
