"""State dicts under the names of rosinality's StyleGAN2, of any shape, whose tensors repeat one stored number."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def repeated(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of any size whose storage holds one element."""
    return torch.ones(1, dtype=dtype).expand(*shape) if shape else torch.ones([], dtype=dtype)


def repeated_state(
    channels: Mapping[int, int],
    *,
    widths: tuple[int, ...] = (6, 7, 7),
    noise: bool = False,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """What `g_ema` holds; `widths` go from z to w and are those of all inner layers."""
    w_dim = widths[-1]
    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int) -> None:
        state[name] = repeated(*shape, dtype=dtype)

    def layer(name: str, inputs: int, outputs: int, kernel: int) -> None:
        put(f"{name}.conv.weight", 1, outputs, inputs, kernel, kernel)
        put(f"{name}.conv.modulation.weight", inputs, w_dim)
        put(f"{name}.conv.modulation.bias", inputs)

    for index in range(len(widths) - 1):
        put(f"style.{index + 1}.weight", widths[index + 1], widths[index])
        put(f"style.{index + 1}.bias", widths[index + 1])
    put("input.input", 1, channels[4], 4, 4)
    sides = list(channels)
    styled = [("conv1", channels[4], 4, 4)]
    for index, r in enumerate(sides[1:]):
        styled += [(f"convs.{2 * index}", channels[r // 2], r, r), (f"convs.{2 * index + 1}", channels[r], r, r)]
    for index, (name, inputs, r, side) in enumerate(styled):
        layer(name, inputs, channels[r], 3)
        put(f"{name}.noise.weight", 1)
        put(f"{name}.activate.bias", channels[r])
        if noise:
            put(f"noises.noise_{index}", 1, 1, side, side)
    for index, r in enumerate(sides):
        name = "to_rgb1" if r == 4 else f"to_rgbs.{index - 1}"
        layer(name, channels[r], 3, 1)
        put(f"{name}.bias", 1, 3, 1, 1)
    return state
