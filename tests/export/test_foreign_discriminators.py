"""Discriminators of other programs: their features are those of the plain algorithm, what differs is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.inversion import discriminators
from labelmint_export.inversion.discriminators import DiscriminatorTrunk, read_discriminator, trunk_from_record
from labelmint_export.inversion.perceptual import load_features
from tests.export.plain_discriminator import (
    Weights,
    make_weights,
    nvidia_discriminator,
    plain_features,
    rosinality_state,
)
from tests.export.tiny_parts import make_config

DATA = Path(__file__).parents[1] / "data/checkpoints"
SNAPSHOT = Path("network-snapshot.pkl")


def check_features(
    trunk: DiscriminatorTrunk, weights: Weights, image_channels: int = 3, conv_clamp: float | None = None
) -> None:
    image = torch.randn(3, image_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = plain_features(weights, image, conv_clamp)
    got = trunk.double()(image.double())
    assert [list(one.shape) for one in got] == [[3, 6, 8, 8], [3, 7, 4, 4]]
    for mine, plain in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


def save_rosinality(path: Path, state: Weights) -> Path:
    torch.save({"g": None, "d": state, "g_ema": None, "latent_avg": None}, path)
    return path


@pytest.mark.parametrize("old", [False, True])
def test_rosinality_computes_the_plain_algorithm(tmp_path: Path, old: bool) -> None:
    weights = make_weights()
    path = save_rosinality(tmp_path / "550000.pt", rosinality_state(weights, old=old))
    check_features(read_discriminator(path), weights)


@pytest.mark.parametrize(
    ("architecture", "image_channels", "conv_clamp"), [("resnet", 3, None), ("orig", 1, None), ("resnet", 3, 0.8)]
)
def test_snapshot_of_any_options_computes_the_plain_algorithm(
    architecture: str, image_channels: int, conv_clamp: float | None
) -> None:
    weights = make_weights(image_channels=image_channels, residual=architecture == "resnet")
    record = nvidia_discriminator(weights, conv_clamp=conv_clamp, architecture=architecture)
    check_features(trunk_from_record(record, SNAPSHOT), weights, image_channels, conv_clamp)


def test_snapshot_is_found_by_its_d(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights()
    content = {"G": None, "D": nvidia_discriminator(weights), "G_ema": None}
    monkeypatch.setattr(discriminators, "read_checkpoint", lambda _: content)
    check_features(read_discriminator(SNAPSHOT), weights)


def test_features_lead_to_the_picture_and_those_of_another_size_are_refused(tmp_path: Path) -> None:
    path = save_rosinality(tmp_path / "550000.pt", rosinality_state(make_weights()))
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    coarsest = load_features(path, make_config(16))(image)[-1]
    assert bool(torch.autograd.grad(coarsest.square().sum(), image)[0].any())
    with pytest.raises(GeneratorError, match="judges pictures 16 pixels wide of 3 channels, expected 32 and 3"):
        load_features(path, make_config(32))


@pytest.mark.parametrize("name", ["stylegan2_ada_32.pkl", "rosinality_32.pt"])
def test_file_without_a_discriminator_says_what_to_give(name: str) -> None:
    with pytest.raises(CheckpointError, match="holds no discriminator, expected D of a snapshot") as error:
        load_features(DATA / name, make_config(32))
    assert error.value.field == "features"


def test_state_dict_of_something_else_is_refused(tmp_path: Path) -> None:
    state = rosinality_state(make_weights())
    for name in ("convs.0.0.weight", "convs.2.skip.1.weight"):
        path = save_rosinality(tmp_path / "d.pt", {n: t for n, t in state.items() if n != name})
        with pytest.raises(CheckpointError, match=f"d has no array {name}") as error:
            read_discriminator(path)
        assert error.value.field == name
    with pytest.raises(CheckpointError, match=r"has no blocks, expected convs\.1\.conv1\.0\.weight"):
        read_discriminator(
            save_rosinality(tmp_path / "d.pt", {n: t for n, t in state.items() if n.startswith("convs.0.")})
        )
    state["convs.1.conv2.1.weight"] = state["convs.1.conv2.1.weight"][:, :2]
    with pytest.raises(CheckpointError, match=r"conv1\.weight .* has shape \[6, 2, 3, 3\], expected \[6, 5, 3, 3\]"):
        read_discriminator(save_rosinality(tmp_path / "d.pt", state))


def test_snapshot_that_computes_something_else_is_refused_by_the_name_of_the_field() -> None:
    record = nvidia_discriminator(make_weights(), architecture="skip")
    with pytest.raises(CheckpointError, match=r"D\.b16\.architecture is 'skip', expected 'resnet' or 'orig'"):
        trunk_from_record(record, SNAPSHOT)
    record = nvidia_discriminator(make_weights())
    for name, value in (("act_gain", 1.0), ("down", 1), ("activation", "relu"), ("conv_clamp", 3.0)):
        block = record.modules["b8"]
        layer = block.modules["conv1"]
        changed = replace(layer, attributes=layer.attributes | {name: value})
        changed = replace(block, modules=block.modules | {"conv1": changed})
        with pytest.raises(CheckpointError) as error:
            trunk_from_record(replace(record, modules=record.modules | {"b8": changed}), SNAPSHOT)
        assert error.value.field == f"D.b8.conv1.{name}"
