"""What the TensorFlow pickles of StyleGAN1 and StyleGAN2 have in common: named variables, options, the mapping network.

Layouts: a dense weight is [in, out], a convolution's [rows, columns, in, out]. Nothing of the code in the file runs:
what it would have computed follows from the names of the variables and from a few options, and options that would
change it in a way that we do not know are refused.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from labelmint_export.checkpoints.completion import check_noise_side
from labelmint_export.checkpoints.fields import MAX_WORD, show
from labelmint_export.checkpoints.nvidia import MappingShape
from labelmint_export.checkpoints.records import TflibNetwork
from labelmint_export.errors import CheckpointError
from labelmint_export.generator.config import MAX_MAPPING_LAYERS, MAX_RESOLUTION

Floats = npt.NDArray[np.float32]

DENSE = "mapping/Dense{}/weight"


def find_generator(content: object) -> TflibNetwork | None:
    """Find the averaged generator of a snapshot: the last network that has a synthesis network, `Gs` of (G, D, Gs).

    Args:
        content: What a file holds.

    Returns:
        The network; None if there is none.
    """
    networks = content if isinstance(content, tuple | list) else [content]
    found = [n for n in networks if isinstance(n, TflibNetwork) and {"mapping", "synthesis"} <= n.components.keys()]
    return found[-1] if found else None


def is_stylegan1(network: TflibNetwork) -> bool:
    """Whether styles set moments of feature maps (StyleGAN1) instead of scaling weights (StyleGAN2)."""
    return "4x4/Conv/StyleMod/weight" in network.components["synthesis"].variables


class NetworkReader:
    """Takes a network's variables one by one, and knows the file, so that every error can name what is at fault.

    Args:
        network: With the components `mapping` and `synthesis`.
        path: Where it comes from.
    """

    def __init__(self, network: TflibNetwork, path: Path) -> None:
        self.path = path
        self._variables = network.tensors()
        self._left = set(self._variables)
        # The options of the whole network reach both parts, over those that these were first built with.
        self._options: dict[str, object] = {}
        for component in network.components.values():
            self._options |= component.static_kwargs
        self._options |= network.static_kwargs

    def refuse(self, name: str, got: str, expected: str) -> NoReturn:
        """Raise the error that names a variable or an option."""
        name = name[:120]
        raise CheckpointError(
            f"{name} in {self.path} {got}, expected {expected}; give a snapshot that NVIDIA's TensorFlow programs "
            "wrote",
            field=name,
        )

    def option(self, name: str, default: object) -> object:
        """An option that the network was built with."""
        return self._options.get(name, default)

    def require(self, name: str, expected: object) -> None:
        """Refuse an option that is set to anything else than what is computed here."""
        got = self.option(name, expected)
        got = list(got) if isinstance(got, tuple) else got
        # Other types first: arrays do not compare to one truth.
        items = got if isinstance(got, list) else [got]
        plain = type(got) is type(expected) and all(isinstance(item, str | int | float) for item in items)
        if not plain or got != expected:
            self.refuse(name, f"is {show(got)}", show(expected))

    def flag(self, name: str, *, default: bool) -> bool:
        """An option that is True or False."""
        value = self.option(name, default)
        if not isinstance(value, bool):
            self.refuse(name, f"is {show(value)}", "True or False")
        return value

    def text(self, name: str, default: str) -> str:
        """An option that is a word."""
        value = self.option(name, default)
        if not isinstance(value, str) or len(value) > MAX_WORD:
            self.refuse(name, f"is {show(value)}", "a word")
        return value

    def real(self, name: str, default: float) -> float:
        """An option that is a number above 0."""
        value = self.option(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            self.refuse(name, f"is {show(value)}", "a number above 0")
        return float(value)

    def has(self, name: str) -> bool:
        """Whether there is such a variable."""
        return name in self._variables

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Shape of a variable that must be there."""
        if name not in self._variables:
            self.refuse(name, "is missing", f"an array of {ndim} axes")
        shape = self._variables[name].shape
        if len(shape) != ndim or 0 in shape:
            self.refuse(name, f"has shape {list(shape)}", f"{ndim} axes that are not empty")
        return shape

    def take(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A variable that must be there, floating-point and of one shape; it counts as used."""
        got = self.shape(name, len(shape))
        if got != shape:
            self.refuse(name, f"has shape {list(got)}", f"{list(shape)}")
        array = self._variables[name]
        if array.dtype.kind != "f":
            self.refuse(name, f"holds {array.dtype}", "floating-point numbers")
        self._left.discard(name)
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            return array.astype(np.float32, copy=False)

    def ignore(self, names: Iterable[str]) -> None:
        """Count variables as used that a finished generator does not need."""
        self._left.difference_update(names)

    def finish(self) -> None:
        """Refuse variables that nobody asked for: they would have changed the pictures."""
        for name in sorted(self._left):
            self.refuse(name, "has no place", "only what a generator of this shape needs")

    def check_grown(self, *names: str) -> None:
        """Check that progressive growing has ended."""
        for name in names:
            if self.has(name) and float(self.take(name, ())) != 0.0:
                self.refuse(name, f"is {float(self.take(name, ()))}", "0: the training has not grown to full size")

    def block_channels(self) -> dict[int, int]:
        """Feature maps of the block at each resolution, read off the convolutions."""
        channels = {4: self.shape("synthesis/4x4/Conv/weight", 4)[3]}
        r = 8
        while self.has(f"synthesis/{r}x{r}/Conv1/weight") and r <= MAX_RESOLUTION:
            channels[r] = self.shape(f"synthesis/{r}x{r}/Conv1/weight", 4)[3]
            r *= 2
        return channels

    def noise(self, index: int, side: int) -> Floats | None:
        """The fixed noise of the layer of that number, [r, r]; None if the network was built without noise."""
        name = f"synthesis/noise{index}"
        if self.has(name):
            return self.take(name, (1, 1, side, side)).reshape(side, side)
        check_noise_side(name, side)
        return None


def read_mapping(reader: NetworkReader) -> MappingShape:
    """Read the shape of a mapping network off its variables.

    Raises:
        CheckpointError: A variable is missing or has another number of axes, or an option is unknown.
    """
    reader.require("mapping_nonlinearity", "lrelu")
    reader.require("normalize_latents", expected=True)
    depth = 0
    while reader.has(DENSE.format(depth)) and depth < MAX_MAPPING_LAYERS:
        depth += 1
    input_dim, hidden_dim = reader.shape(DENSE.format(0), 2)
    w_dim = reader.shape(DENSE.format(depth - 1), 2)[1]
    c_dim, embed_dim = 0, 0
    for name in ("LabelConcat", "LabelEmbed"):
        if reader.has(f"mapping/{name}/weight"):
            c_dim, embed_dim = reader.shape(f"mapping/{name}/weight", 2)
    return MappingShape(
        z_dim=input_dim - embed_dim,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=depth,
        mapping_lr_multiplier=reader.real("mapping_lrmul", 0.01),
        embed_dim=embed_dim or None,
        hidden_dim=hidden_dim if depth > 1 else None,
    )


def take_mapping(reader: NetworkReader, shape: MappingShape) -> dict[str, Floats]:
    """Take the mapping's variables: our names -> arrays in our layout.

    `LabelConcat` (StyleGAN2) multiplies the class by the weights as they are; `LabelEmbed` (StyleGAN2-ADA) is a dense
    layer with a bias.

    Raises:
        CheckpointError: A variable is missing or does not fit.
    """
    w_dim, c_dim, embed_dim = shape["w_dim"], shape["c_dim"], shape["embed_dim"] or 0
    tensors: dict[str, Floats] = {"mapping.w_avg": reader.take("dlatent_avg", (w_dim,))}
    widths = [shape["z_dim"] + embed_dim, *[shape["hidden_dim"] or w_dim] * (shape["mapping_layers"] - 1), w_dim]
    for index in range(shape["mapping_layers"]):
        start = f"mapping/Dense{index}"
        tensors[f"mapping.layers.{index}.weight"] = reader.take(f"{start}/weight", (widths[index], widths[index + 1])).T
        tensors[f"mapping.layers.{index}.bias"] = reader.take(f"{start}/bias", (widths[index + 1],))
    if reader.has("mapping/LabelConcat/weight"):
        weight = reader.take("mapping/LabelConcat/weight", (c_dim, embed_dim)).T
        tensors["mapping.embed.weight"] = weight * np.float32(np.sqrt(c_dim))  # undoes our scale at run time
        tensors["mapping.embed.bias"] = np.zeros(embed_dim, np.float32)
    elif c_dim:
        tensors["mapping.embed.weight"] = reader.take("mapping/LabelEmbed/weight", (c_dim, embed_dim)).T
        tensors["mapping.embed.bias"] = reader.take("mapping/LabelEmbed/bias", (embed_dim,))
    return tensors


def is_label_concatenated(reader: NetworkReader) -> bool:
    """Whether latent and class are normalised as one vector."""
    return reader.has("mapping/LabelConcat/weight")
