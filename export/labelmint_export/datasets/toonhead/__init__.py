"""ToonHead avatars as a picture set with exact labels.

Every avatar is drawn from vector components, so its part mask and its keypoints are known and not estimated.
"""

from labelmint_export.datasets.toonhead.avatar import AvatarDescription, Pose
from labelmint_export.datasets.toonhead.classes import (
    ATTRIBUTION,
    CLASS_NAMES,
    KEYPOINT_NAMES,
    LEFT_RIGHT_PAIRS,
    LICENCE,
    PALETTE,
    SKELETON,
)
from labelmint_export.datasets.toonhead.rendering import ToonHeadSample, ToonHeadSet
from labelmint_export.datasets.toonhead.splits import Combination, Split

__all__ = [
    "ATTRIBUTION",
    "CLASS_NAMES",
    "KEYPOINT_NAMES",
    "LEFT_RIGHT_PAIRS",
    "LICENCE",
    "PALETTE",
    "SKELETON",
    "AvatarDescription",
    "Combination",
    "Pose",
    "Split",
    "ToonHeadSample",
    "ToonHeadSet",
]
