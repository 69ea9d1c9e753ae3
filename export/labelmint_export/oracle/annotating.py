"""The oracle in a person's place: GAN pictures with its labels, as a person's work would look."""

import numpy as np
import torch

from labelmint_export.annotations import AnnotatedSet, AnnotationSchema
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES, LEFT_RIGHT_PAIRS, PALETTE, SKELETON
from labelmint_export.generator import Backbone
from labelmint_export.oracle.network import Segmenter, predict
from labelmint_export.pictures import paint


def toonhead_schema() -> AnnotationSchema:
    """Names and colours of the ToonHead set."""
    return AnnotationSchema(
        class_names=tuple(CLASS_NAMES),
        palette=tuple(PALETTE),
        keypoint_names=tuple(KEYPOINT_NAMES),
        skeleton=tuple(SKELETON),
        left_right_pairs=tuple(LEFT_RIGHT_PAIRS),
    )


def annotate(generator: Backbone, oracle: Segmenter, z: torch.Tensor, ws: torch.Tensor) -> AnnotatedSet:
    """Paint pictures and label them.

    Args:
        generator: Paints them, with its stored noise.
        oracle: Labels them.
        z: float32 [N, z_dim].
        ws: float32 [N, num_ws, w_dim], of the same pictures.

    Raises:
        TrainingError: The oracle labels something else.
    """
    schema = toonhead_schema()
    oracle.config.check_counts(len(schema.class_names), len(schema.keypoint_names), "oracle")
    pictures = paint(generator, ws)
    labels = predict(oracle, pictures)
    seen = labels.keypoints[..., 2:] > 0.5
    keypoints = np.where(seen, labels.keypoints, 0).astype(np.float32)
    return AnnotatedSet(schema, pictures, labels.mask, keypoints, z, ws)
