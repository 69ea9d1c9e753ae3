"""How well an interpreter labels unseen GAN pictures, with the oracle as judge.

Legend: N images, H rows, W columns, K keypoints.
"""

import numpy as np
import torch

from labelmint_export.errors import AnnotationError, TrainingError
from labelmint_export.generator import Backbone
from labelmint_export.generator.drawing import draw_latents
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.labelling import check_fit, label_ws, pictures_at_once
from labelmint_export.oracle.network import Labels, Segmenter, predict
from labelmint_export.oracle.training import LabelledPictures, score_labels
from labelmint_export.reserved_seeds import REPORT_SEED


@torch.no_grad()
def label_addresses(
    generator: Backbone, interpreter: Interpreter, seed: int, count: int, truncation_psi: float
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], Labels]:
    """Paint and label the first addresses of a seed.

    Returns:
        Pictures uint8 [N, H, W, 3], and the interpreter's labels in label pixels.
    """
    fused, batch_size = FusedInterpreter(interpreter), pictures_at_once(interpreter.config.label_resolution)
    pictures, masks, keypoints = [], [], []
    for start in range(0, count, batch_size):
        indices = np.arange(start, min(start + batch_size, count), dtype=np.uint64)
        z, c = draw_latents(generator.config, seed, indices)
        picture, output = label_ws(generator, fused, generator.mapping(z, c, truncation_psi))
        pictures.append(picture)
        masks.append(output.label.numpy())
        if output.keypoints is not None:
            keypoints.append(output.keypoints[..., [0, 1, 3]].numpy())
    points = np.concatenate(keypoints) if keypoints else np.zeros((count, 0, 3), np.float32)
    return np.concatenate(pictures), Labels(np.concatenate(masks), points)


def _check_parts(
    generator: Backbone, interpreter: Interpreter, oracle: Segmenter, class_names: tuple[str, ...]
) -> None:
    check_fit(generator, interpreter)
    shape, side = interpreter.config, generator.config.resolution
    if shape.num_classes != len(class_names):
        raise AnnotationError(
            f"the interpreter has {shape.num_classes} classes, expected the {len(class_names)} of the annotations; "
            "give those that it was trained from",
            field="annotations",
        )
    oracle.config.check_counts(shape.num_classes, shape.num_keypoints or oracle.config.num_keypoints, "oracle")
    if shape.label_resolution != side:
        raise TrainingError(
            f"label_resolution is {shape.label_resolution}, expected {side}: the oracle labels pixels of the picture",
            field="label_resolution",
        )


def judge(
    generator: Backbone,
    interpreter: Interpreter,
    oracle: Segmenter,
    class_names: tuple[str, ...],
    *,
    count: int = 300,
    truncation_psi: float = 1.0,
) -> dict[str, object]:
    """Compare interpreter and oracle on unseen GAN pictures.

    Returns:
        mIoU, IoU of each class, PCK and visibility accuracy; the oracle counts as truth.

    Raises:
        AnnotationError: The interpreter has other classes than the names.
        GeneratorError: The interpreter is another generator's.
        TrainingError: Oracle and interpreter do not label the same, or not at the same resolution.
    """
    _check_parts(generator, interpreter, oracle, class_names)
    pictures, labels = label_addresses(generator, interpreter, REPORT_SEED, count, truncation_psi)
    truth = predict(oracle, pictures)
    keypoints = truth.keypoints if labels.keypoints.shape[1] else truth.keypoints[:, :0]  # an interpreter may know none
    report = score_labels(labels, LabelledPictures(pictures, truth.mask, keypoints), class_names)
    return report | {"truncation_psi": truncation_psi, "judge": "oracle"}
