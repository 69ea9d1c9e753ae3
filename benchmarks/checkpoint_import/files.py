"""A StyleGAN2 with random weights as rosinality's program saves one."""

from collections.abc import Mapping
from pathlib import Path

import torch

from labelmint_export.generator import Generator, GeneratorConfig

LATENT_WIDTH = 512
MAPPING_LAYERS = 8


def save_checkpoint(channels: Mapping[int, int], path: Path, latent_width: int = LATENT_WIDTH) -> None:
    """Write `g_ema` and `latent_avg`.

    Args:
        channels: Feature maps at each resolution; those of the published 1,024 x 1,024 make 30 million parameters.
        path: Of the `.pt` file.
        latent_width: Of z and w.
    """
    torch.manual_seed(0)
    generator = Generator(
        GeneratorConfig(
            resolution=max(channels),
            channels=channels,
            z_dim=latent_width,
            w_dim=latent_width,
            mapping_layers=MAPPING_LAYERS,
        )
    )
    torch.save({"g_ema": _rosinality_state(generator), "latent_avg": torch.zeros(latent_width)}, path)


def _rosinality_state(generator: Generator) -> dict[str, torch.Tensor]:
    """Our tensors under the names and in the shapes of rosinality's program."""
    ours = generator.state_dict()
    state = {"input.input": ours["synthesis.blocks.b4.constant_input"][None]}
    for index in range(generator.config.mapping_layers):
        for part in ("weight", "bias"):
            state[f"style.{index + 1}.{part}"] = ours[f"mapping.layers.{index}.{part}"]
    for index, (name, side) in enumerate(generator.config.layer_sides.items()):
        layer, start = "conv1" if index == 0 else f"convs.{index - 1}", f"synthesis.blocks.{name}"
        state |= _convolution(ours, start, layer)
        state[f"{layer}.noise.weight"] = ours[f"{start}.noise_strength"].reshape(1)
        state[f"{layer}.activate.bias"] = ours[f"{start}.bias"]
        state[f"noises.noise_{index}"] = ours[f"{start}.noise_const"].reshape(1, 1, side, side)
        if name.endswith("conv1"):
            colours, start = "to_rgb1" if index == 0 else f"to_rgbs.{index // 2 - 1}", start[: -len("conv1")] + "torgb"
            state |= _convolution(ours, start, colours)
            state[f"{colours}.bias"] = ours[f"{start}.bias"].reshape(1, -1, 1, 1)
    return state


def _convolution(ours: dict[str, torch.Tensor], start: str, target: str) -> dict[str, torch.Tensor]:
    return {
        f"{target}.conv.weight": ours[f"{start}.conv.weight"][None],
        f"{target}.conv.modulation.weight": ours[f"{start}.affine.weight"],
        f"{target}.conv.modulation.bias": ours[f"{start}.affine.bias"],
    }
