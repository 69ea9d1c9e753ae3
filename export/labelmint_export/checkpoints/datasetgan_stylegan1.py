"""StyleGAN1 generators out of the state dicts of DatasetGAN's program. Widths and depth are read from the shapes.

Legend: C channels of a block, r its resolution.
"""

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.checkpoints.completion import check_noise_side, draw_noise, estimate_w_avg
from labelmint_export.checkpoints.state_dicts import StateDict, StateDictReader
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.stylegan1 import StyleGAN1Config, StyleGAN1Generator

MEAN_LATENT_KEY = "truncation.avg_latent"
"""Where whole models that were saved after the truncation was put behind the mapping keep it."""

BLOCK_KEY = re.compile(r"g_synthesis\.blocks\.(\d{1,5})x\1\.")
# Our names and the original's, as substitutions to be made in this order.
RENAMED = (
    (r"^mapping\.layers\.", "g_mapping.dense"),
    (r"^synthesis\.blocks\.b(\d+)\.", r"g_synthesis.blocks.\1x\1."),
    (r"^synthesis\.", "g_synthesis."),
    (r"\.constant_input$", ".const"),
    (r"\.4x4\.conv1\.", ".4x4.conv."),
    (r"\.conv0\.blur_filter$", ".conv0_up.intermediate.kernel"),
    (r"\.conv0\.", ".conv0_up."),
    (r"\.noise_strength$", ".top_epi.noise.weight"),
    (r"\.affine\.", ".style_mod.lin."),
)
# Where the fields of a shape come from.
CONFIG_KEYS = {
    "resolution": "g_synthesis.blocks",
    "channels": "g_synthesis.blocks",
    "mapping_layers": "g_mapping",
    "z_dim": "g_mapping.dense0.weight",
    "w_dim": "g_mapping",
    "hidden_dim": "g_mapping.dense0.weight",
    "image_channels": "g_synthesis.torgb.bias",
}


def stylegan1_config_from_state_dict(tensors: StateDict, *, mapping_lr_multiplier: float = 0.01) -> StyleGAN1Config:
    """Read the shape of a generator off its arrays.

    Args:
        tensors: `g_mapping.*` and `g_synthesis.*` -> array.
        mapping_lr_multiplier: Scale of the mapping's stored weights, which the file does not tell.

    Returns:
        The shape; that all arrays fit it is not checked.

    Raises:
        CheckpointError: An array that tells a width is missing or has another number of axes, or a width is out of
            range.
    """
    reader = _generator_reader(tensors)
    depth = 0
    while f"g_mapping.dense{depth}.weight" in tensors:
        depth += 1
    hidden_dim, z_dim = reader.shape("g_mapping.dense0.weight", 2)
    w_dim, _ = reader.shape(f"g_mapping.dense{depth - 1}.weight", 2)
    sides = {int(match[1]) for key in tensors if (match := BLOCK_KEY.match(key))}
    resolution = max(sides, default=4)
    channels: dict[int, int] = {}
    for r in (2**i for i in range(2, max(resolution.bit_length(), 3))):
        convolution = "conv" if r == 4 else "conv1"
        (channels[r],) = reader.shape(f"g_synthesis.blocks.{r}x{r}.{convolution}.bias", 1)
    (image_channels,) = reader.shape("g_synthesis.torgb.bias", 1)
    try:
        return StyleGAN1Config(
            resolution=resolution,
            channels=channels,
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=depth,
            hidden_dim=hidden_dim if depth > 1 else None,
            mapping_lr_multiplier=mapping_lr_multiplier,
            image_channels=image_channels,
        )
    except GeneratorError as error:
        key = CONFIG_KEYS.get(error.field, error.field)
        raise CheckpointError(f"{key} belongs to no generator that can be used: {error}", field=key) from error


def stylegan1_from_state_dict(
    tensors: StateDict,
    *,
    mean_latent: npt.NDArray[np.generic] | None = None,
    noise: StateDict | None = None,
    mapping_lr_multiplier: float = 0.01,
) -> StyleGAN1Generator:
    """Make the generator that a state dict of DatasetGAN's StyleGAN1 holds.

    Args:
        tensors: `g_mapping.*` and `g_synthesis.*` -> array; names that begin otherwise are left aside.
        mean_latent: float [w_dim] or [1, w_dim], what truncation leads to. None for that in the state dict, if there is
            one, or the mean of 8,000 mapped latents.
        noise: Layer name, such as b8.epi1, -> float [r, r] or [1, 1, r, r]. The state dict holds none: layers that are
            not named get noise that follows from their place (see `completion`).
        mapping_lr_multiplier: Scale of the mapping's stored weights, which the state dict does not tell.

    Returns:
        The generator in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: An array is missing, left over, of another shape or not finite; `field` names it.
    """
    reader = _generator_reader(tensors)
    config = stylegan1_config_from_state_dict(tensors, mapping_lr_multiplier=mapping_lr_multiplier)
    with torch.device("meta"):
        described = StyleGAN1Generator(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in described.state_dict().items()}
    keys = _generator_keys(reader, shapes)
    if mean_latent is None:
        mean_latent = tensors.get(MEAN_LATENT_KEY)
    given = None
    if mean_latent is not None:
        latent = StateDictReader({"mean_latent": mean_latent}, "give the mean of this generator's mapped latents")
        latent.check("mean_latent", [(config.w_dim,), (1, config.w_dim)])
        given = latent.tensor("mean_latent", [config.w_dim])
    buffers = _noise(noise or {}, described)
    generator = StyleGAN1Generator(config)
    loaded = {name: reader.tensor(key, shapes[name]) for name, key in keys.items()} | buffers
    loaded |= {name: tensor for name, tensor in generator.state_dict().items() if name not in loaded}
    generator.load_state_dict(loaded)
    generator.eval().requires_grad_(False)
    if given is None:
        estimate_w_avg(generator.mapping, config.z_dim)
    else:
        generator.mapping.w_avg.copy_(given)
    return generator


def _generator_reader(tensors: StateDict) -> StateDictReader:
    return StateDictReader(tensors, "give the state dict of a StyleGAN1 generator as DatasetGAN's program writes it")


def _generator_keys(reader: StateDictReader, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Our names -> keys of the arrays that belong there, all of which were checked."""
    keys = {}
    for name, shape in shapes.items():
        if name == "mapping.w_avg" or name.endswith(".noise_const"):
            continue
        key = name
        for ours, original in RENAMED:
            key = re.sub(ours, original, key)
        if name.endswith(".blur_filter") and key not in reader.tensors:
            continue  # it is [1 2 1] everywhere, and some programs make it anew
        leading = (1, 1) if name.endswith(".blur_filter") else (1,) if name.endswith(".constant_input") else ()
        reader.check(key, [(*leading, *shape)])
        keys[name] = key
    known = set(keys.values())
    for key in reader.tensors:
        if key.startswith(("g_mapping.", "g_synthesis.")) and key not in known:
            reader.refuse(key, "has no place", "only what a generator of this shape needs")
    return keys


def _noise(given: StateDict, generator: StyleGAN1Generator) -> dict[str, torch.Tensor]:
    """The noise of every layer under the names of the generator's buffers."""
    sides = {spec.name: spec.resolution for spec in generator.synthesis.noise_specs}
    reader = StateDictReader(given, "name layers that add noise", "noise.")
    for name in given:
        if name not in sides:
            reader.refuse(name, "has no place", f"layers of {next(iter(sides))} to {next(reversed(sides))}")
        r = sides[name]
        reader.check(name, [(r, r), (1, 1, r, r)])
    for name, r in sides.items():
        if name not in given:
            check_noise_side(f"noise.{name}", r)
    return {
        f"synthesis.blocks.{name}.noise_const": reader.tensor(name, [r, r]) if name in given else draw_noise(index, r)
        for index, (name, r) in enumerate(sides.items())
    }
