"""What to train."""

from dataclasses import dataclass

CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
"""Channels of StyleGAN1 at each resolution."""
MIN_SIDE = 16
"""Smallest pictures; also the resolution of the tap that labels come from, so that regions are some pixels wide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySettings:
    """What to train.

    Attributes:
        num_pictures: Annotated pictures.
        side: Their resolution, pixels.
        num_classes: Classes.
        num_keypoints: Keypoints; 0 for none.
        steps: Optimiser steps. All are alike, so a few show the memory of any number.
        seed: Of all numbers.
    """

    num_pictures: int = 16
    side: int = 512
    num_classes: int = 20
    num_keypoints: int = 9
    steps: int = 40
    seed: int = 0
