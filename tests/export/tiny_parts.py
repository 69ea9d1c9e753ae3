"""Small random generators, interpreters and annotations in which every weight matters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from labelmint.addresses import latents
from labelmint.graphs import stack_name
from labelmint.v1 import bundle_pb2
from labelmint_export.annotations import AnnotatedSet, AnnotationSchema
from labelmint_export.bundle.settings import BuildSettings
from labelmint_export.gan.config import TrainConfig
from labelmint_export.generator import Generator, GeneratorConfig, TapSpec
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig, PixelEnsemble
from labelmint_export.pictures import to_uint8

CHANNELS = {4: 8, 8: 7, 16: 6, 32: 5}
CLASS_NAMES = ("background", "disc", "ring", "bar")
KEYPOINT_NAMES = ("left", "right", "tip")


def make_config(resolution: int = 16, *, c_dim: int = 0, image_channels: int = 3) -> GeneratorConfig:
    return GeneratorConfig(
        resolution=resolution,
        channels={r: width for r, width in CHANNELS.items() if r <= resolution},
        z_dim=8,
        w_dim=10,
        c_dim=c_dim,
        mapping_layers=2,
        image_channels=image_channels,
    )


def make_generator(resolution: int = 16, *, c_dim: int = 0, image_channels: int = 3, seed: int = 0) -> Generator:
    """A generator whose biases, noise strengths and mean w are not the neutral ones it is born with."""
    return make_generator_of(make_config(resolution, c_dim=c_dim, image_channels=image_channels), seed)


def make_generator_of(config: GeneratorConfig, seed: int = 0) -> Generator:
    """Likewise, of any shape."""
    torch.manual_seed(seed)
    generator = Generator(config)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
            elif name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif name.endswith("torgb.conv.weight"):
                parameter.mul_(0.25)
        generator.mapping.w_avg.copy_(torch.randn_like(generator.mapping.w_avg) * 0.5)
    return generator.eval().requires_grad_(False)


def make_interpreter(
    taps: tuple[TapSpec, ...],
    label_resolution: int,
    *,
    num_classes: int = len(CLASS_NAMES),
    num_members: int = 5,
    num_keypoints: int = len(KEYPOINT_NAMES),
    threshold: float = 0.4,
    seed: int = 0,
) -> Interpreter:
    """An interpreter whose members disagree often, with batch statistics that do not vanish in the fold."""
    torch.manual_seed(seed)
    interpreter = Interpreter(
        InterpreterConfig(
            taps=taps,
            label_resolution=label_resolution,
            num_classes=num_classes,
            num_members=num_members,
            hidden_widths=(12, 6),
            num_keypoints=num_keypoints,
            num_keypoint_members=2,
            keypoint_hidden_widths=(7, 5),
        )
    )
    with torch.no_grad():
        for name, tensor in interpreter.state_dict().items():
            if name.endswith("variance"):
                tensor.uniform_(0.2, 3.0)
            elif name.endswith(("mean", "shift")):
                tensor.normal_(0.0, 0.3)
            elif name.endswith("scale"):
                tensor.uniform_(0.5, 2.0)
        # No class is everywhere or nowhere, and heatmaps reach the thresholds now and then.
        _spread_outputs(interpreter.eval().classifiers, deviation=3.0)
        if interpreter.regressors is not None:
            _spread_outputs(interpreter.regressors, deviation=0.3)
        interpreter.visibility_thresholds.fill_(threshold)
    return interpreter.eval().requires_grad_(False)


def _spread_outputs(ensemble: PixelEnsemble, deviation: float) -> None:
    members, _, num_features = ensemble.linear1.weight.shape
    pixels = torch.randn(1, 500, num_features) * (0.3 + 0.7 * torch.rand(1, 500, 1))
    outputs = ensemble(pixels.expand(members, -1, -1))  # [M, 500, O]
    scale = deviation / outputs.std(dim=1)
    ensemble.linear3.weight.mul_(scale[..., None])
    ensemble.linear3.bias.sub_(outputs.mean(dim=1)).mul_(scale)


def make_taps(specs: tuple[TapSpec, ...], count: int, *, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random taps, float64, that hold float32 numbers."""
    random = torch.Generator().manual_seed(seed)
    return {
        spec.name: torch.randn(count, spec.channels, spec.resolution, spec.resolution, generator=random).double()
        for spec in specs
    }


def stack_taps(taps: Mapping[str, torch.Tensor], specs: tuple[TapSpec, ...]) -> dict[str, torch.Tensor]:
    """What the synthesis graph hands to the interpreter graph."""
    resolutions = sorted({spec.resolution for spec in specs})
    return {
        stack_name(r): torch.cat([taps[spec.name] for spec in specs if spec.resolution == r], dim=1)
        for r in resolutions
    }


def make_schema(num_keypoints: int = len(KEYPOINT_NAMES)) -> AnnotationSchema:
    return AnnotationSchema(
        class_names=CLASS_NAMES,
        palette=((255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200)),
        keypoint_names=KEYPOINT_NAMES[:num_keypoints],
        skeleton=((0, 1),) if num_keypoints > 1 else (),
        left_right_pairs=((0, 1),) if num_keypoints > 1 else (),
    )


def make_annotated(generator: Generator, count: int = 3, *, seed: int = 4) -> AnnotatedSet:
    """Pictures of a generator with random masks (each class and 255 occur) and points."""
    random = np.random.default_rng(seed)
    z = torch.from_numpy(latents(seed, np.arange(count, dtype=np.uint64), generator.config.z_dim))
    ws = generator.mapping(z).contiguous()
    pictures = to_uint8(generator.synthesis(ws).image)
    side = generator.config.resolution
    masks = random.integers(0, len(CLASS_NAMES), (count, side, side)).astype(np.uint8)
    masks[:, :2, :3] = 255
    keypoints = np.zeros((count, len(KEYPOINT_NAMES), 3), np.float32)
    keypoints[..., :2] = random.uniform(0, side, keypoints[..., :2].shape)
    keypoints[..., 2] = 1.0
    keypoints[0, 1] = 0.0
    return AnnotatedSet(make_schema(), pictures, masks, keypoints, z, ws)


def make_settings(**changes: object) -> BuildSettings:
    fields: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "description": "Random pictures with random labels, for tests",
        "weights_licence": "CC0-1.0",
        "data_licence": "CC0-1.0",
        "attribution": "Nobody; random numbers",
        "num_calibration_samples": 16,
        "num_parity_samples": 2,
        "batch_size": 4,
    }
    return BuildSettings(**(fields | changes))  # type: ignore[arg-type]  # the tests change fields of every type


def make_provenance() -> bundle_pb2.Provenance:
    return bundle_pb2.Provenance(created_by="tests", num_annotated_images=3)


def make_train_config(resolution: int = 16, *, compute_dtype: str = "float32", seed: int = 0) -> TrainConfig:
    """A training that does everything within four steps: R1, path length, mixing, augmentation."""
    config = make_config(resolution)
    return TrainConfig(
        generator=config,
        discriminator_channels=config.channels,
        seed=seed,
        batch_size=4,
        r1_interval=2,
        path_length_interval=3,
        ada_interval=2,
        ada_speed_images=400,
        ada_target=0.1,
        ema_images=16,
        compute_dtype=compute_dtype,
    )


def make_pictures(count: int, side: int, *, seed: int = 5) -> npt.NDArray[np.uint8]:
    """Coloured discs on coloured grounds."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] + 0.5
    pictures = np.empty((count, side, side, 3), np.uint8)
    for picture in pictures:
        x, y, radius = random.uniform([0.3, 0.3, 0.15], [0.7, 0.7, 0.3])
        inside = np.hypot(columns - x * side, rows - y * side) < radius * side
        ground, disc = random.integers(0, 256, (2, 3))
        picture[:] = np.where(inside[..., None], disc, ground)
    return pictures


def write_pictures(folder: Path, count: int, side: int) -> Path:
    path = folder / "pictures.npy"
    np.save(path, make_pictures(count, side))
    return path
