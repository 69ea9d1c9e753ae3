"""What DatasetGAN's program holds: StyleGAN1 generators and pixel classifiers, as plain state dicts of numpy arrays.

Shapes are compared before any memory is taken.

Legend: C channels of a block, r its resolution, M members, D features, h1 and h2 hidden widths, O classes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.checkpoints.completion import estimate_w_avg, fixed_noise
from labelmint_export.errors import CheckpointError, GeneratorError, TrainingError
from labelmint_export.generator import TapSpec
from labelmint_export.generator.stylegan1 import StyleGAN1Config, StyleGAN1Generator
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig, PixelEnsemble

StateDict = Mapping[str, npt.NDArray[np.generic]]

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
LAYER_NAMES = {
    "linear1.weight": "layers.0.weight",
    "linear1.bias": "layers.0.bias",
    "norm1.scale": "layers.2.weight",
    "norm1.shift": "layers.2.bias",
    "norm1.mean": "layers.2.running_mean",
    "norm1.variance": "layers.2.running_var",
    "linear2.weight": "layers.3.weight",
    "linear2.bias": "layers.3.bias",
    "norm2.scale": "layers.5.weight",
    "norm2.shift": "layers.5.bias",
    "norm2.mean": "layers.5.running_mean",
    "norm2.variance": "layers.5.running_var",
    "linear3.weight": "layers.6.weight",
    "linear3.bias": "layers.6.bias",
}
UNUSED_LAYER_NAMES = ("layers.2.num_batches_tracked", "layers.5.num_batches_tracked")


def _refuse(key: str, got: str, expected: str, advice: str) -> NoReturn:
    raise CheckpointError(f"{key} {got}, expected {expected}; {advice}", field=key)


class _Source:
    """A state dict that knows what it is called and what to advise, so that errors can tell."""

    def __init__(self, tensors: StateDict, advice: str, label: str = "") -> None:
        self.tensors = tensors
        self.advice = advice
        self.label = label

    def refuse(self, key: str, got: str, expected: str) -> NoReturn:
        _refuse(self.label + key, got, expected, self.advice)

    def array(self, key: str, expected: str) -> npt.NDArray[np.generic]:
        array: object = self.tensors.get(key)  # files hold what they like
        if array is None:
            self.refuse(key, "is missing", expected)
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            got = f"holds {array.dtype}" if isinstance(array, np.ndarray) else f"is a {type(array).__name__}"
            self.refuse(key, got, "an array of floating-point numbers")
        return array

    def shape(self, key: str, ndim: int) -> tuple[int, ...]:
        """Shape of an array that must be there."""
        shape = self.array(key, f"an array of {ndim} axes").shape
        if len(shape) != ndim or 0 in shape:
            self.refuse(key, f"has shape {list(shape)}", f"{ndim} axes that are not empty")
        return shape

    def check(self, key: str, shapes: Sequence[tuple[int, ...]]) -> None:
        """Check that an array is there, has one of some shapes and is finite."""
        expected = f"shape {' or '.join(str(list(shape)) for shape in shapes)}"
        array = self.array(key, expected)
        if array.shape not in shapes:
            self.refuse(key, f"has shape {list(array.shape)}", expected)
        with np.errstate(over="ignore"):
            if not np.isfinite(array.astype(np.float32)).all():
                self.refuse(key, "holds values that are not finite in float32", "finite ones")

    def tensor(self, key: str, shape: Sequence[int]) -> torch.Tensor:
        """float32 copy of an array that was checked, in another shape of as many elements."""
        return torch.from_numpy(np.array(self.tensors[key], np.float32, order="C").reshape(tuple(shape)))


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
    source = _generator_source(tensors)
    depth = 0
    while f"g_mapping.dense{depth}.weight" in tensors:
        depth += 1
    hidden_dim, z_dim = source.shape("g_mapping.dense0.weight", 2)
    w_dim, _ = source.shape(f"g_mapping.dense{depth - 1}.weight", 2)
    sides = {int(match[1]) for key in tensors if (match := BLOCK_KEY.match(key))}
    resolution = max(sides, default=4)
    channels: dict[int, int] = {}
    for r in (2**i for i in range(2, max(resolution.bit_length(), 3))):
        convolution = "conv" if r == 4 else "conv1"
        (channels[r],) = source.shape(f"g_synthesis.blocks.{r}x{r}.{convolution}.bias", 1)
    (image_channels,) = source.shape("g_synthesis.torgb.bias", 1)
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
    source = _generator_source(tensors)
    config = stylegan1_config_from_state_dict(tensors, mapping_lr_multiplier=mapping_lr_multiplier)
    with torch.device("meta"):
        described = StyleGAN1Generator(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in described.state_dict().items()}
    keys = _generator_keys(source, shapes)
    generator = StyleGAN1Generator(config)
    loaded = {name: source.tensor(key, shapes[name]) for name, key in keys.items()}
    loaded |= _noise(noise or {}, described)
    loaded |= {name: tensor for name, tensor in generator.state_dict().items() if name not in loaded}
    if mean_latent is None:
        mean_latent = tensors.get(MEAN_LATENT_KEY)
    given = None
    if mean_latent is not None:
        latent = _Source({"mean_latent": mean_latent}, "give the mean of this generator's mapped latents")
        latent.check("mean_latent", [(config.w_dim,), (1, config.w_dim)])
        given = latent.tensor("mean_latent", [config.w_dim])
    generator.load_state_dict(loaded)
    generator.eval().requires_grad_(False)
    if given is None:
        estimate_w_avg(generator.mapping, config.z_dim)
    else:
        generator.mapping.w_avg.copy_(given)
    return generator


def _generator_source(tensors: StateDict) -> _Source:
    return _Source(tensors, "give the state dict of a StyleGAN1 generator as DatasetGAN's program writes it")


def _generator_keys(source: _Source, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Our names -> keys of the arrays that belong there, all of which were checked."""
    keys = {}
    for name, shape in shapes.items():
        if name == "mapping.w_avg" or name.endswith(".noise_const"):
            continue
        key = name
        for ours, original in RENAMED:
            key = re.sub(ours, original, key)
        if name.endswith(".blur_filter") and key not in source.tensors:
            continue  # it is [1 2 1] everywhere, and some programs make it anew
        leading = (1, 1) if name.endswith(".blur_filter") else (1,) if name.endswith(".constant_input") else ()
        source.check(key, [(*leading, *shape)])
        keys[name] = key
    known = set(keys.values())
    for key in source.tensors:
        if key.startswith(("g_mapping.", "g_synthesis.")) and key not in known:
            source.refuse(key, "has no place", "only what a generator of this shape needs")
    return keys


def _noise(given: StateDict, generator: StyleGAN1Generator) -> dict[str, torch.Tensor]:
    """The noise of every layer under the names of the generator's buffers."""
    specs = generator.synthesis.noise_specs
    source = _Source(given, "name layers that add noise", "noise.")
    for name in given:
        if name not in {spec.name for spec in specs}:
            source.refuse(name, "has no place", f"layers of {specs[0].name} to {specs[-1].name}")
    drawn = fixed_noise({spec.name: spec.resolution for spec in specs})
    buffers = {}
    for spec in specs:
        r = spec.resolution
        values = drawn[spec.name]
        if spec.name in given:
            source.check(spec.name, [(r, r), (1, 1, r, r)])
            values = source.tensor(spec.name, [r, r])
        buffers[f"synthesis.blocks.{spec.name}.noise_const"] = values
    return buffers


def ensemble_from_state_dicts(members: Sequence[StateDict]) -> PixelEnsemble:
    """Make an ensemble of DatasetGAN's pixel classifiers; batch normalisations stay what they are.

    Args:
        members: The `model_state_dict` of each `model_{i}.pth`: `module.layers.{0,2,3,5,6}.*` -> array, with or without
            `module.`.

    Returns:
        The ensemble in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: There is no member, or an array is missing, left over, of another shape than in the first
            member or not finite; `field` names it.
    """
    if not members:
        raise CheckpointError("members is empty, expected the state dict of at least one classifier", field="members")
    sources = [_member_source(member, index) for index, member in enumerate(members)]
    prefixes = ["module." if any(key.startswith("module.") for key in member) else "" for member in members]
    h1, features = sources[0].shape(prefixes[0] + "layers.0.weight", 2)
    h2, _ = sources[0].shape(prefixes[0] + "layers.3.weight", 2)
    outputs, _ = sources[0].shape(prefixes[0] + "layers.6.weight", 2)
    with torch.device("meta"):
        described = PixelEnsemble(1, features, (h1, h2), outputs)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in described.state_dict().items()}
    for source, prefix in zip(sources, prefixes, strict=True):
        for name, shape in shapes.items():
            key = prefix + LAYER_NAMES[name]
            source.check(key, [shape])
            if name.endswith(".variance") and bool((source.tensor(key, shape) < 0).any()):
                source.refuse(key, "holds negative values", "variances")
        known = {prefix + name for name in (*LAYER_NAMES.values(), *UNUSED_LAYER_NAMES)}
        for key in source.tensors:
            if key not in known:
                source.refuse(key, "has no place", "only what Linear, ReLU, BN, Linear, ReLU, BN, Linear need")
    ensemble = PixelEnsemble(len(members), features, (h1, h2), outputs)
    ensemble.load_state_dict(
        {
            name: torch.stack(
                [s.tensor(prefix + LAYER_NAMES[name], shape) for s, prefix in zip(sources, prefixes, strict=True)]
            )
            for name, shape in shapes.items()
        }
    )
    return ensemble.eval().requires_grad_(False)


def interpreter_from_state_dicts(
    members: Sequence[StateDict], *, taps: tuple[TapSpec, ...], label_resolution: int
) -> Interpreter:
    """Make an interpreter of masks out of DatasetGAN's pixel classifiers.

    Args:
        members: The `model_state_dict` of each `model_{i}.pth`.
        taps: In the order in which their channels were concatenated; a StyleGAN1 generator's `tap_specs`.
        label_resolution: Side of the masks, pixels.

    Returns:
        The interpreter in evaluation mode, without keypoints.

    Raises:
        CheckpointError: See `ensemble_from_state_dicts`; or the classifiers take another number of features than the
            taps have.
    """
    ensemble = ensemble_from_state_dicts(members)
    num_members, h1, features = ensemble.linear1.weight.shape
    _, num_classes, h2 = ensemble.linear3.weight.shape
    key = next(key for key in members[0] if key.endswith("layers.0.weight"))
    available = sum(tap.channels for tap in taps)
    if features != available:
        _refuse(
            f"model_0.{key}",
            f"takes {features} features",
            f"the {available} of the taps",
            "give the taps of the generator that the classifiers were trained on",
        )
    try:
        config = InterpreterConfig(
            taps=taps,
            label_resolution=label_resolution,
            num_classes=num_classes,
            num_members=num_members,
            hidden_widths=(h1, h2),
        )
    except TrainingError as error:
        raise CheckpointError(f"the classifiers make no interpreter: {error}", field=error.field) from error
    interpreter = Interpreter(config).eval().requires_grad_(False)
    interpreter.classifiers.load_state_dict(ensemble.state_dict())
    return interpreter


def _member_source(member: StateDict, index: int) -> _Source:
    advice = "give the model_state_dict of a pixel classifier as DatasetGAN's program writes it"
    return _Source(member, advice, f"model_{index}.")
