"""StyleGAN2's layers in float16 as stylegan2-ada-pytorch computes them on a processor without a GPU.

Each operation rounds its result to float16 once. Inside a convolution the products of float16 numbers are exact in
float32 and are added there one after the other: rows of the kernel, its columns, channels. In this order every stored
bit comes out; in another one, some results round to the other neighbour, and what follows spreads that.

Legend: N images, I and O channels, H rows, W columns, k side of a kernel, D w_dim.
"""

from __future__ import annotations

import math

import torch

from labelmint_export.generator import Generator


def convolve(x: torch.Tensor, weight: torch.Tensor, *, turned: bool = False) -> torch.Tensor:
    """Correlate float16 [N, I, H, W] with float16 [O, I, k, k], turned by 180 degrees or not, without padding."""
    k = weight.shape[2]
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    total = torch.zeros(x.shape[0], weight.shape[0], height, width)
    for i in range(k):
        for j in range(k):
            top, left = (k - 1 - i, k - 1 - j) if turned else (i, j)
            for channel in range(x.shape[1]):
                factor = weight[:, channel, i, j].float()[:, None, None]
                total += x[:, channel : channel + 1, top : top + height, left : left + width].float() * factor
    return total.half()


def filter_each(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Correlate every channel of float16 [N, C, H, W] with float16 [4, 4]."""
    flat = x.reshape(-1, 1, *x.shape[2:])
    out = convolve(flat, kernel[None, None])
    return out.reshape(*x.shape[:2], *out.shape[2:])


def padded(x: torch.Tensor, pixels: int) -> torch.Tensor:
    return torch.nn.functional.pad(x, [pixels] * 4)


def upsampled(x: torch.Tensor, weight: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Double the resolution: zeros between the pixels, the turned weights, then the filter with the gain 4."""
    spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1)
    spread[:, :, ::2, ::2] = x
    grown = convolve(padded(spread, 2), weight, turned=True)  # [N, O, 2 H + 1, 2 W + 1]
    return filter_each(padded(grown, 1), (kernel * 4).half())


def styles_of(weights: dict[str, torch.Tensor], layer: str, w: torch.Tensor) -> torch.Tensor:
    """float32 [N, I], rounded once."""
    matrix = weights[f"{layer}.affine.weight"].double()
    styles = w.double() @ matrix.T / math.sqrt(matrix.shape[1]) + weights[f"{layer}.affine.bias"].double()
    return styles.float()


def half_layer(weights: dict[str, torch.Tensor], layer: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """A styled convolution with its noise, bias and leaky ReLU: float16 [N, I, H, W] to [N, O, r, r]."""
    weight, styles = weights[f"{layer}.conv.weight"], styles_of(weights, layer, w)
    # Both are brought near to one, so that nothing overflows; the demodulation takes that back.
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    weight = weight * (1 / math.sqrt(weight[0].numel()) / largest)
    styles = styles / styles.abs().amax(dim=1, keepdim=True)
    energy = (weight.double()[None] * styles.double()[:, None, :, None, None]).square().sum(dim=(2, 3, 4))
    demodulation = (energy + 1e-8).rsqrt().half()[:, :, None, None]
    x = x * styles.half()[:, :, None, None]
    if layer.endswith("conv0"):
        x = upsampled(x, weight.half(), weights[f"{layer}.conv.resample_filter"])
    else:
        x = convolve(padded(x, 1), weight.half())
    noise = (weights[f"{layer}.noise_const"] * weights[f"{layer}.noise_strength"]).half()
    x = (x.float() * demodulation.float() + noise.float()).half()  # product and sum round together
    x = x + weights[f"{layer}.bias"].half()[:, None, None]
    return (torch.where(x > 0, x, (x.float() * 0.2).half()).float() * math.sqrt(2)).half()


def half_colours(weights: dict[str, torch.Tensor], layer: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The colours of a block: float16 [N, I, r, r] to float32 [N, 3, r, r]."""
    styles = styles_of(weights, layer, w) * (1 / math.sqrt(x.shape[1]))
    x = convolve(x * styles.half()[:, :, None, None], weights[f"{layer}.conv.weight"].half())
    return (x + weights[f"{layer}.bias"].half()[:, None, None]).float()


def half_blocks(
    generator: Generator, x: torch.Tensor, ws: torch.Tensor, first: int
) -> tuple[dict[str, torch.Tensor], dict[int, torch.Tensor]]:
    """The blocks from resolution `first` on.

    Args:
        generator: Without clamps that matter.
        x: float32 [N, I, first / 2, first / 2], what goes in.
        ws: float32 [N, num_ws, D].
        first: Resolution of the first block in float16.

    Returns:
        Layer name -> float16 [N, O, r, r], and r -> the block's colours, float32 [N, 3, r, r].
    """
    weights = {name.removeprefix("synthesis.blocks."): t for name, t in generator.state_dict().items()}
    taps: dict[str, torch.Tensor] = {}
    colours: dict[int, torch.Tensor] = {}
    x = x.half()
    for r in (r for r in generator.config.block_resolutions if r >= first):
        index = 2 * r.bit_length() - 7  # of the block's first w
        for offset, name in enumerate((f"b{r}.conv0", f"b{r}.conv1")):
            x = taps[name] = half_layer(weights, name, x, ws[:, index + offset])
        colours[r] = half_colours(weights, f"b{r}.torgb", x, ws[:, index + 2])
    return taps, colours
