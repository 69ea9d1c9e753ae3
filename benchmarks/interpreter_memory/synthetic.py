"""Taps and labels without a generator: random, picture by picture from a seed, and learnable.

N pictures, C classes, K keypoints, r a tap's resolution, side that of the labels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from benchmarks.interpreter_memory.settings import CHANNELS, MIN_SIDE
from labelmint_export.annotations import AnnotatedSet, AnnotationSchema
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.features import FeaturePool, fill_pool

_Z_DIM = 512


def stylegan1_taps(side: int) -> tuple[TapSpec, ...]:
    """Two taps a resolution, as DatasetGAN takes them: raw second convolution and output of the second AdaIN.

    Args:
        side: Resolution of the generator, a power of two from 16 to 1024.
    """
    return tuple(
        TapSpec(f"b{resolution}.{name}", channels, resolution)
        for resolution, channels in CHANNELS.items()
        if resolution <= side
        for name in ("conv1", "adain1")
    )


def synthetic_taps(taps: tuple[TapSpec, ...], seed: int, index: int) -> dict[str, torch.Tensor]:
    """Normal numbers as the taps of picture `index`: layer name -> float32 [1, channels, r, r]."""
    random = torch.Generator().manual_seed(seed * 1_000_003 + index)
    return {tap.name: torch.randn(1, tap.channels, tap.resolution, tap.resolution, generator=random) for tap in taps}


def derive_labels(
    taps: dict[str, torch.Tensor], side: int, num_classes: int, num_keypoints: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels that pixel classifiers can learn: they depend on a few channels of one tap.

    Returns:
        Mask uint8 [side, side], the largest of C channels; keypoints float32 [K, 3], where other channels peak.
    """
    source = taps[f"b{MIN_SIDE}.adain1"][:, : num_classes + num_keypoints]
    planes = functional.interpolate(source, size=(side, side), mode="bilinear", align_corners=False)[0]
    mask = planes[:num_classes].argmax(dim=0).to(torch.uint8)
    peaks = planes[num_classes:].flatten(1).argmax(dim=1)
    keypoints = torch.stack([peaks % side + 0.5, peaks // side + 0.5, torch.ones(len(peaks))], dim=1)
    return mask, keypoints


def fill_synthetic(
    pool: FeaturePool, taps: tuple[TapSpec, ...], *, seed: int, num_classes: int, num_keypoints: int
) -> AnnotatedSet:
    """Fill a pool picture by picture and label its pictures.

    Args:
        pool: To fill.
        taps: Its taps.
        seed: Of all numbers.
        num_classes: C.
        num_keypoints: K.
    """
    side, count = pool.label_resolution, pool.num_images
    masks = np.empty((count, side, side), dtype=np.uint8)
    keypoints = np.empty((count, num_keypoints, 3), dtype=np.float32)

    def make_taps() -> Iterator[dict[str, torch.Tensor]]:
        for index in range(count):
            made = synthetic_taps(taps, seed, index)
            mask, points = derive_labels(made, side, num_classes, num_keypoints)
            masks[index], keypoints[index] = mask.numpy(), points.numpy()
            yield made

    fill_pool(pool, make_taps())
    schema = AnnotationSchema(
        class_names=tuple(f"class{number}" for number in range(num_classes)),
        palette=tuple((number, number, number) for number in range(num_classes)),
        keypoint_names=tuple(f"point{number}" for number in range(num_keypoints)),
    )
    return AnnotatedSet(
        schema=schema,
        pictures=np.full((count, side, side, 3), 128, dtype=np.uint8),
        masks=masks,
        keypoints=keypoints,
        z=torch.zeros(count, _Z_DIM),
        ws=torch.zeros(count, 1, _Z_DIM),
    )
