"""What a ToonHead picture is labelled with, and whose work the pictures are."""

from typing import Final

CLASS_NAMES: Final = (
    "background",
    "skin",
    "face",
    "hair",
    "eyes",
    "eyebrows",
    "mouth",
    "beard",
    "clothes",
)
"""Class names; the position of a name is its label. "skin" is the body, "hair" is rear and front hair."""

PALETTE: Final = (
    (0, 0, 0),
    (255, 176, 124),
    (255, 225, 53),
    (133, 77, 39),
    (0, 163, 255),
    (130, 52, 196),
    (230, 25, 75),
    (255, 121, 0),
    (40, 170, 90),
)
"""One sRGB colour per class, far enough apart to be told apart on a contact sheet."""

KEYPOINT_NAMES: Final = (
    "left_eye",
    "right_eye",
    "left_eyebrow",
    "right_eyebrow",
    "mouth",
    "chin",
    "left_ear",
    "right_ear",
    "neck",
)
"""Keypoint names; left and right are those of the viewer, not of the avatar."""

SKELETON: Final = (
    (0, 1),
    (0, 2),
    (1, 3),
    (0, 6),
    (1, 7),
    (0, 4),
    (1, 4),
    (4, 5),
    (5, 8),
)
"""Pairs of keypoints to join with a line when they are drawn."""

LEFT_RIGHT_PAIRS: Final = ((0, 1), (2, 3), (6, 7))
"""Pairs of keypoints that change places when a picture is mirrored."""

COMPONENT_CLASSES: Final = {
    "rearHair": "hair",
    "body": "skin",
    "head": "face",
    "clothes": "clothes",
    "mouth": "mouth",
    "beard": "beard",
    "eyes": "eyes",
    "eyebrows": "eyebrows",
    "hair": "hair",
}
"""Class of each component of the style, in drawing order (the last one is on top)."""

LICENCE: Final = "CC-BY-4.0"
"""SPDX identifier of the licence of the drawings."""

ATTRIBUTION: Final = (
    'Remix of "ToonHead" (https://www.figma.com/community/file/1589627891082866389) by Johan Melin '
    "(https://www.johanmelin.com), licensed under CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/), through DiceBear (https://www.dicebear.com). "
    "Changes: pose, colours and position of the facial parts are varied; the pictures are rasterised."
)
"""Attribution that everything made from the pictures has to carry."""
