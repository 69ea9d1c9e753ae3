"""The graphs of a bundle: their names, what goes in and comes out of them, and the rules that they compute by.

N images, K keypoints, H x W the delivered picture, h x w its labels, C_r channels of all taps of resolution r.
"""

from __future__ import annotations

from dataclasses import dataclass

from labelmint.v1 import bundle_pb2

__all__ = [
    "BATCH_DIMENSION",
    "GRAPHS",
    "PEAK_RULE",
    "VOTE_RULES",
    "TensorSpec",
    "input_specs",
    "output_specs",
    "stack_name",
]

GRAPHS = ("mapping", "synthesis", "interpreter", "model")
"""mapping: latents to `ws`; synthesis: `ws` to image, finite and stacks of taps; interpreter: the stacks to the rest;
model: all of it at once."""

BATCH_DIMENSION = "N"
"""Name of the first axis of every input and output."""

VOTE_RULES = ("majority", "mean_probability", "mean_logits")
"""How members decide: most votes (DatasetGAN), largest mean probability, largest mean logit (EditGAN). The lowest class
wins a tie. The compiled kernels know a rule by its place here."""

PEAK_RULE = "quadratic_3x3"
"""How the place of a keypoint is found in its heatmap."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: In the graph.
        dtype: numpy's name.
        shape: Of one image, without the batch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


def stack_name(resolution: int) -> str:
    """Name of the stack of all taps of one resolution, [N, C_r, r, r], in their order in the manifest."""
    return f"tap_r{resolution}"


def input_specs(manifest: bundle_pb2.Manifest) -> tuple[TensorSpec, ...]:
    """What `mapping` and `model` take, in their order."""
    backbone = manifest.backbone
    specs = [TensorSpec("z", "float32", (backbone.z_dim,)), TensorSpec("truncation_psi", "float32", ())]
    if backbone.c_dim:
        specs.append(TensorSpec("c", "float32", (backbone.c_dim,)))
    return tuple(specs)


def output_specs(manifest: bundle_pb2.Manifest) -> tuple[TensorSpec, ...]:
    """What `model` gives, in its order."""
    frame = manifest.frame
    specs = [
        TensorSpec("image", "uint8", (frame.image_height, frame.image_width, 3)),
        TensorSpec("label", "uint8", (frame.label_height, frame.label_width)),
        TensorSpec("uncertainty_map", "float16", (frame.label_height, frame.label_width)),
    ]
    if manifest.keypoints.names:
        specs.append(TensorSpec("keypoints", "float32", (len(manifest.keypoints.names), 4)))
    return (*specs, TensorSpec("finite", "bool", ()))
