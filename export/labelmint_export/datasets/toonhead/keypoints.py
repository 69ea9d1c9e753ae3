"""Keypoints from the geometry of the components, not from pixels.

Where each keypoint is, in the coordinates of its component (left and right are the viewer's):

- left_eye, right_eye: the middle of the iris where the eye is open, the middle of the closed lid otherwise.
- left_eyebrow, right_eyebrow, mouth: the middle of the bounding box of the part's outline.
- chin: the lowest point of the head's outline.
- left_ear, right_ear: the middle of the bounding box of the auricle, which the style draws as a shade in the head.
- neck: the middle of the line on which the straight sides of the neck end in the shoulders.

The component's position, which includes the shift of the facial parts, and the avatar's pose carry a point into the
picture. A keypoint is visible if it lies in the frame and most of a small disc around it is not covered by a component
that is drawn above its own. So the visibility does not depend on the resolution.
"""

import functools

import numpy as np
import numpy.typing as npt

from labelmint_export.datasets.toonhead.avatar import AvatarDescription
from labelmint_export.datasets.toonhead.classes import KEYPOINT_NAMES
from labelmint_export.datasets.toonhead.paths import Polygon
from labelmint_export.datasets.toonhead.shapes import component_shapes
from labelmint_export.datasets.toonhead.style import CANVAS_SIZE, load_definition

KEYPOINT_COMPONENTS = {
    "left_eye": "eyes",
    "right_eye": "eyes",
    "left_eyebrow": "eyebrows",
    "right_eyebrow": "eyebrows",
    "mouth": "mouth",
    "chin": "head",
    "left_ear": "head",
    "right_ear": "head",
    "neck": "body",
}
"""The component that carries each keypoint."""

PROBE_RADIUS = 6.0
"""Radius of the disc that decides on visibility, in canvas units: one pixel of 128."""

_NUM_PROBES_AROUND = 8
_NECK_TOLERANCE = 1.0


def locate_keypoints(description: AvatarDescription, resolution: int) -> npt.NDArray[np.float32]:
    """Locate the keypoints of an avatar in its picture.

    Args:
        description: the avatar.
        resolution: side of the picture in pixels.

    Returns:
        float32 [K, 3], (x, y, visible): pixels with pixel centres at +0.5, visible 0 or 1. Hidden keypoints have their
        true position too, which may lie outside the picture.
    """
    upright = upright_keypoints(description)  # [K, 2]
    matrix = description.pose.matrix()
    posed = upright @ matrix[:, :2].T + matrix[:, 2]  # [K, 2]
    is_in_frame = ((posed >= 0) & (posed < CANVAS_SIZE)).all(axis=1)
    visible = is_in_frame & ~_is_covered(description, upright)
    pixels = posed * (resolution / CANVAS_SIZE)
    return np.concatenate([pixels, visible[:, None]], axis=1).astype(np.float32)


def upright_keypoints(description: AvatarDescription) -> npt.NDArray[np.float64]:
    """Locate the keypoints before the avatar is rotated, scaled and shifted.

    Returns:
        float64 [K, 2], (x, y) in canvas units.
    """
    variants = description.component_variants()
    points = []
    for name in KEYPOINT_NAMES:
        component = KEYPOINT_COMPONENTS[name]
        local = component_keypoints(component, variants[component])[name]
        points.append(local + np.array(description.component_position(component)))
    return np.stack(points)


@functools.cache
def component_keypoints(component: str, variant: str) -> dict[str, npt.NDArray[np.float64]]:
    """Find the keypoints that a component variant carries.

    Returns:
        float64 [2] per keypoint name, (x, y) in the component's coordinates.
    """
    shapes = component_shapes(component, variant)
    outlines = [polygon for shape in shapes if not shape.is_shading for polygon in shape.outline]
    if component == "eyes":
        circles = [polygon for shape in shapes if shape.is_circle for polygon in shape.polygons]
        return _left_and_right("eye", component, outlines, preferred=circles)
    if component == "eyebrows":
        return _left_and_right("eyebrow", component, outlines)
    if component == "mouth":
        return {"mouth": _box_center(np.concatenate(outlines))}
    if component == "head":
        (outline,) = outlines
        shades = [polygon for shape in shapes if shape.is_shading for polygon in shape.polygons]
        centers = sorted((_box_center(polygon) for polygon in shades), key=lambda center: float(center[0]))
        return {"left_ear": centers[0], "right_ear": centers[-1], "chin": outline[outline[:, 1].argmax()]}
    assert component == "body"
    (outline,) = outlines
    return {"neck": _neck_base(outline)}


def _left_and_right(
    name: str, component: str, outlines: list[Polygon], *, preferred: list[Polygon] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Split polygons at the middle of the component and take the box centre of each side.

    Args:
        name: keypoint name without its side.
        component: gives the middle.
        outlines: polygons of both sides.
        preferred: polygons that stand for a side alone, where it has one.
    """
    middle = float(load_definition()["components"][component]["width"]) / 2
    found = {}
    for side, sign in (("left", -1), ("right", 1)):

        def on_side(polygons: list[Polygon], sign: int = sign) -> list[Polygon]:
            return [polygon for polygon in polygons if sign * (_box_center(polygon)[0] - middle) > 0]

        found[f"{side}_{name}"] = _box_center(np.concatenate(on_side(preferred or []) or on_side(outlines)))
    return found


def _box_center(polygon: Polygon) -> npt.NDArray[np.float64]:
    center: npt.NDArray[np.float64] = (polygon.min(axis=0) + polygon.max(axis=0)) / 2
    return center


def _neck_base(outline: Polygon) -> npt.NDArray[np.float64]:
    """Find the middle between the lower ends of the neck's straight sides, which start at the outline's top edge."""
    top_edge = outline[outline[:, 1] < outline[:, 1].min() + _NECK_TOLERANCE]
    ends = []
    for side_x in (top_edge[:, 0].min(), top_edge[:, 0].max()):
        side = outline[np.abs(outline[:, 0] - side_x) < _NECK_TOLERANCE]
        ends.append(side[side[:, 1].argmax()])
    base: npt.NDArray[np.float64] = np.mean(ends, axis=0)  # [2]
    return base


def _is_covered(description: AvatarDescription, upright: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Say which keypoints lie below another component.

    Args:
        description: the avatar.
        upright: float64 [K, 2], from `upright_keypoints`.

    Returns:
        bool [K].
    """
    angles = np.arange(_NUM_PROBES_AROUND) * (2 * np.pi / _NUM_PROBES_AROUND)
    disc = np.concatenate([np.zeros((1, 2)), PROBE_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)])
    probes = upright[:, None] + disc  # [K, P, 2]
    drawing_order = list(description.component_variants())
    owners = np.array([drawing_order.index(KEYPOINT_COMPONENTS[name]) for name in KEYPOINT_NAMES])  # [K]
    covered = np.zeros(probes.shape[:2], dtype=np.bool_)
    for level, (component, variant) in enumerate(description.component_variants().items()):
        below = owners < level
        local = probes[below] - np.array(description.component_position(component))  # [B, P, 2]
        for shape in component_shapes(component, variant):
            if below.any() and not shape.is_shading:
                covered[below] |= shape.contains(local.reshape(-1, 2)).reshape(local.shape[:2])
    is_hidden: npt.NDArray[np.bool_] = covered.mean(axis=1) > 0.5
    return is_hidden
