"""The shape of a generator, and what its synthesis gives."""

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from labelmint_export.errors import GeneratorError
from labelmint_export.generator.bounds import check_counts, check_positive

NoiseMode = Literal["const", "random", "none"]
Architecture = Literal["skip", "resnet", "orig"]
ARCHITECTURES = get_args(Architecture)

MAX_RESOLUTION = 8192
MAX_WIDTH = 65536
MAX_MAPPING_LAYERS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig(abc.ABC):
    """What every backbone has: a mapping network and a picture."""

    resolution: int
    """Side of the picture, pixels."""
    z_dim: int = 512
    """Length of the input latent."""
    w_dim: int = 512
    """Length of the intermediate latent."""
    c_dim: int = 0
    """Number of classes; 0 for an unconditional generator."""
    mapping_layers: int = 8
    """Depth of the mapping network."""
    embed_dim: int | None = None
    """Length of the embedded class in front of the mapping; None for w_dim."""
    joint_normalization: bool = False
    """Whether latent and embedded class are normalised as one vector, as StyleGAN2's TensorFlow program does."""
    hidden_dim: int | None = None
    """Width of the mapping's inner layers; None for w_dim."""
    mapping_lr_multiplier: float = 0.01
    """Scale of the mapping's stored weights and biases."""
    image_channels: int = 3
    """1 for grey, 3 for colour."""

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            GeneratorError: A field is out of range.
        """
        bounds = {"resolution": (1, MAX_RESOLUTION), "z_dim": (1, MAX_WIDTH), "w_dim": (1, MAX_WIDTH)}
        bounds |= {"c_dim": (0, MAX_WIDTH), "mapping_layers": (1, MAX_MAPPING_LAYERS)}
        bounds |= {name: (1, MAX_WIDTH) for name in ("embed_dim", "hidden_dim") if getattr(self, name) is not None}
        check_counts(self, bounds)
        check_positive(self, ["mapping_lr_multiplier"])
        if self.image_channels not in (1, 3):
            raise GeneratorError(f"image_channels is {self.image_channels}, expected 1 or 3", field="image_channels")

    @property
    @abc.abstractmethod
    def num_ws(self) -> int:
        """Number of style inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockConfig(BackboneConfig):
    """A backbone of blocks whose resolutions double, from 4 to that of the picture."""

    channels: Mapping[int, int]
    """Feature maps of the block at each resolution from 4 to `resolution`."""

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            GeneratorError: A field is out of range.
        """
        BackboneConfig.__post_init__(self)  # dataclasses with slots have no super() before Python 3.14
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise GeneratorError(
                f"resolution is {self.resolution}, expected a power of two from 8 to {MAX_RESOLUTION}",
                field="resolution",
            )
        missing = [r for r in self.block_resolutions if not 1 <= self.channels.get(r, 0) <= MAX_WIDTH]
        if missing:
            raise GeneratorError(
                f"channels names no width from 1 to {MAX_WIDTH} for resolution {missing[0]}; give one for each of "
                f"{list(self.block_resolutions)}",
                field="channels",
            )

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Resolutions of the synthesis blocks, ascending from 4."""
        return tuple(2**i for i in range(2, self.resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Number of style inputs: two a block, the colours' counted where they have some."""
        return 2 * len(self.block_resolutions)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig(BlockConfig):
    """Shape of a StyleGAN2 generator. Everything else follows from the weights."""

    z_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 4
    architecture: Architecture = "skip"
    """How blocks join (Karras et al. 2020, section 4.1): their colours are summed, their features, or neither."""
    conv_clamp: float | None = None
    """Bound on the magnitude of every layer's output, which a training in half precision set; None for no bound."""

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            GeneratorError: A field is out of range.
        """
        BlockConfig.__post_init__(self)
        if self.conv_clamp is not None:
            check_positive(self, ["conv_clamp"])
        if self.architecture not in ARCHITECTURES:
            raise GeneratorError(
                f"architecture is {self.architecture!r}, expected one of {', '.join(ARCHITECTURES)}",
                field="architecture",
            )

    @property
    def layer_sides(self) -> dict[str, int]:
        """Layer name, such as b8.conv0, -> side of its output, in the order of the layers."""
        return {f"b{r}.conv{i}": r for r in self.block_resolutions for i in ((1,) if r == 4 else (0, 1))}


@dataclass(frozen=True, slots=True)
class TapSpec:
    """One synthesis activation, named by its layer."""

    name: str
    channels: int
    resolution: int


@dataclass(frozen=True, slots=True)
class SynthesisOutput:
    """What one synthesis pass makes. It unpacks into image and taps; taps with margins reach beyond the picture."""

    image: torch.Tensor
    """float [N, image_channels, resolution, resolution], about [-1, 1], not clamped."""
    taps: dict[str, torch.Tensor] = field(default_factory=dict)
    """Layer name -> float [N, C, r, r], in the order of the layers."""
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name -> float [N, C, r, r]: learned inputs that interpreters may look at too, no layer's output."""
    margins: Mapping[str, int] = field(default_factory=dict)
    """Layer name -> pixels on each side of its tap that lie outside the picture; those that are not named have none."""

    def __iter__(self) -> Iterator[Any]:  # Any: a tensor, then a dict of tensors
        yield self.image
        yield self.taps

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """What interpreters learn from: name -> float [N, C, r, r] that covers the picture and nothing else."""
        return self.inputs | {name: _crop(tap, self.margins.get(name, 0)) for name, tap in self.taps.items()}


def _crop(tap: torch.Tensor, margin: int) -> torch.Tensor:
    return tap[:, :, margin:-margin, margin:-margin] if margin else tap
