"""StyleGAN3 generators out of NVIDIA's pickles, once these are plain records.

The stored attributes say how each layer resamples, the stored tensors say how wide it is; where both speak, they must
agree. Nothing is taken for granted: a fork that computes something else is refused rather than painted wrongly.
"""

from pathlib import Path

from labelmint_export.checkpoints.fields import RecordReader, show
from labelmint_export.checkpoints.nvidia import check_linear, check_networks, read_mapping, rename_mapping
from labelmint_export.checkpoints.records import ModuleRecord
from labelmint_export.checkpoints.tensors import fill_from_arrays
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.stylegan3 import StyleGAN3Generator
from labelmint_export.generator.stylegan3_config import MAX_LAYERS, StyleGAN3Config, StyleGAN3LayerConfig


def _filter_taps(layer: RecordReader, name: str) -> tuple[int, bool]:
    """Length of a filter and whether it is a square of its own."""
    shape = layer.optional_shape(name)
    if shape is None:
        return 1, False
    if len(shape) not in (1, 2) or len(set(shape)) != 1:
        layer.refuse(name, f"has shape {list(shape)}", "one axis, or two of equal length")
    return shape[0], len(shape) == 2


def _layer_config(layer: RecordReader, name: str) -> StyleGAN3LayerConfig:
    check_linear(layer.child("affine", "FullyConnectedLayer"), "linear", 1.0)
    in_channels, out_channels, kernel = (layer.whole(key) for key in ("in_channels", "out_channels", "conv_kernel"))
    layer.agree("weight", layer.shape("weight", 4), (out_channels, in_channels, kernel, kernel))
    up_taps, up_square = _filter_taps(layer, "up_filter")
    if up_square:
        layer.refuse("up_filter", "has two axes", "one axis")
    down_taps, down_radial = _filter_taps(layer, "down_filter")
    left, right, top, bottom = layer.wholes("padding", 4)
    return StyleGAN3LayerConfig(
        name=name,
        in_channels=in_channels,
        out_channels=out_channels,
        in_size=layer.side("in_size"),
        out_size=layer.side("out_size"),
        out_sampling_rate=layer.whole("out_sampling_rate"),
        kernel=kernel,
        up_factor=layer.whole("up_factor"),
        down_factor=layer.whole("down_factor"),
        up_taps=up_taps,
        down_taps=down_taps,
        down_radial=down_radial,
        padding=(left, right, top, bottom),
        is_torgb=layer.flag("is_torgb"),
        conv_clamp=None if layer.value("conv_clamp") is None else layer.real("conv_clamp"),
    )


def _layer_names(synthesis: RecordReader) -> list[str]:
    names = synthesis.value("layer_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > MAX_LAYERS:
        synthesis.refuse("layer_names", f"is {show(names)}", f"a list of at most {MAX_LAYERS} names")
    return names


def config_from_attributes(record: ModuleRecord) -> StyleGAN3Config:
    """Read the shape of a generator.

    Args:
        record: The pickled `Generator`, such as the snapshot's `G_ema`.

    Returns:
        The shape, checked.

    Raises:
        CheckpointError: Something is missing, of another type, out of range or contradicts something else; `field`
            names it, such as `synthesis.L0_36_512.padding`.
    """
    root = RecordReader(record)
    root.agree("class_name", record.class_name, "Generator")
    mapping, synthesis = root.child("mapping", "MappingNetwork"), root.child("synthesis", "SynthesisNetwork")
    waves = synthesis.child("input", "SynthesisInput")
    check_linear(waves.child("affine", "FullyConnectedLayer"), "linear", 1.0)
    waves.agree("weight", waves.shape("weight", 2), (waves.whole("channels"),) * 2)
    names = _layer_names(synthesis)
    try:
        config = StyleGAN3Config(
            resolution=synthesis.whole("img_resolution"),
            layers=tuple(_layer_config(synthesis.child(name, "SynthesisLayer"), name) for name in names),
            input_channels=waves.whole("channels"),
            input_size=waves.side("size"),
            input_sampling_rate=waves.real("sampling_rate"),
            input_bandwidth=waves.real("bandwidth"),
            **read_mapping(mapping),
            image_channels=synthesis.whole("img_channels"),
            output_scale=synthesis.real("output_scale"),
        )
    except GeneratorError as error:
        name = f"synthesis.{error.field}" if error.field.startswith("L") else error.field
        raise CheckpointError(str(error), field=name) from error
    check_networks(mapping, synthesis, config)
    return config


def generator_from_record(record: ModuleRecord, path: Path) -> StyleGAN3Generator:
    """Make the generator that a pickle holds.

    Shapes are compared before any memory is taken, so that attributes that claim too much cost nothing.

    Args:
        record: The pickled `Generator`, such as the snapshot's `G_ema`.
        path: Where it comes from, for the errors.

    Returns:
        The generator in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: The record holds no StyleGAN3 generator, or one whose tensors do not fit its attributes.
    """
    config = config_from_attributes(record)
    arrays = {rename_mapping(name): array for name, array in record.tensors().items()}
    generator = fill_from_arrays(lambda: StyleGAN3Generator(config), arrays, path)
    tensors = generator.state_dict()
    for name, tensor in tensors.items():
        if name.endswith(".magnitude_ema") and not bool(tensor > 0):
            raise CheckpointError(f"{name} in {path} is {float(tensor)}, expected more than 0", field=name)
    if tensors["synthesis.input.transform"][2].tolist() != [0.0, 0.0, 1.0]:
        name = "synthesis.input.transform"
        raise CheckpointError(f"{name} in {path} does not end in the row 0, 0, 1; set one that does", field=name)
    return generator
