"""Trainings of a few steps, as tests of more than one stage run them."""

import dataclasses
from pathlib import Path

import safetensors.torch
import torch

from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.state import TrainState
from labelmint_export.gan.trainer import Schedule, train
from tests.export.tiny_parts import make_pictures, make_train_config


def make_decoding_config(resolution: int = 16) -> TrainConfig:
    """Steps of four pictures; z as wide as w, so that the mapping may learn from a decoder."""
    config = make_train_config(resolution)
    return dataclasses.replace(
        config, generator=dataclasses.replace(config.generator, z_dim=10, w_dim=10), prior_steps=4
    )


def run_until(state: TrainState, total: int, folder: Path) -> dict[str, torch.Tensor]:
    """Train on eleven pictures, writing after each step; gives the tensors of the state."""
    folder.mkdir(exist_ok=True)
    train(state, make_pictures(11, 32), Schedule(total_images=total, snapshot_images=4, state_images=4), folder)
    return safetensors.torch.load_file(folder / "state.safetensors")


def read_fitted(state: TrainState) -> bool:
    """Read it anew: mypy believes what an earlier assertion said."""
    return state.mapping_fitted
