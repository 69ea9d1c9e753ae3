"""The generator as a decoder: losses against plain formulas, and what a training with reconstructions computes."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from labelmint_export.errors import CheckpointError, TrainingError
from labelmint_export.gan.autoencoder import (
    Encoder,
    divergence_from_normal,
    reconstruction_step,
)
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.growing import load_networks, save_networks, start_from
from labelmint_export.gan.state import load_state, make_state
from labelmint_export.gan.trainer import Schedule, train
from labelmint_export.generator import Generator
from labelmint_export.pyramid import laplacian_levels
from tests.export.tiny_parts import make_config, make_pictures
from tests.export.trainings import make_decoding_config, read_fitted, run_until

CPU = torch.device("cpu")
LINE = np.array([1.0, 3.0, 3.0, 1.0]) / 8


def test_divergence_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(2, 5, 7)
    here = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(here, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
    assert float(divergence_from_normal(mean, log_variance)) == pytest.approx(float(expected), rel=1e-5)


def test_reconstruction_reaches_every_weight_but_mapping_and_noise() -> None:
    torch.manual_seed(0)
    config = make_config()
    generator, encoder = Generator(config), Encoder(config, config.channels)
    real = torch.randn(4, 3, 16, 16).tanh()
    before = generator.mapping.w_avg.clone()
    result = reconstruction_step(generator, encoder, real, kl_weight=0.1, w_avg_beta=0.5, compute_dtype=torch.float32)
    assert math.isfinite(result.distance)
    assert result.divergence > 0
    assert not torch.equal(generator.mapping.w_avg, before)
    untouched = {name for name, p in generator.named_parameters() if p.grad is None}
    mapping_or_noise = {n for n, _ in generator.named_parameters() if n.startswith("mapping.") or "noise_str" in n}
    assert untouched == mapping_or_noise
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_variance_is_bounded() -> None:
    torch.manual_seed(0)
    config = make_config()
    encoder = Encoder(config, config.channels)
    with torch.no_grad():
        encoder.out.bias.fill_(1e6)
        _, log_variance = encoder(torch.zeros(2, 3, 16, 16))
    assert float(log_variance.max()) == 4.0


# --- training ---------------------------------------------------------------------------------------------------------


def make_autoencoding_config(resolution: int = 16) -> TrainConfig:
    """Ten pictures (three steps of four) without a discriminator, then a reconstruction every second step."""
    return dataclasses.replace(
        make_decoding_config(resolution), autoencoder_images=10, reconstruction_rate=0.5, reconstruction_interval=2
    )


def test_resumed_autoencoding_is_bit_identical(tmp_path: Path) -> None:
    whole = run_until(make_state(make_autoencoding_config(), CPU), 24, tmp_path / "whole")
    parts = run_until(make_state(make_autoencoding_config(), CPU), 4, tmp_path / "parts")
    for total in (8, 12, 16, 24):
        torch.randn(7)
        parts = run_until(load_state(tmp_path / "parts", CPU), total, tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []
    assert {"encoder", "autoencoder_optimizer"} <= {name.split(".")[0] for name in whole}


def test_discriminator_starts_with_the_eyes_of_the_encoder(tmp_path: Path) -> None:
    state = make_state(make_autoencoding_config(), CPU)
    fresh = {name: p.detach().clone() for name, p in state.discriminator.named_parameters()}
    run_until(state, 12, tmp_path)
    assert read_fitted(state) is False
    assert not (tmp_path / "generator.safetensors").exists()
    for name, parameter in state.discriminator.named_parameters():
        assert torch.equal(parameter, fresh[name]), name
    assert state.autoencoding is not None
    of_encoder = {name: p.detach().clone() for name, p in state.autoencoding.encoder.named_parameters()}
    run_until(state, 16, tmp_path)
    assert read_fitted(state) is True
    assert (tmp_path / "generator.safetensors").exists()
    for name, parameter in state.discriminator.named_parameters():
        start = of_encoder[name] if name.startswith("blocks.") else fresh[name]
        moved = float((parameter.detach() - start).abs().max())
        assert 0 < moved < 5 * state.config.learning_rate, name  # one step of Adam, and one of the penalty


def test_networks_without_a_mapping_need_an_encoder(tmp_path: Path) -> None:
    run_until(make_state(make_autoencoding_config(), CPU), 12, tmp_path)
    config = dataclasses.replace(make_autoencoding_config(), autoencoder_images=0, reconstruction_rate=0.0)
    with pytest.raises(TrainingError, match="reconstruction_rate is 0, expected more than 0"):
        run_until(start_from(tmp_path, config, CPU), 4, tmp_path / "next")
    reconstructing = dataclasses.replace(config, reconstruction_rate=1.0)
    state = start_from(tmp_path, reconstructing, CPU)
    assert read_fitted(state) is False
    run_until(state, 4, tmp_path / "next")
    assert read_fitted(state) is True


def test_mapping_may_take_another_shape_until_it_has_learned(tmp_path: Path) -> None:
    run_until(make_state(make_autoencoding_config(), CPU), 12, tmp_path / "old")
    config = dataclasses.replace(make_autoencoding_config(), autoencoder_images=0)
    wider = dataclasses.replace(
        config, generator=dataclasses.replace(config.generator, mapping_layers=3, hidden_dim=14)
    )
    state = start_from(tmp_path / "old", wider, CPU)
    old = load_state(tmp_path / "old", CPU)
    for name, tensor in old.ema.synthesis.state_dict().items():
        assert torch.equal(state.ema.synthesis.state_dict()[name], tensor), name
    run_until(state, 4, tmp_path / "new")
    narrower = dataclasses.replace(wider, generator=config.generator)
    with pytest.raises(CheckpointError, match=r"mapping\.layers\.0\.\S+ of \S+ does not fit the new settings"):
        start_from(tmp_path / "new", narrower, CPU)


def test_of_an_autoencoder_only_what_has_learned_is_kept(tmp_path: Path) -> None:
    run_until(make_state(make_autoencoding_config(), CPU), 8, tmp_path / "run")
    save_networks(load_networks(tmp_path / "run"), tmp_path / "kept")
    tensors = safetensors.torch.load_file(tmp_path / "kept" / "networks.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"ema", "encoder"}
    kept, whole = load_networks(tmp_path / "kept"), load_networks(tmp_path / "run")
    assert (kept.mapping_fitted, kept.images) == (False, 8)
    for name, tensor in whole.ema.state_dict().items():
        torch.testing.assert_close(kept.generator.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)  # float16


def test_latents_of_an_autoencoder_keep_their_space() -> None:
    config = make_autoencoding_config()
    with pytest.raises(TrainingError, match="z_dim is 8, expected 16 like w_dim"):
        dataclasses.replace(config, generator=dataclasses.replace(config.generator, z_dim=8, w_dim=16))


def test_autoencoder_learns_to_reconstruct(tmp_path: Path) -> None:
    config = dataclasses.replace(make_autoencoding_config(), autoencoder_images=1200, learning_rate=0.005)
    state = make_state(config, CPU)
    pictures = torch.from_numpy(make_pictures(11, 16)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def distance() -> float:
        assert state.autoencoding is not None
        with torch.no_grad():
            w, _ = state.autoencoding.encoder(pictures)
            ws = w[:, None].expand(-1, state.config.generator.num_ws, -1)
            return float(laplacian_levels(state.generator.synthesis(ws, "none").image, pictures).mean())

    before = distance()
    folder = tmp_path / "run"
    folder.mkdir()
    train(state, make_pictures(11, 16), Schedule(total_images=1200, snapshot_images=10_000), folder)
    assert distance() < 0.5 * before


def test_grown_encoder_sees_the_halved_picture_as_before(tmp_path: Path) -> None:
    run_until(make_state(make_autoencoding_config(), CPU), 24, tmp_path / "old")
    old = load_state(tmp_path / "old", CPU)
    save_networks(load_networks(tmp_path / "old"), tmp_path / "kept")
    grown = start_from(tmp_path / "old", make_autoencoding_config(32), CPU)
    kept = start_from(tmp_path / "kept", make_autoencoding_config(32), CPU)
    assert old.autoencoding is not None
    assert grown.autoencoding is not None
    assert kept.autoencoding is not None
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    kernel = torch.from_numpy(np.outer(LINE, LINE)).float().expand(3, 1, 4, 4)
    small = torch.nn.functional.conv2d(image, kernel, stride=2, padding=1, groups=3)
    with torch.no_grad():
        expected = old.autoencoding.encoder(small)[0]
        torch.testing.assert_close(grown.autoencoding.encoder(image)[0], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(kept.autoencoding.encoder(image)[0], expected, rtol=0, atol=2e-2)  # float16
