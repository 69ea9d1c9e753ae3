"""StyleGAN2's modulated convolution as it is deployed.

Legend: N images, I and O channels, H rows, W columns, k side of a kernel.
"""

import torch
from torch import nn
from torch.nn import functional

from labelmint_export.generator.layers import blur
from labelmint_export.generator.stylegan2 import ModulatedConv


class DeployedConv(nn.Module):
    """A modulated convolution with all that does not depend on its input computed once.

    Weights are stored in the precision of the feature maps, their energies, for the demodulation, in float32. In
    float16 each output channel's weights are divided by their largest and so are the styles, as StyleGAN2-ADA does: the
    demodulation takes the scale out again, and nothing overflows in between. In bfloat16, in which TensorRT has no
    transposed convolutions, a layer that upsamples computes the four phases of its output as one convolution with 2 x 2
    kernels, some of whose weights are zero.

    Args:
        conv: What was trained.
        dtype: Of the feature maps.
    """

    weight: torch.Tensor
    energy: torch.Tensor
    resample_filter: torch.Tensor

    def __init__(self, conv: ModulatedConv, dtype: torch.dtype) -> None:
        super().__init__()
        self.demodulate, self.up = conv.demodulate, conv.up
        self.padding = conv.weight.shape[2] // 2
        self.normalize = dtype == torch.float16 and conv.demodulate
        weight = conv.weight.detach().double() * conv.weight_gain  # [O, I, k, k]
        if self.normalize:
            weight = weight / weight.abs().amax(dim=[1, 2, 3], keepdim=True).clamp(min=1e-30)
        if self.demodulate:
            self.register_buffer("energy", weight.square().sum(dim=[2, 3]).float())  # [O, I]
        self.phases = self.up and dtype == torch.bfloat16
        if self.phases:
            weight = phase_weight(weight)
        elif self.up:
            weight = weight.transpose(0, 1).contiguous()  # as a transposed convolution takes it
        if self.up:
            self.register_buffer("resample_filter", conv.resample_filter.detach().clone())
        self.register_buffer("weight", weight.to(dtype))

    def forward(self, x: torch.Tensor, styles: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """Convolve [N, I, H, W] with styles float32 [N, I] to [N, O, H, W], or [N, O, 2H, 2W] if it upsamples."""
        if self.normalize:
            styles = styles / styles.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        x = x * styles[:, :, None, None].to(x.dtype)
        if self.up:
            if self.phases:
                x = functional.pixel_shuffle(functional.conv2d(x, self.weight, padding=1), 2)[:, :, :-1, :-1]
            else:
                x = functional.conv_transpose2d(x, self.weight, stride=2)
            # [N, O, 2H + 1, 2W + 1]
            x = blur(x, self.resample_filter, (1, 1, 1, 1), gain=4.0)
        else:
            x = functional.conv2d(x, self.weight, padding=self.padding)
        if self.demodulate:
            demodulation = (functional.linear(styles.square(), self.energy) + 1e-8).rsqrt() * gain  # [N, O]
            x = x * demodulation[:, :, None, None].to(x.dtype)
        return x


def phase_weight(weight: torch.Tensor) -> torch.Tensor:
    """Turn a transposed convolution of stride 2 into a plain one whose output channels are the phases of the picture.

    Row 2 m of the transposed convolution is x[m - 1] w[2] + x[m] w[0], row 2 m + 1 is x[m] w[1]; columns likewise.

    Args:
        weight: float [O, I, 3, 3].

    Returns:
        float [4 O, I, 2, 2]; convolved with a padding of 1 and shuffled to [N, O, 2H + 2, 2W + 2], whose last row and
        column are left out.
    """
    line = torch.tensor([[[0, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]], dtype=weight.dtype)  # [phase, tap, k]
    return torch.einsum("oikl,amk,bnl->oabimn", weight, line, line).flatten(0, 2)
