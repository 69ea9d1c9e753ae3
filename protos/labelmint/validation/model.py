"""Checks of what a model is: backbone, frame, taps, classes, keypoints."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from labelmint.graphs import PEAK_RULE
from labelmint.manifest import SCHEMA_VERSION
from labelmint.v1 import bundle_pb2
from labelmint.validation.rules import (
    MAX_SIDE,
    MAX_WIDTH,
    SHA256,
    field_error,
    finite_within,
    matches,
    matches_or_empty,
    one_of,
    plain_text,
    unique,
    unique_names,
    within,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_ARCHITECTURES = {
    "stylegan1": frozenset({"orig"}),
    "stylegan2": frozenset({"orig", "resnet", "skip"}),
    "stylegan3": frozenset({"r", "t"}),
}


def check_identity(manifest: bundle_pb2.Manifest) -> None:
    """Name, version, schema and the form of the digest."""
    if manifest.schema_version > SCHEMA_VERSION:
        raise field_error(
            "schema_version", manifest.schema_version, f"at most {SCHEMA_VERSION}", "upgrade labelmint to read it"
        )
    within("schema_version", manifest.schema_version, 1, SCHEMA_VERSION)
    matches("name", manifest.name, _NAME)
    matches("version", manifest.version, _VERSION)
    plain_text("description", manifest.description)
    matches_or_empty("digest", manifest.digest, SHA256)


def check_backbone(backbone: bundle_pb2.Backbone) -> None:
    """The generator."""
    one_of("backbone.family", backbone.family, _ARCHITECTURES.keys())
    one_of("backbone.architecture", backbone.architecture, _ARCHITECTURES[backbone.family])
    within("backbone.resolution", backbone.resolution, 4, MAX_SIDE)
    if backbone.resolution & (backbone.resolution - 1):
        raise field_error("backbone.resolution", backbone.resolution, "a power of two")
    one_of("backbone.image_channels", backbone.image_channels, {1, 3})
    within("backbone.z_dim", backbone.z_dim, 1, MAX_WIDTH)
    within("backbone.c_dim", backbone.c_dim, 0, MAX_WIDTH)
    within("backbone.w_dim", backbone.w_dim, 1, MAX_WIDTH)
    within("backbone.num_ws", backbone.num_ws, 1, 1024)
    within("backbone.num_parameters", backbone.num_parameters, 1, 2**48)


def check_frame(manifest: bundle_pb2.Manifest) -> None:
    """Picture, crop and labels."""
    frame, resolution = manifest.frame, manifest.backbone.resolution
    within("frame.image_height", frame.image_height, 1, resolution)
    within("frame.image_width", frame.image_width, 1, resolution)
    within("frame.crop_top", frame.crop_top, 0, resolution - frame.image_height)
    within("frame.crop_left", frame.crop_left, 0, resolution - frame.image_width)
    within("frame.label_height", frame.label_height, 1, MAX_SIDE)
    within("frame.label_width", frame.label_width, 1, MAX_SIDE)


def check_taps(taps: Sequence[bundle_pb2.FeatureTap]) -> None:
    """What the interpreter looks at."""
    within("taps (their number)", len(taps), 1, 1024)
    unique_names("taps", [tap.name for tap in taps])
    for position, tap in enumerate(taps):
        within(f"taps[{position}].channels", tap.channels, 1, MAX_WIDTH)
        within(f"taps[{position}].resolution", tap.resolution, 1, MAX_SIDE)


def check_classes(manifest: bundle_pb2.Manifest) -> None:
    """Classes and their colours."""
    within("classes (their number)", len(manifest.classes), 2, 255)
    unique_names("classes", [entry.name for entry in manifest.classes])
    for position, entry in enumerate(manifest.classes):
        for channel, value in (("red", entry.red), ("green", entry.green), ("blue", entry.blue)):
            within(f"classes[{position}].{channel}", value, 0, 255)
    one_of("ignore_label", manifest.ignore_label, {255})


def check_ensembles(manifest: bundle_pb2.Manifest) -> None:
    """Classifiers and regressors."""
    _check_ensemble("segmentation", manifest.segmentation)
    has_keypoints = bool(manifest.keypoints.names)
    if manifest.HasField("keypoint_regression") != has_keypoints:
        raise field_error(
            "keypoint_regression",
            "present" if not has_keypoints else "absent",
            f"it to go with the {len(manifest.keypoints.names)} names of keypoints",
        )
    if has_keypoints:
        _check_ensemble("keypoint_regression", manifest.keypoint_regression)


def _check_ensemble(field: str, ensemble: bundle_pb2.Ensemble) -> None:
    within(f"{field}.num_members", ensemble.num_members, 1, 1024)
    within(f"{field}.hidden_widths (their number)", len(ensemble.hidden_widths), 1, 16)
    for position, width in enumerate(ensemble.hidden_widths):
        within(f"{field}.hidden_widths[{position}]", width, 1, MAX_WIDTH)


def check_keypoints(keypoints: bundle_pb2.KeypointSchema) -> None:
    """Names, pairs and thresholds."""
    num_keypoints = len(keypoints.names)
    within("keypoints.names (their number)", num_keypoints, 0, 1024)
    unique_names("keypoints.names", keypoints.names)
    for field, pairs in (("skeleton", keypoints.skeleton), ("left_right_pairs", keypoints.left_right_pairs)):
        within(f"keypoints.{field} (their number)", len(pairs), 0, num_keypoints**2)
        for position, pair in enumerate(pairs):
            name = f"keypoints.{field}[{position}]"
            within(f"{name}.first", pair.first, 0, num_keypoints - 1)
            within(f"{name}.second", pair.second, 0, num_keypoints - 1)
            if pair.first == pair.second:
                raise field_error(name, f"({pair.first}, {pair.second})", "two different keypoints")
    mirrored = [index for pair in keypoints.left_right_pairs for index in (pair.first, pair.second)]
    unique("keypoints.left_right_pairs", mirrored)
    thresholds = keypoints.visibility_thresholds
    if len(thresholds) != num_keypoints:
        raise field_error(
            "keypoints.visibility_thresholds", f"{len(thresholds)} values", f"{num_keypoints}, one a keypoint"
        )
    for position, threshold in enumerate(thresholds):
        finite_within(f"keypoints.visibility_thresholds[{position}]", threshold, -1e6, 1e6)
    if num_keypoints:
        one_of("keypoints.peak_rule", keypoints.peak_rule, {PEAK_RULE})
        finite_within("keypoints.sigma_pixels", keypoints.sigma_pixels, 1e-3, MAX_SIDE)
    else:
        one_of("keypoints.peak_rule", keypoints.peak_rule, {""})
        finite_within("keypoints.sigma_pixels", keypoints.sigma_pixels, 0.0, 0.0)


def check_truncation(manifest: bundle_pb2.Manifest) -> None:
    """Psi and cutoff."""
    truncation = manifest.truncation
    finite_within("truncation.max_psi", truncation.max_psi, 1e-3, 2.0)
    finite_within("truncation.default_psi", truncation.default_psi, 0.0, min(1.0, truncation.max_psi))
    within("truncation.cutoff", truncation.cutoff, 0, manifest.backbone.num_ws)


def check_class_distribution(manifest: bundle_pb2.Manifest) -> None:
    """Probabilities of the classes of a conditional generator."""
    field, distribution, c_dim = "class_distribution", manifest.class_distribution, manifest.backbone.c_dim
    if len(distribution) != c_dim:
        raise field_error(field, f"{len(distribution)} values", f"{c_dim}, one for each class of backbone.c_dim")
    for position, probability in enumerate(distribution):
        finite_within(f"{field}[{position}]", probability, 0.0, 1.0)
    if c_dim and abs(math.fsum(distribution) - 1.0) > 1e-6:
        raise field_error(field, f"values that sum to {math.fsum(distribution)!r}", "a sum of 1 within 1e-6")
