"""StyleGAN2 of NVIDIA's PyTorch programs in every shape that their options give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from labelmint_export.checkpoints.stylegan2 import generator_from_record
from labelmint_export.generator.config import Architecture
from tests.export.nvidia_records import nvidia_record
from tests.export.plain_stylegan import plain_mapping, plain_synthesis
from tests.export.tiny_parts import make_config, make_generator_of

BASE = replace(make_config(16), mapping_lr_multiplier=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "skip"},
        {"architecture": "resnet"},
        {"architecture": "orig", "mapping_layers": 2},  # --cfg=cifar
        {"architecture": "resnet", "c_dim": 3, "conv_clamp": 256.0},
        {"architecture": "orig", "image_channels": 1, "conv_clamp": 1.0},
        {"mapping_layers": 1},
        {"c_dim": 4, "embed_dim": 7, "hidden_dim": 9, "mapping_layers": 3},
        {"channels": {4: 11, 8: 13, 16: 3}, "z_dim": 5, "w_dim": 6, "mapping_lr_multiplier": 0.002},
    ],
    ids=str,
)
def test_snapshot_of_any_options_computes_the_plain_algorithm(changes: dict[str, Any]) -> None:
    config = replace(BASE, **changes)
    source = make_generator_of(config, seed=3)
    loaded = generator_from_record(nvidia_record(source, fp16_from=8), Path("x"))
    assert loaded.config == replace(
        config,
        embed_dim=(config.embed_dim or config.w_dim) if config.c_dim else None,
        hidden_dim=(config.hidden_dim or config.w_dim) if config.mapping_layers > 1 else None,
    )
    torch.manual_seed(4)
    z = torch.randn(2, config.z_dim, dtype=torch.float64)
    c = torch.eye(config.c_dim, dtype=torch.float64)[[0, 2]] if config.c_dim else None
    loaded, source = loaded.double(), source.double()
    w = loaded.mapping.map_to_w(z, c)
    if config.mapping_lr_multiplier == 0.01:  # the plain mapping's
        torch.testing.assert_close(w, plain_mapping(source, z, c), rtol=0, atol=1e-7)
    torch.testing.assert_close(w, source.mapping.map_to_w(z, c), rtol=0, atol=0)
    ws = torch.randn(2, config.num_ws, config.w_dim, dtype=torch.float64)
    got = loaded.synthesis(ws, "const", compute_dtype=torch.float64)
    image, taps = plain_synthesis(source, ws)
    torch.testing.assert_close(got.image, image, rtol=0, atol=1e-9)
    for name, tap in taps.items():
        torch.testing.assert_close(got.taps[name], tap, rtol=0, atol=1e-9)


def test_snapshot_without_noise_paints_without() -> None:
    source = make_generator_of(BASE, seed=5)
    loaded = generator_from_record(nvidia_record(source, use_noise=False), Path("x"))
    ws = torch.randn(1, BASE.num_ws, BASE.w_dim)
    image, _ = plain_synthesis(source, ws, "none")
    torch.testing.assert_close(loaded.synthesis(ws).image, image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_filter_that_is_not_symmetric_is_turned_as_in_its_program(architecture: Architecture) -> None:
    """`resample_filter` is an option of the program, and its resampling is a convolution everywhere."""
    source = make_generator_of(replace(BASE, architecture=architecture), seed=6)
    loaded = generator_from_record(nvidia_record(source, filter_taps=(1, 2, 3, 5)), Path("x"))
    ws = torch.randn(2, BASE.num_ws, BASE.w_dim, dtype=torch.float64)
    image, _ = plain_synthesis(source.double(), ws, filter_taps=(1, 2, 3, 5))
    got = loaded.double().synthesis(ws, "const", compute_dtype=torch.float64).image
    torch.testing.assert_close(got, image, rtol=0, atol=1e-5)
