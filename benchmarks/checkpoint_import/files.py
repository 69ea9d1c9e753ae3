"""A StyleGAN2 with random weights as rosinality's program saves one in the middle of a training."""

from collections.abc import Mapping
from pathlib import Path

import torch

from labelmint_export.generator import Generator, GeneratorConfig

LATENT_WIDTH = 512
MAPPING_LAYERS = 8


def save_checkpoint(channels: Mapping[int, int], path: Path, latent_width: int = LATENT_WIDTH) -> None:
    """Write `g_ema` and all that a training goes on from: generator, discriminator and what Adam remembers of both.

    The discriminator has the generator's shapes here; the published one has about as many parameters.

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
    state = _rosinality_state(generator)
    trained = {"g": _clone(state), "d": _clone(state), "g_optim": _adam_state(state), "d_optim": _adam_state(state)}
    torch.save({**trained, "g_ema": state, "latent_avg": torch.zeros(latent_width), "ada_aug_p": 0.0}, path)


def _clone(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _adam_state(state: Mapping[str, torch.Tensor]) -> dict[str, object]:
    moments = {
        number: {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(tensor), "exp_avg_sq": torch.zeros_like(tensor)}
        for number, tensor in enumerate(state.values())
    }
    return {"state": moments, "param_groups": [{"lr": 0.002, "betas": (0.0, 0.99), "params": list(moments)}]}


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
