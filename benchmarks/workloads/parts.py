"""Random parts of a workload, from a fixed seed: whoever makes them gets the same.

P pixels, D features.
"""

from pathlib import Path

import torch

from benchmarks.workloads.shapes import STYLEGAN1_CHANNELS, STYLEGAN2_CHANNELS, Workload
from labelmint.bundle import MANIFEST_NAME, write_manifest
from labelmint.v1 import bundle_pb2
from labelmint_export.annotations import AnnotationSchema
from labelmint_export.bundle.build import write_unmeasured
from labelmint_export.bundle.graphs import CropWindow
from labelmint_export.bundle.settings import BuildSettings
from labelmint_export.generator import Backbone, Generator, GeneratorConfig
from labelmint_export.generator.stylegan1 import StyleGAN1Config, StyleGAN1Generator
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig, PixelEnsemble
from labelmint_export.interpreter.reference import concatenate_taps
from labelmint_export.interpreter.taps import select_taps
from labelmint_export.placing import placed_whole
from labelmint_export.precision import Precision

LATENT_WIDTH = 512
MAPPING_LAYERS = 8
_PIXELS_TO_SETTLE = 4096


def make_generator(workload: Workload) -> Backbone:
    """A generator of that shape with random weights."""
    torch.manual_seed(0)
    channels = STYLEGAN1_CHANNELS if workload.family == "stylegan1" else STYLEGAN2_CHANNELS
    make_config = StyleGAN1Config if workload.family == "stylegan1" else GeneratorConfig
    config = make_config(
        resolution=workload.resolution,
        channels={r: width for r, width in channels.items() if r <= workload.resolution},
        z_dim=LATENT_WIDTH,
        w_dim=LATENT_WIDTH,
        mapping_layers=MAPPING_LAYERS,
    )
    generator = StyleGAN1Generator(config) if isinstance(config, StyleGAN1Config) else Generator(config)
    return generator.eval().requires_grad_(False)


def make_interpreter(workload: Workload, generator: Backbone) -> Interpreter:
    """An interpreter of that shape whose members disagree and whose classes all occur."""
    taps = select_taps(generator, [workload.taps])
    torch.manual_seed(1)
    interpreter = Interpreter(
        InterpreterConfig(
            taps=taps,
            label_resolution=workload.label_resolution,
            num_classes=workload.num_classes,
            num_members=workload.num_members,
            hidden_widths=workload.hidden_widths,
        )
    )
    assert interpreter.config.num_features == workload.num_features, interpreter.config.num_features
    with torch.no_grad():
        z = torch.randn(1, generator.config.z_dim)
        features = generator.synthesis(generator.mapping(z), "const").features
        side = 64  # enough places, and a sixty-fourth of the memory
        pixels = concatenate_taps(features, tuple(tap.name for tap in taps), side)[0].flatten(1).t()  # [P, D]
        _settle(interpreter.classifiers, pixels[:_PIXELS_TO_SETTLE])
    return interpreter.eval().requires_grad_(False)


def _settle(ensemble: PixelEnsemble, pixels: torch.Tensor) -> None:
    """Give the members the batch statistics of some pixels, and logits whose mean is the same for every class."""
    x = pixels.expand(len(ensemble.linear1.weight), -1, -1)  # [M, P, D]
    for linear, norm in ((ensemble.linear1, ensemble.norm1), (ensemble.linear2, ensemble.norm2)):
        x = torch.relu(linear(x))
        variance, mean = torch.var_mean(x, dim=1)
        norm.mean.copy_(mean)
        norm.variance.copy_(variance)
        x = norm.eval()(x)
    ensemble.linear3.weight.mul_(4.0)
    ensemble.linear3.bias.zero_()
    ensemble.linear3.bias.sub_(ensemble.linear3(x).mean(dim=1))


def write_bundle(
    name: str, workload: Workload, folder: Path, batch_size: int, precision: Precision = "float32"
) -> Path:
    """Write a workload's bundle, unless it is there. It is not calibrated: nobody filters its samples.

    Args:
        name: Of the workload.
        workload: Its shape.
        folder: Holds the bundles of all workloads.
        batch_size: Rows of a run.
        precision: Of feature maps and taps.

    Returns:
        The bundle.
    """
    target = folder / (f"{name}-{batch_size}" if precision == "float32" else f"{name}-{batch_size}-{precision}")
    if (target / MANIFEST_NAME).exists():
        return target
    generator = make_generator(workload)
    interpreter = make_interpreter(workload, generator)
    schema = AnnotationSchema(
        class_names=tuple(f"class{number}" for number in range(workload.num_classes)),
        palette=tuple((number, number, number) for number in range(workload.num_classes)),
        keypoint_names=(),
    )
    settings = BuildSettings(
        name=name,
        version="1",
        description="Random weights in the shapes of a benchmark",
        weights_licence="CC0-1.0",
        data_licence="CC0-1.0",
        attribution="Nobody; random numbers",
        batch_size=batch_size,
        precision=precision,
        crop=CropWindow(top=workload.first_row, left=0, height=workload.num_rows, width=workload.resolution),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with placed_whole(target) as staging:
        manifest = write_unmeasured(generator, interpreter, schema, settings, bundle_pb2.Provenance(), staging)
        write_manifest(staging, manifest)
    return target
