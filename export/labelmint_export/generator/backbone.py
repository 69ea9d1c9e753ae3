"""What StyleGAN1, 2 and 3 have in common: the mapping with its truncation, and the generator around both networks.

Legend: N images, L num_ws, D w_dim.
"""

import abc
from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn

from labelmint_export.errors import GeneratorError
from labelmint_export.generator.config import BackboneConfig, NoiseMode, SynthesisOutput, TapSpec
from labelmint_export.generator.layers import FullyConnected, normalize_second_moment


class MappingLayer(FullyConnected):
    """Linear layer and leaky ReLU with its gain."""

    def __init__(self, in_features: int, out_features: int, *, lr_multiplier: float) -> None:
        super().__init__(in_features, out_features, activation="lrelu", lr_multiplier=lr_multiplier)


class MappingNetwork(nn.Module):
    """z -> ws, with truncation towards the mean w.

    Args:
        config: Shape of the generator.
        layer: What it is made of.
    """

    w_avg: torch.Tensor

    def __init__(self, config: BackboneConfig, layer: type[MappingLayer] = MappingLayer) -> None:
        super().__init__()
        self.config = config
        input_dim = config.z_dim
        if config.c_dim:
            embed_dim = config.embed_dim or config.w_dim
            self.embed = FullyConnected(config.c_dim, embed_dim)
            input_dim += embed_dim
        widths = [input_dim, *[config.hidden_dim or config.w_dim] * (config.mapping_layers - 1), config.w_dim]
        self.layers = nn.ModuleList(
            layer(i, o, lr_multiplier=config.mapping_lr_multiplier) for i, o in pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def map_to_w(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """Map latents.

        Args:
            z: float [N, z_dim].
            c: float [N, c_dim], one-hot; None for an unconditional generator.

        Returns:
            float [N, w_dim], not truncated, in the dtype of the weights.

        Raises:
            GeneratorError: z or c has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise GeneratorError(
                f"z has shape {list(z.shape)}, expected [N, {self.config.z_dim}]; draw it for this generator", field="z"
            )
        got = None if c is None else list(c.shape)
        if (self.config.c_dim and c is None) or (c is not None and (c.ndim != 2 or c.shape[1] != self.config.c_dim)):
            raise GeneratorError(
                f"c has shape {got}, expected [N, {self.config.c_dim}], one-hot; leave it away where that is 0",
                field="c",
            )
        x = z.to(self.w_avg.dtype)
        if self.config.c_dim and c is not None:
            embedded = self.embed(c.to(x.dtype))
            if not self.config.joint_normalization:
                x, embedded = normalize_second_moment(x), normalize_second_moment(embedded)
            x = torch.cat([x, embedded], dim=1)
        if not self.config.c_dim or self.config.joint_normalization:
            x = normalize_second_moment(x)
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float | torch.Tensor = 1.0,
        truncation_cutoff: int | None = None,
    ) -> torch.Tensor:
        """Map latents to one w for each style input.

        Args:
            z: float [N, z_dim].
            c: float [N, c_dim], one-hot; None for an unconditional generator.
            truncation_psi: 1 leaves w as it is, 0 gives the mean; a number or float [N].
            truncation_cutoff: Only so many leading ws are truncated; None truncates all.

        Returns:
            float [N, num_ws, w_dim].
        """
        w = self.map_to_w(z, c)
        ws = w[:, None, :].expand(-1, self.config.num_ws, -1)  # [N, L, D]
        if isinstance(truncation_psi, torch.Tensor):
            psi = truncation_psi[:, None, None] if truncation_psi.ndim else truncation_psi
        elif truncation_psi == 1:
            return ws
        else:
            psi = torch.full([1, 1, 1], float(truncation_psi), dtype=w.dtype, device=w.device)
        truncated = self.w_avg + psi * (ws - self.w_avg)
        if truncation_cutoff is None or truncation_cutoff >= self.config.num_ws:
            return truncated
        return torch.cat([truncated[:, :truncation_cutoff], ws[:, truncation_cutoff:]], dim=1)


class Synthesis(nn.Module, abc.ABC):
    """ws -> picture and taps."""

    @property
    @abc.abstractmethod
    def tap_specs(self) -> tuple[TapSpec, ...]:
        """The taps in their order."""

    @property
    def feature_specs(self) -> tuple[TapSpec, ...]:
        """What `SynthesisOutput.features` holds, in its order."""
        return self.tap_specs


class Backbone(nn.Module, abc.ABC):
    """Mapping and synthesis. A subclass adds the synthesis."""

    synthesis: Synthesis
    family: ClassVar[str]
    """What a bundle's manifest calls the backbone."""

    def __init__(self, config: BackboneConfig, layer: type[MappingLayer] = MappingLayer) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config, layer)

    @property
    def tap_specs(self) -> tuple[TapSpec, ...]:
        """The taps in their order."""
        return self.synthesis.tap_specs

    @property
    def tap_ws(self) -> tuple[int, ...]:
        """Index of the last w that each tap depends on, in the order of `tap_specs`."""
        return tuple(range(len(self.tap_specs)))

    @property
    def feature_specs(self) -> tuple[TapSpec, ...]:
        """What interpreters may learn from: taps that cover the picture and nothing else, and learned inputs."""
        return self.synthesis.feature_specs

    @property
    @abc.abstractmethod
    def architecture(self) -> str:
        """What a bundle's manifest calls the variant of the family."""

    @property
    def w_avg(self) -> torch.Tensor:
        """The mean w, float [w_dim]."""
        return self.mapping.w_avg

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
    ) -> SynthesisOutput:
        """Map and synthesise; see the two networks for shapes."""
        output: SynthesisOutput = self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), noise_mode)
        return output
