"""The shape of a StyleGAN3 generator. Nothing is derived from formulas: all of it was stored with the weights."""

import re
from dataclasses import dataclass
from typing import NoReturn

from labelmint_export.errors import GeneratorError
from labelmint_export.generator.bounds import check_counts, check_positive
from labelmint_export.generator.config import MAX_RESOLUTION, MAX_WIDTH, BackboneConfig

MAX_SIZE = 2 * MAX_RESOLUTION
MAX_LAYERS = 256
MAX_FACTOR = 16
MAX_TAPS = 256
# Letters, digits and one underscore or more: never the name of an attribute of a torch module.
LAYER_NAME = re.compile(r"L\d{1,3}_[0-9_]{1,32}")


def _refuse(problem: str, field: str) -> NoReturn:
    raise GeneratorError(f"{problem}; read the shape from the checkpoint that holds the weights", field=field)


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleGAN3LayerConfig:
    """Shape of one synthesis layer: modulated convolution, upsampling, leaky ReLU, downsampling."""

    name: str
    """Such as `L3_36_512`: number, output size and output channels."""
    in_channels: int
    """Feature maps that come in."""
    out_channels: int
    """Feature maps that go out."""
    in_size: int
    """Side of the incoming feature maps with their margin, pixels."""
    out_size: int
    """Side of the outgoing feature maps with their margin, pixels."""
    out_sampling_rate: int
    """Pixels of the output that lie on the picture; the others are the margin."""
    kernel: int
    """Side of the convolution's kernel: 3 in T, 1 in R and in the colour layer."""
    up_factor: int = 1
    """Upsampling in front of the leaky ReLU."""
    down_factor: int = 1
    """Downsampling behind the leaky ReLU."""
    up_taps: int = 1
    """Length of the separable upsampling filter; 1 for none."""
    down_taps: int = 1
    """Side of the downsampling filter; 1 for none."""
    down_radial: bool = False
    """Whether the downsampling filter is a square of its own (R) instead of one line for both axes (T)."""
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels on the left, right, top and bottom of the upsampled, unfiltered maps; negative ones are cropped."""
    is_torgb: bool = False
    """Whether this is the linear, not demodulated layer that gives the colours."""
    conv_clamp: float | None = 256.0
    """Bound on the magnitude of the leaky ReLU's output; None for none."""

    def __post_init__(self) -> None:
        """Check the layer by itself.

        Raises:
            GeneratorError: A field is out of range, or the sizes contradict each other.
        """
        if not LAYER_NAME.fullmatch(self.name):
            _refuse(f"a layer is called {self.name!r}, expected a name like L3_36_512", "name")
        prefix = f"{self.name}."
        bounds = {"in_channels": (1, MAX_WIDTH), "out_channels": (1, MAX_WIDTH)}
        bounds |= {"in_size": (1, MAX_SIZE), "out_size": (1, MAX_SIZE), "out_sampling_rate": (1, MAX_SIZE)}
        bounds |= {"kernel": (1, 15), "up_factor": (1, MAX_FACTOR), "down_factor": (1, MAX_FACTOR)}
        bounds |= {"up_taps": (1, MAX_TAPS), "down_taps": (1, MAX_TAPS)}
        check_counts(self, bounds, prefix)
        if self.conv_clamp is not None:
            check_positive(self, ("conv_clamp",), prefix)
        if self.out_size < self.out_sampling_rate or (self.out_size - self.out_sampling_rate) % 2:
            _refuse(
                f"{prefix}out_size is {self.out_size}, expected out_sampling_rate {self.out_sampling_rate} and the "
                "same margin on both sides",
                prefix + "out_size",
            )
        for way in ("up", "down"):
            factor, taps = getattr(self, f"{way}_factor"), getattr(self, f"{way}_taps")
            if taps < factor:
                _refuse(f"{prefix}{way}_taps is {taps}, expected {way}_factor {factor} or more", f"{prefix}{way}_taps")
        if self.is_torgb and (self.up_factor, self.down_factor, self.up_taps, self.down_taps) != (1, 1, 1, 1):
            _refuse(f"{prefix}is_torgb is set on a layer that resamples, expected none that does", prefix + "is_torgb")
        if type(self.padding) is not tuple or [type(pixels) for pixels in self.padding] != [int] * 4:
            _refuse(f"{prefix}padding is {self.padding!r}, expected four whole numbers", prefix + "padding")
        sides = [self._filtered_size(*self.padding[:2]), self._filtered_size(*self.padding[2:])]
        if sides != [self.out_size, self.out_size]:
            _refuse(
                f"{prefix}padding {self.padding} gives {sides[0]} x {sides[1]}, expected out_size {self.out_size}",
                prefix + "padding",
            )

    def _filtered_size(self, before: int, after: int) -> int:
        """Side of the output along an axis that is padded by so much."""
        upsampled = (self.in_size + self.kernel - 1) * self.up_factor
        return (upsampled + before + after - (self.up_taps - 1) - (self.down_taps - 1) - 1) // self.down_factor + 1

    @property
    def margin(self) -> int:
        """Pixels on each side of the output that lie outside the picture: crop them before aligning to the picture."""
        return (self.out_size - self.out_sampling_rate) // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleGAN3Config(BackboneConfig):
    """Shape of a generator, T or R."""

    layers: tuple[StyleGAN3LayerConfig, ...]
    """The synthesis layers in order; the last one gives the colours."""
    input_channels: int
    """Number of Fourier features."""
    input_size: int
    """Side of the grid on which they are sampled, with its margin, pixels."""
    input_sampling_rate: float
    """Grid points for each side of the picture."""
    input_bandwidth: float
    """Frequency above which the features fade out, cycles for each side of the picture."""
    mapping_layers: int = 2
    output_scale: float = 0.25
    """Factor from the last layer's output to the picture."""

    def __post_init__(self) -> None:
        """Check that the layers fit together.

        Raises:
            GeneratorError: A field is out of range, or two layers do not fit.
        """
        BackboneConfig.__post_init__(self)
        check_counts(self, {"input_channels": (1, MAX_WIDTH), "input_size": (1, MAX_SIZE)})
        check_positive(self, ["input_sampling_rate", "input_bandwidth", "output_scale"])
        if self.input_bandwidth * 2 >= self.input_sampling_rate:
            _refuse(
                f"input_bandwidth is {self.input_bandwidth}, expected less than half of input_sampling_rate "
                f"{self.input_sampling_rate}",
                "input_bandwidth",
            )
        if not 1 <= len(self.layers) <= MAX_LAYERS or len({layer.name for layer in self.layers}) != len(self.layers):
            _refuse(f"there are {len(self.layers)} layers, expected 1 to {MAX_LAYERS} of different names", "layers")
        self._check_chain()

    def _check_chain(self) -> None:
        channels, size = self.input_channels, self.input_size
        for layer in self.layers:
            if (layer.in_channels, layer.in_size) != (channels, size):
                _refuse(
                    f"{layer.name} takes {layer.in_channels} channels of size {layer.in_size}, expected {channels} of "
                    f"size {size}",
                    f"{layer.name}.in_channels" if layer.in_channels != channels else f"{layer.name}.in_size",
                )
            if layer.is_torgb != (layer is self.layers[-1]):
                _refuse(f"{layer.name}.is_torgb is {layer.is_torgb}, expected the last layer only", "is_torgb")
            channels, size = layer.out_channels, layer.out_size
        last = self.layers[-1]
        if (channels, size, last.margin) != (self.image_channels, self.resolution, 0):
            _refuse(
                f"{last.name} gives {channels} channels of size {size} with margin {last.margin}, expected "
                f"{self.image_channels} of size {self.resolution} without",
                "layers",
            )

    @property
    def num_ws(self) -> int:
        """Number of style inputs: one for the Fourier features and one for each layer."""
        return 1 + len(self.layers)
