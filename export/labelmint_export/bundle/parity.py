"""Does the bundle compute what was trained? Measured at the build, recorded in the manifest, checked again by verify.

The truth is float64: the generator, then the reference algorithm with its full-resolution concatenation and separate
MLPs. A bundle in float16 is measured twice: its graph in onnxruntime, which computes float16 in float32 on a processor,
and in torch, which rounds each operation as a device does that has float16.

Legend: N images, K keypoints, H rows, W columns.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from labelmint.v1 import bundle_pb2
from labelmint_export import precision
from labelmint_export.bundle.graphs import ModelGraph, crop_of_manifest, noise_of_manifest
from labelmint_export.bundle.half import make_half_model
from labelmint_export.bundle.quantiles import RunModel, check_finite, make_feeds
from labelmint_export.bundle.rounding import ProductsInFloat32
from labelmint_export.bundle.runtime import Arrays
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter, stack_taps
from labelmint_export.interpreter.reference import interpret_reference
from labelmint_export.reserved_seeds import PARITY_SEED

HALF_TARGET = precision.TOLERANCES["float16"]
DEPLOYED, ROUNDED = "onnx_vs_reference", "rounded_vs_reference"

# name -> (tolerance, bound)
TOLERANCES: dict[str, tuple[float, str]] = {
    "fused_vs_separate.label_agreement": (0.99999, "min"),
    "fused_vs_separate.uncertainty_max_error": (1e-5, "max"),
    "onnx_vs_reference.image_max_error_levels": (1.0, "max"),
    "onnx_vs_reference.image_equal_share": (0.99, "min"),
    "onnx_vs_reference.label_agreement": (0.9995, "min"),
    "onnx_vs_reference.uncertainty_max_error": (5e-3, "max"),
    "onnx_vs_reference.keypoints_within_0_05_px": (0.995, "min"),
}
HALF_TOLERANCES: dict[str, tuple[float, str]] = {
    **{name: value for name, value in TOLERANCES.items() if name.startswith("fused_vs_separate.")},
    **{
        f"{prefix}.{name}": value
        for prefix in (DEPLOYED, ROUNDED)
        for name, value in {
            "finite_share": (1.0, "min"),
            "image_mean_error_levels": HALF_TARGET["image_mean_error_levels"],
            "label_agreement": HALF_TARGET["label_agreement"],
            "uncertainty_mean_error": HALF_TARGET["uncertainty_mean_error"],
            "keypoints_within_0_5_px": HALF_TARGET["keypoints_within_0_5_px"],
        }.items()
    },
}
"""Of bundles in float16: those of targets."""


def tolerances_of(manifest: bundle_pb2.Manifest) -> Mapping[str, tuple[float, str]]:
    """What is measured of a bundle, and how far it may be off: name -> (tolerance, bound)."""
    return HALF_TOLERANCES if manifest.precision == "float16" else TOLERANCES


@torch.no_grad()
def reference_outputs(
    generator: Backbone,
    interpreter: Interpreter,
    manifest: bundle_pb2.Manifest,
    feeds: Mapping[str, npt.NDArray[np.float32]],
) -> tuple[Arrays, dict[str, torch.Tensor]]:
    """Compute what the `model` graph should give, in float64.

    Args:
        generator: Float64.
        interpreter: Float64.
        manifest: Noise, truncation, vote and frame are taken from it.
        feeds: Inputs of the `model` graph.

    Returns:
        Outputs by name in float64 (image before rounding to levels is not kept), and the features.
    """
    z = torch.from_numpy(np.asarray(feeds["z"])).double()
    c = torch.from_numpy(np.asarray(feeds["c"])).double() if "c" in feeds else None
    psi = torch.from_numpy(np.asarray(feeds["truncation_psi"])).double()
    w = _map_double(generator, z, c)
    ws = w[:, None].expand(-1, generator.config.num_ws, -1)
    truncated = generator.mapping.w_avg + psi[:, None, None] * (ws - generator.mapping.w_avg)
    cutoff = manifest.truncation.cutoff or generator.config.num_ws
    ws = torch.cat([truncated[:, :cutoff], ws[:, cutoff:]], dim=1)
    output = generator.synthesis(ws, noise_of_manifest(manifest), compute_dtype=torch.float64)
    labels = interpret_reference(interpreter, output.features, manifest.vote_rule)
    scale = generator.config.resolution / interpreter.config.label_resolution
    image = torch.floor((output.image.double() * 127.5 + 128).clamp(0, 255)).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    crop = crop_of_manifest(manifest)
    top, left = int(crop.top / scale), int(crop.left / scale)
    bottom, right = top + int(crop.height / scale), left + int(crop.width / scale)
    arrays: Arrays = {
        "image": image[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width].numpy(),
        "label": labels.label[:, top:bottom, left:right].numpy(),
        "uncertainty_map": labels.uncertainty_map[:, top:bottom, left:right].numpy(),
    }
    if labels.keypoints is not None:
        keypoints = labels.keypoints.clone()
        keypoints[..., :2] *= scale
        keypoints[..., 0] -= crop.left
        keypoints[..., 1] -= crop.top
        x, y = keypoints[..., 0], keypoints[..., 1]
        keypoints[..., 3] *= (x >= 0) & (x <= crop.width) & (y >= 0) & (y <= crop.height)
        arrays["keypoints"] = keypoints.numpy()
    return arrays, output.features


def _map_double(generator: Backbone, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
    """The mapping network without its own cast to float32."""

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()

    if c is None:
        x = unit(z)
    elif generator.config.joint_normalization:
        x = unit(torch.cat([z, generator.mapping.embed(c)], dim=1))
    else:
        x = torch.cat([unit(z), unit(generator.mapping.embed(c))], dim=1)
    for layer in generator.mapping.layers:
        x = layer(x)
    return x


def measure_parity(
    generator: Backbone,
    interpreter: Interpreter,
    run_model: RunModel,
    manifest: bundle_pb2.Manifest,
    psis: Sequence[float],
    num_samples: int,
) -> bundle_pb2.Parity:
    """Compare the deployed graph with the float64 reference, and the fused form with separate MLPs.

    Args:
        generator: As trained, float32.
        interpreter: As trained, float32.
        run_model: Runs the deployed `model` graph with the manifest's batch.
        manifest: Of the bundle, as far as it is known.
        psis: Truncations, which batches take in turn.
        num_samples: Compared addresses.

    Returns:
        Every check with its measured value and tolerance.

    Raises:
        BuildError: A sample of a bundle in float32 is not finite.
    """
    double_generator, double_interpreter = copy.deepcopy(generator).double(), copy.deepcopy(interpreter).double()
    fused = FusedInterpreter(interpreter, manifest.vote_rule, torch.float32)
    batch = manifest.runtime.batch_size
    half = make_half_model(generator, interpreter, manifest) if manifest.precision == "float16" else None
    tolerances = tolerances_of(manifest)
    errors: dict[str, list[float]] = {name: [] for name in tolerances}
    for start in range(0, num_samples, batch):
        indices = np.arange(start, start + batch, dtype=np.uint64)
        psi = psis[(start // batch) % len(psis)]
        feeds = make_feeds(manifest.backbone, PARITY_SEED, indices, psi, None, list(manifest.class_distribution))
        deployed = run_model(feeds)
        if half is None:  # in float16 too large values are an error like others
            check_finite(deployed, indices, psi)
        for row in range(min(batch, num_samples - start)):
            one = {name: array[row : row + 1] for name, array in feeds.items()}
            expected, taps = reference_outputs(double_generator, double_interpreter, manifest, one)
            _compare(errors, DEPLOYED, expected, {name: array[row : row + 1] for name, array in deployed.items()})
            if half is not None:
                _compare(errors, ROUNDED, expected, _run_rounded(half, one))
            _compare_fused(errors, fused, taps, double_interpreter, manifest.vote_rule)
    parity = bundle_pb2.Parity(num_samples=num_samples)
    for name, (tolerance, bound) in tolerances.items():
        if errors[name]:
            values = np.asarray(errors[name])
            share = name.endswith(("agreement", "share", "_px"))
            measured = float(values.mean() if share else values.max())
            parity.checks.add(name=name, measured=measured, tolerance=tolerance, bound=bound)
    return parity


def _compare(errors: dict[str, list[float]], prefix: str, expected: Arrays, got: Arrays) -> None:
    """Add the figures of one sample; those that are not asked for are left out."""
    image_error = np.abs(expected["image"].astype(np.float64) - got["image"].astype(np.float64))
    difference = np.abs(expected["uncertainty_map"].astype(np.float64) - got["uncertainty_map"].astype(np.float64))
    figures = {
        "finite_share": [float(np.asarray(got["finite"]).mean())],
        "image_max_error_levels": [float(image_error.max())],
        "image_mean_error_levels": [float(image_error.mean())],
        "image_equal_share": [float((image_error == 0).mean())],
        "label_agreement": [float((expected["label"] == got["label"]).mean())],
        "uncertainty_max_error": [float(difference.max())],
        "uncertainty_mean_error": [float(difference.mean())],
    }
    if "keypoints" in expected:
        places, wanted = (arrays["keypoints"][..., :2].astype(np.float64) for arrays in (got, expected))
        distance = np.abs(places - wanted).max(axis=-1)
        seen = expected["keypoints"][..., 3].astype(np.float64) > 0.5  # the place of an unseen one is that of noise
        figures["keypoints_within_0_05_px"] = (distance[seen] <= 0.05).tolist()
        figures["keypoints_within_0_5_px"] = (distance[seen] <= 0.5).tolist()
    for name, values in figures.items():
        if f"{prefix}.{name}" in errors:
            errors[f"{prefix}.{name}"] += values


@torch.no_grad()
def _run_rounded(model: ModelGraph, feeds: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
    """Run a model by torch, which rounds the result of every operation to its dtype."""
    order = [name for name in ("z", "truncation_psi", "c") if name in feeds]
    with ProductsInFloat32():  # type: ignore[no-untyped-call]  # torch does not annotate it
        outputs = model(*(torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in order))
    return {name: output.numpy() for name, output in zip(model.output_names, outputs, strict=True)}


def _compare_fused(
    errors: dict[str, list[float]],
    fused: FusedInterpreter,
    taps: dict[str, torch.Tensor],
    interpreter: Interpreter,
    vote_rule: str,
) -> None:
    """Fused float32 against separate float64 MLPs, on taps that are rounded to float32 for both."""
    rounded = {name: tap.float() for name, tap in taps.items()}
    got = fused(stack_taps(rounded, fused.config.taps))
    expected = interpret_reference(interpreter, {name: tap.double() for name, tap in rounded.items()}, vote_rule)
    errors["fused_vs_separate.label_agreement"].append(float((got.label == expected.label).double().mean()))
    error = (got.uncertainty_map.double() - expected.uncertainty_map).abs().max()
    errors["fused_vs_separate.uncertainty_max_error"].append(float(error))


def failed_checks(parity: bundle_pb2.Parity) -> Sequence[bundle_pb2.ParityCheck]:
    """The checks that miss their tolerance."""
    return [
        check
        for check in parity.checks
        if not (check.measured <= check.tolerance if check.bound == "max" else check.measured >= check.tolerance)
    ]
