"""One avatar: what is drawn at random about it, and its SVG.

Everything random about an avatar is drawn here, from Philox blocks whose key is (seed, split) and whose counter holds
the sample's index. Raw bits are turned into numbers here too, because numpy keeps the bits of a bit generator fixed
between versions, but not the numbers that its Generator makes of them.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labelmint_export.datasets.toonhead.splits import NO_VARIANT, Combination, Split
from labelmint_export.datasets.toonhead.style import (
    CANVAS_SIZE,
    color_values,
    component_offset,
    load_style,
    variant_names,
)
from labelmint_export.errors import DatasetError

BACKGROUND_COLORS = (
    "#a8d8f0",
    "#b5e6c0",
    "#ffc2cf",
    "#ffe38a",
    "#cdbdf5",
    "#9fe3dc",
    "#c5d0dc",
    "#dfe79b",
)
"""Pastel colours, each at some distance from every colour of skin, hair and clothes."""

REAR_HAIR_PROBABILITY = 0.5
BEARD_PROBABILITY = 0.35
MAX_ROTATION_DEGREES = 12.0
SCALE_RANGE = (0.85, 1.1)
MAX_SHIFT_PERCENT = 6.0
MAX_FACE_SHIFT = (12.0, 8.0)
"""Largest shift of the facial parts along x and y, in canvas units (12 of 768 are two pixels of 128)."""

FACIAL_COMPONENTS = ("mouth", "beard", "eyes", "eyebrows")
JAW_BEARDS = frozenset({"fullBeard", "longBeard"})
JAW_BEARD_PARALLAX = 0.4
"""Beards that hang on the jaw follow only this part of the face's shift, or they would leave the head."""

_BUST_BOTTOM = 883.0
_BUST_HALF_WIDTH = 261.0
_MAX_DRAWS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Where the avatar stands in the frame and where its face looks."""

    rotation_degrees: float = 0.0
    """Rotation about the middle of the canvas, clockwise for the viewer."""
    scale: float = 1.0
    """Size about the middle of the canvas; 1 is the style's own."""
    shift_x_percent: float = 0.0
    """Shift to the right, in percent of the canvas."""
    shift_y_percent: float = 0.0
    """Shift down, in percent of the canvas."""
    face_x: float = 0.0
    """Shift of the facial parts to the right, in canvas units before rotation and scale."""
    face_y: float = 0.0
    """Shift of the facial parts down, in canvas units before rotation and scale."""

    def matrix(self) -> npt.NDArray[np.float64]:
        """Build the map from the upright canvas to the posed one.

        Returns:
            float64 [2, 3], to be applied to (x, y, 1) in canvas units.
        """
        angle = math.radians(self.rotation_degrees)
        cosine, sine = self.scale * math.cos(angle), self.scale * math.sin(angle)
        center = CANVAS_SIZE / 2
        shift_x = self.shift_x_percent / 100 * CANVAS_SIZE + center - cosine * center + sine * center
        shift_y = self.shift_y_percent / 100 * CANVAS_SIZE + center - sine * center - cosine * center
        return np.array([[cosine, -sine, shift_x], [sine, cosine, shift_y]], dtype=np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AvatarDescription:
    """Everything that decides the picture of one avatar, apart from its resolution."""

    combination: Combination
    """Variants of the components."""
    skin_color: str
    """Colour of head and body, "#rrggbb"."""
    hair_color: str
    """Colour of hair, eyebrows and beard, "#rrggbb"."""
    clothes_color: str
    """Colour of the clothes, "#rrggbb"."""
    background_color: str
    """Colour of the background, "#rrggbb"."""
    pose: Pose
    """Position in the frame."""

    def component_variants(self) -> dict[str, str]:
        """Map each component that is present to its variant, in drawing order (the last one is on top)."""
        chosen = self.combination
        variants = {
            "rearHair": chosen.rear_hair,
            "body": "body",
            "head": "head",
            "clothes": chosen.clothes,
            "mouth": chosen.mouth,
            "beard": chosen.beard,
            "eyes": chosen.eyes,
            "eyebrows": chosen.eyebrows,
            "hair": chosen.hair,
        }
        return {component: variant for component, variant in variants.items() if variant != NO_VARIANT}

    def component_position(self, component: str) -> tuple[float, float]:
        """Say where the origin of a component lies on the upright canvas, the face's shift included (x, y)."""
        x, y = component_offset(component)
        if component not in FACIAL_COMPONENTS:
            return x, y
        follows_jaw = component == "beard" and self.combination.beard in JAW_BEARDS
        factor = JAW_BEARD_PARALLAX if follows_jaw else 1.0
        return round(x + factor * self.pose.face_x, 3), round(y + factor * self.pose.face_y, 3)


class _Draws:
    """Random numbers of one sample, from Philox4x64-10 with key [seed, split] and counter [block, 0, index, 0]."""

    def __init__(self, seed: int, split: Split, index: int) -> None:
        key = np.array([seed, split.value], dtype=np.uint64)
        counter = np.array([0, 0, index, 0], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=counter)

    def fraction(self) -> float:
        """Draw from [0, 1) in steps of 2**-53."""
        return float(int(self._bits.random_raw()) >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.fraction()

    def around_zero(self, limit: float) -> float:
        """Draw from the triangular distribution on (-limit, limit), which prefers small values."""
        return limit * (self.fraction() + self.fraction() - 1.0)

    def choice(self, options: Sequence[str]) -> str:
        return options[int(self.fraction() * len(options))]


def draw_description(seed: int, split: Split, index: int, pose_range: float = 1.0) -> AvatarDescription:
    """Draw avatar `index` of a seed and split.

    Args:
        seed: in [0, 2**64).
        split: the combination of variants is redrawn until it belongs to this split.
        index: in [0, 2**64).
        pose_range: in [0, 1], share of the full ranges of the pose; 0 leaves every avatar upright in the middle.

    Returns:
        The same description on every machine and for ever, as long as the style keeps its variants and colours.
    """
    draws = _Draws(seed, split, index)
    pose = _draw_pose(draws, pose_range)
    colors = {name: draws.choice(color_values(name)) for name in ("skin", "hair", "clothes")}
    background_color = draws.choice(BACKGROUND_COLORS)
    return AvatarDescription(
        combination=_draw_combination(draws, split),
        skin_color=colors["skin"],
        hair_color=colors["hair"],
        clothes_color=colors["clothes"],
        background_color=background_color,
        pose=pose,
    )


def render_svg(description: AvatarDescription) -> str:
    """Draw an avatar as SVG.

    Returns:
        A document with a 768 x 768 view box. Each component is a `<g id="component-variant-hash">` that one `<use>`
        places.

    Raises:
        DatasetError: dicebear is missing, or refuses the description, as it does with unknown colours and variants.
    """
    style = load_style()  # gives advice where dicebear is missing
    from dicebear import Avatar  # noqa: PLC0415 - an optional library

    try:
        svg = Avatar(style, _dicebear_options(description)).to_string()
    except RuntimeError as error:  # all of dicebear's errors
        raise DatasetError(
            f"dicebear cannot draw {description}: {error}; use variants and colours of the toon-head style"
        ) from error
    svg = _WHOLE_FRAME_CLIP.sub("<g>", _METADATA.sub("", svg))

    def move(match: re.Match[str]) -> str:
        x, y = description.component_position(match["component"])
        return f'<use transform="translate({x:.3f} {y:.3f})" href="#{match["component"]}-'

    return _FACIAL_USE.sub(move, svg)


# The metadata only costs parsing time here: the attribution travels with the data set. The clip is that of the frame
# itself, and as a layer of its own it would take a fifth of the time of a picture.
_METADATA = re.compile(r"<metadata.*?</metadata>", re.DOTALL)
_WHOLE_FRAME_CLIP = re.compile(r'<g clip-path="url\(#clip-[0-9a-f]+\)">')
_FACIAL_USE = re.compile(rf'<use transform="translate\([^)]*\)" href="#(?P<component>{"|".join(FACIAL_COMPONENTS)})-')


def _dicebear_options(description: AvatarDescription) -> dict[str, object]:
    variants = description.component_variants()
    pose = description.pose
    options: dict[str, object] = {
        "seed": "labelmint",  # nothing is left to dicebear's own random choice
        "rotate": pose.rotation_degrees,
        "scale": pose.scale,
        "translateX": pose.shift_x_percent,
        "translateY": pose.shift_y_percent,
        "skinColor": description.skin_color,
        "hairColor": description.hair_color,
        "clothesColor": description.clothes_color,
        "backgroundColor": description.background_color,
        "rearHairProbability": 100 if "rearHair" in variants else 0,
        "beardProbability": 100 if "beard" in variants else 0,
    }
    return options | {f"{component}Variant": variant for component, variant in variants.items()}


def _draw_pose(draws: _Draws, pose_range: float) -> Pose:
    rotation_degrees = round(draws.around_zero(pose_range * MAX_ROTATION_DEGREES), 3)
    scale = round(draws.between(*(1.0 + pose_range * (bound - 1.0) for bound in SCALE_RANGE)), 4)
    max_shift = pose_range * MAX_SHIFT_PERCENT
    lowest_shift = max(-max_shift, _shift_that_hides_bottom(rotation_degrees, scale))
    return Pose(
        rotation_degrees=rotation_degrees,
        scale=scale,
        shift_x_percent=round(draws.between(-max_shift, max_shift), 3),
        shift_y_percent=round(draws.between(lowest_shift, max_shift), 3),
        face_x=round(draws.around_zero(pose_range * MAX_FACE_SHIFT[0]), 2),
        face_y=round(draws.around_zero(pose_range * MAX_FACE_SHIFT[1]), 2),
    )


def _shift_that_hides_bottom(rotation_degrees: float, scale: float) -> float:
    """Say how far down, in percent, the bust has to go so that its lower corners lie below the frame."""
    angle = math.radians(abs(rotation_degrees))
    center = CANVAS_SIZE / 2
    corner = (_BUST_BOTTOM - center) * math.cos(angle) - _BUST_HALF_WIDTH * math.sin(angle)
    return 100.0 * (center - scale * corner) / CANVAS_SIZE


def _draw_combination(draws: _Draws, split: Split) -> Combination:
    for _ in range(_MAX_DRAWS):
        has_rear_hair = draws.fraction() < REAR_HAIR_PROBABILITY
        has_beard = draws.fraction() < BEARD_PROBABILITY
        combination = Combination(
            hair=draws.choice(variant_names("hair")),
            rear_hair=draws.choice(variant_names("rearHair")) if has_rear_hair else NO_VARIANT,
            eyes=draws.choice(variant_names("eyes")),
            eyebrows=draws.choice(variant_names("eyebrows")),
            mouth=draws.choice(variant_names("mouth")),
            beard=draws.choice(variant_names("beard")) if has_beard else NO_VARIANT,
            clothes=draws.choice(variant_names("clothes")),
        )
        if _split_of(combination) is split:
            return combination
    raise AssertionError(f"no combination of {split} in {_MAX_DRAWS} draws")


@functools.lru_cache(maxsize=100_000)
def _split_of(combination: Combination) -> Split:
    return combination.split
