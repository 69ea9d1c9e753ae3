"""A code for each picture: its descent against torch's Adam, and what a training with the stage computes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from labelmint_export.errors import CheckpointError, TrainingError
from labelmint_export.gan import codes as module
from labelmint_export.gan import muon
from labelmint_export.gan.autoencoder import decoding_parameters
from labelmint_export.gan.codes import code_step, make_codes, share_of_rate
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.growing import load_networks, save_networks, start_from
from labelmint_export.gan.state import load_state, make_state
from labelmint_export.gan.trainer import reconstruct_many
from labelmint_export.pictures import to_range
from labelmint_export.pyramid import laplacian_levels
from labelmint_export.stored import read_metadata, write_tensors
from tests.export.tiny_parts import make_generator_of, make_pictures
from tests.export.trainings import make_decoding_config, read_fitted, run_until

CPU = torch.device("cpu")


def make_coding_config() -> TrainConfig:
    """Eight pictures (two steps of four) as an autoencoder, then five steps over the codes of ten pictures at most."""
    return dataclasses.replace(make_decoding_config(), autoencoder_images=8, code_images=20, coded_pictures=10)


def test_codes_and_synthesis_descend_as_torch_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEVIATION", 0.0)
    monkeypatch.setattr(muon, "fast_dtype", lambda device: torch.bfloat16)  # as torch's Muon always
    config = dataclasses.replace(make_coding_config(), compute_dtype="float32", code_rate=0.02, learning_rate=0.004)
    ours, theirs = make_generator_of(config.generator), make_generator_of(config.generator)
    for generator in (ours, theirs):
        generator.requires_grad_(True)
    start = torch.randn(5, 10)
    codes = make_codes(start, ours, config)
    chosen = torch.tensor([3, 1])
    real = torch.randn(2, 3, 16, 16).tanh()

    w = start[chosen].clone().requires_grad_(True)
    of_codes = torch.optim.Adam([w], lr=0.01, betas=module.BETAS)
    kernels = [p for p in decoding_parameters(theirs) if p.ndim == 4 and p.shape[-1] == 3]
    matrices = [torch.nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
    of_kernels = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")  # 0.2 * 0.01
    known = {id(kernel) for kernel in kernels}
    others = [p for p in decoding_parameters(theirs) if id(p) not in known]
    of_synthesis = torch.optim.Adam(others, lr=0.002, betas=(0.9, 0.99))
    for visits in range(3):
        code_step(ours, codes, chosen, real, visits=visits, rate_share=0.5, config=config)
        theirs.zero_grad()
        image = theirs.synthesis(w[:, None, :].expand(-1, config.generator.num_ws, -1), "none").image
        error = image - real
        laplacian = laplacian_levels(image, real).sum(dim=0)  # of each picture
        each = laplacian + 24.0 * error.square().mean(dim=(1, 2, 3)) + 30.0 * error.abs().pow(3).mean(dim=(1, 2, 3))
        (each.mean()).backward(retain_graph=True)
        of_synthesis_grads = [p.grad.clone() for p in decoding_parameters(theirs) if p.grad is not None]
        of_codes.zero_grad()
        (each.sum() + 0.5 * module.DECAY * w.square().sum()).backward()
        for parameter, gradient in zip(decoding_parameters(theirs), of_synthesis_grads, strict=True):
            parameter.grad = gradient
        of_codes.step()
        of_synthesis.step()
        with torch.no_grad():
            for kernel, matrix in zip(kernels, matrices, strict=True):
                assert kernel.grad is not None
                matrix.grad = kernel.grad.flatten(1)
            of_kernels.step()  # type: ignore[no-untyped-call]  # torch's method is untyped
            for kernel, matrix in zip(kernels, matrices, strict=True):
                kernel.copy_(matrix.view_as(kernel))

    torch.testing.assert_close(codes.w[chosen], w.detach(), rtol=0, atol=1e-5)
    for index in (0, 2, 4):
        assert torch.equal(codes.w[index], start[index])
    for mine, yours in zip(decoding_parameters(ours), decoding_parameters(theirs), strict=True):
        rounded = mine.ndim == 4 and mine.shape[-1] == 3  # bfloat16 in another order; these moved by 6e-3
        torch.testing.assert_close(mine, yours, rtol=0, atol=5e-4 if rounded else 1e-4)


def test_rates_fall_along_a_cosine() -> None:
    shares = [share_of_rate(progress) for progress in (0.0, 0.5, 1.0, 2.0)]
    assert shares == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_resumed_stage_of_codes_is_bit_identical(tmp_path: Path) -> None:
    whole = run_until(make_state(make_coding_config(), CPU), 36, tmp_path / "whole")
    parts = run_until(make_state(make_coding_config(), CPU), 8, tmp_path / "parts")
    for total in (12, 20, 24, 28, 36):
        torch.randn(7)
        parts = run_until(load_state(tmp_path / "parts", CPU), total, tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []
    assert whole["codes.w"].shape == (8, 10)  # whole batches of the ten pictures


def test_reconstructions_after_the_codes_may_begin_after_a_resumption(tmp_path: Path) -> None:
    config = dataclasses.replace(
        make_coding_config(), autoencoder_images=0, reconstruction_rate=0.5, reconstruction_interval=4
    )
    whole = run_until(make_state(config, CPU), 40, tmp_path / "whole")
    run_until(make_state(config, CPU), 24, tmp_path / "parts")  # one adversarial step, and no reconstruction yet
    parts = run_until(load_state(tmp_path / "parts", CPU), 40, tmp_path / "parts")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []


def test_stage_leaves_a_generator(tmp_path: Path) -> None:
    state = make_state(make_coding_config(), CPU)
    run_until(state, 12, tmp_path)
    assert state.codes is not None
    assert not (tmp_path / "generator.safetensors").exists()
    assert state.autoencoding is not None
    of_encoder = {name: p.detach().clone() for name, p in state.autoencoding.encoder.named_parameters()}
    before = state.codes.w.clone()
    run_until(state, 28, tmp_path)
    assert read_fitted(state) is True
    assert (tmp_path / "generator.safetensors").exists()
    assert bool((state.codes.w != before).any(dim=1).all())
    for name, parameter in state.autoencoding.encoder.named_parameters():
        assert torch.equal(parameter, of_encoder[name]), name  # it takes no part


def test_stage_starts_from_an_autoencoder(tmp_path: Path) -> None:
    first = dataclasses.replace(make_coding_config(), code_images=0)
    run_until(make_state(first, CPU), 8, tmp_path / "auto")
    config = dataclasses.replace(make_coding_config(), autoencoder_images=0)
    state = start_from(tmp_path / "auto", config, CPU)
    assert read_fitted(state) is False
    run_until(state, 20, tmp_path / "codes")
    assert read_fitted(state) is True
    assert (tmp_path / "codes" / "generator.safetensors").exists()


def test_codes_go_along_and_further_pictures_get_theirs(tmp_path: Path) -> None:
    few = dataclasses.replace(make_coding_config(), autoencoder_images=6, coded_pictures=4, compute_dtype="float32")
    run_until(make_state(few, CPU), 28, tmp_path / "few")
    known = load_state(tmp_path / "few", CPU)
    assert known.codes is not None
    config = dataclasses.replace(few, autoencoder_images=0, coded_pictures=8, code_rate=1e-9)
    tensors = run_until(start_from(tmp_path / "few", config, CPU), 8, tmp_path / "more")
    torch.testing.assert_close(tensors["codes.w"][:4], known.codes.w, rtol=0, atol=1e-6)
    assert known.autoencoding is not None
    pictures = to_range(make_pictures(11, 32)[4:8], 16, CPU)
    with torch.no_grad():
        seen, _ = known.autoencoding.encoder(pictures)
    torch.testing.assert_close(tensors["codes.w"][4:], seen, rtol=0, atol=1e-5)


def test_codes_are_kept_until_a_discriminator_judges(tmp_path: Path) -> None:
    uneven = dataclasses.replace(make_coding_config(), code_images=18)  # the last batch goes beyond
    run_until(make_state(uneven, CPU), 28, tmp_path / "coded")
    save_networks(load_networks(tmp_path / "coded"), tmp_path / "kept")
    tensors = safetensors.torch.load_file(tmp_path / "kept" / "networks.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"ema", "encoder", "codes"}
    kept, whole = load_networks(tmp_path / "kept"), load_networks(tmp_path / "coded")
    assert (kept.mapping_fitted, kept.adversarial, whole.adversarial) == (True, False, False)
    assert kept.codes is not None
    assert whole.codes is not None
    torch.testing.assert_close(kept.codes, whole.codes, rtol=1e-3, atol=1e-3)  # float16
    for ours, theirs in ((kept.generator, whole.ema), (kept.discriminator.blocks, whole.discriminator.blocks)):
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)
    config = dataclasses.replace(make_coding_config(), autoencoder_images=0)
    going_on = start_from(tmp_path / "kept", config, CPU).codes
    assert going_on is not None
    assert torch.equal(going_on.w, kept.codes)
    judged = dataclasses.replace(make_coding_config(), autoencoder_images=0, code_images=0)
    run_until(start_from(tmp_path / "kept", judged, CPU), 4, tmp_path / "judged")
    assert load_networks(tmp_path / "judged").adversarial


def test_codes_do_not_outlive_another_autoencoder(tmp_path: Path) -> None:
    run_until(make_state(make_coding_config(), CPU), 12, tmp_path / "old")
    state = start_from(tmp_path / "old", make_coding_config(), CPU)
    assert state.codes is None
    run_until(state, 28, tmp_path / "new")
    assert read_fitted(state) is True


def test_fewer_pictures_than_a_batch_have_no_codes(tmp_path: Path) -> None:
    config = dataclasses.replace(make_coding_config(), coded_pictures=3)
    with pytest.raises(TrainingError, match="coded_pictures is 3 and the set has 11 pictures, expected at least 4"):
        run_until(make_state(config, CPU), 12, tmp_path)


def test_pictures_stand_above_what_their_own_codes_give(tmp_path: Path) -> None:
    """Eight of the eleven pictures have a code."""
    state = make_state(make_coding_config(), CPU)
    run_until(state, 12, tmp_path)
    grid = reconstruct_many(state, make_pictures(11, 16), 10)
    assert len(grid) == 20
    assert np.array_equal(grid[:10], make_pictures(11, 16)[[*range(8), 0, 1]])
    assert np.array_equal(grid[18:], grid[10:12])


def test_damaged_codes_are_refused(tmp_path: Path) -> None:
    tensors = run_until(make_state(make_coding_config(), CPU), 12, tmp_path)
    tensors["codes.square"] = tensors["codes.square"][:5].contiguous()
    write_tensors(tmp_path / "state.safetensors", tensors, read_metadata(tmp_path / "state.safetensors"))
    with pytest.raises(CheckpointError, match=r"codes\.square in \S+ does not hold finite numbers of shape \[8, 10\]"):
        load_state(tmp_path, CPU)
