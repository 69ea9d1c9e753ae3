"""Writes a tiny but complete bundle: real graphs, calibrated and hashed, that any engine can run in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from labelmint.addresses import latents
from labelmint.bundle import write_manifest
from labelmint.scores import image_score
from labelmint.v1 import bundle_pb2
from tests.tiny_graphs import HIDDEN, MEMBERS, NUM_WS, TAPS, W_DIM, Z_DIM, TinyShape, write_graphs

BATCH_SIZE = 4
PSI_GRID = (0.0, 0.5, 1.0)
CLASS_NAMES = ("background", "disc", "ring", "bar", "dot", "arc", "wave", "star")
POINT_NAMES = ("left_end", "right_end", "middle", "tip")


def _manifest(name: str, shape: TinyShape) -> bundle_pb2.Manifest:
    size = shape.image_size
    manifest = bundle_pb2.Manifest(
        schema_version=1,
        name=name,
        version="1",
        description="Random shapes of a tiny random network, for tests",
        upsampling="bilinear",
        ignore_label=255,
        vote_rule="majority",
        uncertainty_rule="js_divergence",
        noise_mode="none",
        precision="float32",
        class_distribution=[1.0 / max(shape.c_dim, 1)] * shape.c_dim,
    )
    manifest.backbone.CopyFrom(
        bundle_pb2.Backbone(
            family="stylegan2",
            architecture="skip",
            resolution=size,
            image_channels=3,
            z_dim=Z_DIM,
            c_dim=shape.c_dim,
            w_dim=W_DIM,
            num_ws=NUM_WS,
            num_parameters=1000,
        ),
    )
    manifest.frame.CopyFrom(
        bundle_pb2.Frame(image_height=size, image_width=size, label_height=size, label_width=size),
    )
    for resolution, channels in TAPS.items():
        manifest.taps.add(name=f"b{resolution}.conv1", channels=channels, resolution=resolution)
    manifest.segmentation.CopyFrom(bundle_pb2.Ensemble(num_members=MEMBERS, hidden_widths=[HIDDEN]))
    for index, class_name in enumerate(CLASS_NAMES[: shape.num_classes]):
        manifest.classes.add(name=class_name, red=index * 30, green=255 - index * 30, blue=128)
    if shape.keypoints:
        manifest.keypoint_regression.CopyFrom(bundle_pb2.Ensemble(num_members=1, hidden_widths=[HIDDEN]))
        manifest.keypoints.names.extend(POINT_NAMES[: shape.keypoints])
        manifest.keypoints.peak_rule = "quadratic_3x3"
        manifest.keypoints.visibility_thresholds.extend([0.5] * shape.keypoints)
        manifest.keypoints.sigma_pixels = 1.5
        if shape.keypoints >= 2:
            manifest.keypoints.skeleton.add(first=0, second=1)
            manifest.keypoints.left_right_pairs.add(first=0, second=1)
    manifest.truncation.CopyFrom(bundle_pb2.Truncation(default_psi=0.7, cutoff=shape.cutoff, max_psi=1.0))
    manifest.runtime.batch_size = BATCH_SIZE
    manifest.runtime.onnxruntime.CopyFrom(
        bundle_pb2.OnnxRuntimeOptions(
            intra_op_num_threads=1,
            inter_op_num_threads=1,
            graph_optimization_level="all",
            execution_mode="sequential",
        ),
    )
    manifest.graphs.CopyFrom(
        bundle_pb2.Graphs(
            mapping="mapping.onnx",
            synthesis="synthesis.onnx",
            interpreter="interpreter.onnx",
            model="model.onnx",
        ),
    )
    manifest.provenance.CopyFrom(bundle_pb2.Provenance(created_by="tests/tiny_bundle.py", num_annotated_images=0))
    manifest.licence.CopyFrom(
        bundle_pb2.Licence(weights="CC0-1.0", data="CC0-1.0", attribution="Nobody; random numbers"),
    )
    return manifest


def _calibrate(manifest: bundle_pb2.Manifest, root: Path, shape: TinyShape, num_samples: int) -> None:
    """Score quantiles of the real outputs, for each psi of the grid and each class."""
    session = onnxruntime.InferenceSession(root / "model.onnx", providers=["CPUExecutionProvider"])
    z = latents(12345, np.arange(num_samples, dtype=np.uint64), Z_DIM)
    for psi in PSI_GRID:
        for class_index in range(max(shape.c_dim, 1)):
            feed = {"z": z, "truncation_psi": np.full(num_samples, psi, dtype=np.float32)}
            if shape.c_dim:
                feed["c"] = np.tile(np.eye(shape.c_dim, dtype=np.float32)[class_index], (num_samples, 1))
            maps, finite = session.run(["uncertainty_map", "finite"], feed)
            scores = np.sort(image_score(maps[finite]))
            table = manifest.score_quantiles.add(truncation_psi=psi, num_samples=len(scores))
            if shape.c_dim:
                table.class_index = class_index
            table.scores.extend(np.quantile(scores, np.linspace(0.0, 1.0, 21)).astype(np.float32))


def write_tiny_bundle(
    root: Path,
    *,
    name: str = "tiny",
    num_classes: int = 4,
    keypoints: int = 3,
    c_dim: int = 0,
    image_size: int = 16,
    cutoff: int = 0,
    poison_above: float | None = None,
    seed: int = 0,
    num_calibration_samples: int = 64,
) -> Path:
    """Writes a bundle into the new or empty folder `root` and returns it.

    Args:
        root: Where the bundle goes.
        name: Model name.
        num_classes: Segmentation classes, 2 to 8.
        keypoints: Number of keypoints, 0 to 4; 0 leaves them out altogether.
        c_dim: Classes of a conditional model; 0 for an unconditional one.
        image_size: Height and width of image and label, a power of two from 16.
        cutoff: Number of truncated ws; 0 truncates all.
        poison_above: If set, samples whose z[0] exceeds this come out non-finite.
        seed: Another seed gives another network.
        num_calibration_samples: Samples behind each score quantile table.
    """
    shape = TinyShape(
        num_classes=num_classes,
        keypoints=keypoints,
        c_dim=c_dim,
        image_size=image_size,
        cutoff=cutoff,
        poison_above=poison_above,
    )
    root.mkdir(parents=True, exist_ok=True)
    write_graphs(root, shape, seed)
    manifest = _manifest(name, shape)
    _calibrate(manifest, root, shape, num_calibration_samples)
    write_manifest(root, manifest)
    return root
