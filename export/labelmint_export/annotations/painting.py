"""Drawing the labels of one picture after another: from the names and shapes of the files to masks and keypoints.

Legend: K keypoints, H rows, W columns of a picture; h, w of what was drawn on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from labelmint_export.annotations.drawing import Encoded, Frame, Patch, Raster
from labelmint_export.annotations.folder import AnnotatedSet
from labelmint_export.annotations.labels import LabelSource, PictureLabels, Point, Region
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import AnnotationError

Overlap = Literal["file", "smallest", "classes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSettings:
    """How labels become masks."""

    rename: dict[str, str] = field(default_factory=dict)
    """Label of a file -> class or keypoint."""
    skip: frozenset[str] = frozenset()
    """Labels whose shapes are left out."""
    ignore: frozenset[str] = frozenset()
    """Labels whose area becomes 255, not labelled."""
    background: str | None = None
    """Class of what no shape covers; None: not labelled."""
    overlap: Overlap = "file"
    """What lies on top: the later shape of the file (CVAT: of the higher z_order), the smaller one, the later class."""
    min_area: int = 0
    """Connected parts (by edges) of a class with fewer pixels become 255."""
    rescale: bool = False
    """Bring labels that were drawn on an enlarged or reduced picture to its size."""


class Names:
    """From labels of the files to classes and keypoints."""

    def __init__(self, pictures: AnnotatedSet, settings: ImportSettings) -> None:
        if settings.min_area < 0:
            raise AnnotationError(f"min_area is {settings.min_area}, expected at least 0", field="min_area")
        self._settings = settings
        self._classes = {name: index for index, name in enumerate(pictures.schema.class_names)}
        self._keypoints = {name: index for index, name in enumerate(pictures.schema.keypoint_names)}
        for old, new in settings.rename.items():
            if new not in self._classes and new not in self._keypoints:
                raise AnnotationError(f"{old!r} is to become {new!r}, expected one of {self._known()}", field="rename")
        if settings.background is not None and settings.background not in self._classes:
            raise AnnotationError(
                f"background is {settings.background!r}, expected one of the classes {list(self._classes)}",
                field="background",
            )

    def _known(self) -> str:
        points = f" and keypoints {list(self._keypoints)}" if self._keypoints else ""
        return f"the classes {list(self._classes)}{points}"

    def check(self, sources: Sequence[LabelSource]) -> None:
        """Refuse labels that are neither known, renamed, skipped nor ignored, all at once."""
        unknown: dict[str, str] = {}
        for shape in (s for source in sources for one in source.pictures for s in one.shapes):
            if shape.label is None or self.is_skipped(shape):
                continue
            if isinstance(shape, Region):
                found = shape.label in self._settings.ignore or self._named(shape.label) in self._classes
            else:
                found = self._named(shape.label) in self._keypoints
            if not found:
                unknown.setdefault(shape.label, shape.where)
        if unknown:
            listed = "; ".join(f"{label!r} ({where})" for label, where in list(unknown.items())[:8])
            raise AnnotationError(
                f"unknown labels, {len(unknown)} in all: {listed}. Expected {self._known()}; areas are classes and "
                "points are keypoints. Use --rename LABEL=NAME, --skip LABEL, or for areas --ignore LABEL",
                field="labels",
            )

    def is_skipped(self, shape: Region | Point) -> bool:
        """Say whether a shape is to be left out."""
        return shape.label in self._settings.skip

    def _named(self, label: str) -> str:
        return self._settings.rename.get(label, label)

    def class_of(self, region: Region) -> int:
        """Get the value of the mask, 255 for not labelled."""
        if region.label is None or region.label in self._settings.ignore:
            return IGNORE_LABEL
        return self._classes[self._named(region.label)]

    def keypoint_of(self, point: Point) -> int:
        """Get the index of the keypoint."""
        return self._keypoints[self._named(point.label)]

    @property
    def background(self) -> int:
        """Get the value of what no shape covers."""
        return IGNORE_LABEL if self._settings.background is None else self._classes[self._settings.background]


class Painter:
    """Draws the labels of one picture after another and remembers what was odd."""

    def __init__(self, pictures: AnnotatedSet, names: Names, settings: ImportSettings) -> None:
        self._size = pictures.masks.shape[1], pictures.masks.shape[2]
        self._schema = pictures.schema
        self._names = names
        self._settings = settings
        self._skipped: Counter[str] = Counter()
        self._without_pixels: list[str] = []
        self._covered: list[str] = []
        self._overlap = 0
        self._specks: dict[str, dict[str, int]] = {}
        self._rescaled: dict[str, None] = {}

    def findings(self) -> dict[str, Any]:  # Any: fields of ImportReport, of several types
        """What was odd, by the names of the report's fields."""
        return {
            "skipped_shapes": dict(self._skipped),
            "shapes_without_pixels": tuple(self._without_pixels),
            "covered_shapes": tuple(self._covered),
            "overlap_pixels": self._overlap,
            "specks": self._specks,
            "rescaled_pictures": tuple(self._rescaled),
        }

    def _frame(self, labels: PictureLabels) -> Frame:
        height, width = self._size
        drawn = labels.size or self._size
        if drawn != self._size:
            if not self._settings.rescale:
                raise AnnotationError(
                    f"{labels.path}: the labels of {labels.picture} were drawn on {drawn[1]} x {drawn[0]} pixels, the "
                    f"picture has {width} x {height}; if it was enlarged to draw on it, give --rescale",
                    field="size",
                )
            if abs(drawn[0] * width - drawn[1] * height) > max(drawn[0] * width, drawn[1] * height) * 0.01:
                raise AnnotationError(
                    f"{labels.path}: the labels of {labels.picture} were drawn on {drawn[1]} x {drawn[0]} pixels, "
                    f"which is no enlarged {width} x {height}; it was cropped or belongs to another picture",
                    field="size",
                )
            self._rescaled[labels.picture] = None
        return Frame(height, width, *drawn)

    def draw_mask(self, labels: list[PictureLabels]) -> npt.NDArray[np.uint8] | None:
        """Draw the areas of one picture: uint8 [H, W], or None where nothing is labelled."""
        with_areas = [one for one in labels if one.regions]
        if len(with_areas) > 1:
            raise AnnotationError(
                f"{with_areas[0].picture} has areas in {with_areas[0].path} and in {with_areas[1].path}; give one of "
                "both",
                field="labels",
            )
        if not with_areas or (mask := self._draw_regions(with_areas[0])) is None:
            return None
        if self._settings.min_area > 1:
            self._drop_specks(mask)
        return None if bool((mask == IGNORE_LABEL).all()) else mask

    def _draw_regions(self, labels: PictureLabels) -> npt.NDArray[np.uint8] | None:
        """Draw areas one by one: uint8 [H, W], or None where none of them has a pixel."""
        frame = self._frame(labels)
        regions = self._keep(labels.regions)
        order = sorted(range(len(regions)), key=lambda number: self._order(regions[number], frame))
        mask = np.full(self._size, self._names.background, np.uint8)
        owner = np.full(self._size, -1, np.int32)
        clash = np.zeros(self._size, np.bool_)
        bare = set()
        for number in order:
            drawn = _draw(regions[number], frame)
            if not drawn.inside.any():
                bare.add(number)
                continue
            value = self._names.class_of(regions[number])
            values, owners = mask[drawn.place], owner[drawn.place]
            clash[drawn.place] |= drawn.inside & (owners >= 0) & (values != value)
            values[drawn.inside] = value
            owners[drawn.inside] = number
        self._without_pixels += [regions[number].where for number in sorted(bare)]
        if len(bare) == len(regions):
            return None
        self._overlap += int(clash.sum())
        left = {*np.unique(owner).tolist(), *bare}
        self._covered += [regions[number].where for number in order if number not in left]
        return mask

    def _keep(self, regions: Sequence[Region]) -> list[Region]:
        kept = []
        for region in regions:
            if self._names.is_skipped(region):
                self._skipped[str(region.label)] += 1
            else:
                kept.append(region)
        return kept

    def _order(self, region: Region, frame: Frame) -> int:
        if self._settings.overlap == "smallest":
            return -int(_draw(region, frame).inside.sum())  # drawn twice: all at once would take the memory of all
        return self._names.class_of(region) if self._settings.overlap == "classes" else region.layer

    def _drop_specks(self, mask: npt.NDArray[np.uint8]) -> None:
        original = mask.copy()
        for value in np.unique(original).tolist():
            if value == IGNORE_LABEL:
                continue
            parts, _ = ndimage.label(original == value)
            areas = np.bincount(parts.ravel())
            small = areas < self._settings.min_area
            small[0] = False
            if small.any():
                dropped = self._specks.setdefault(self._schema.class_names[value], {"num": 0, "pixels": 0})
                dropped["num"] += int(small.sum())
                dropped["pixels"] += int(areas[small].sum())
                mask[small[parts]] = IGNORE_LABEL

    def place_keypoints(self, labels: list[PictureLabels]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Place the keypoints of one picture.

        Returns:
            float32 [K, 3]: x, y, visible; and bool [K]: set, but hidden.
        """
        height, width = self._size
        keypoints = np.zeros((len(self._schema.keypoint_names), 3), np.float32)
        hidden = np.zeros(len(keypoints), np.bool_)
        for one in labels:
            frame = self._frame(one)
            for point in one.points:
                if self._names.is_skipped(point):
                    self._skipped[point.label] += 1
                    continue
                index = self._names.keypoint_of(point)
                if keypoints[index, 2] or hidden[index]:
                    name = self._schema.keypoint_names[index]
                    raise AnnotationError(f"{point.where}: {one.picture} has {name} twice; keep one", field="points")
                x, y = point.x * width / frame.drawn_width, point.y * height / frame.drawn_height
                if not point.visible:
                    hidden[index] = True
                elif 0 <= x <= width and 0 <= y <= height:
                    keypoints[index] = (x, y, 1.0)
                else:
                    raise AnnotationError(
                        f"{point.where} lies at ({point.x:g}, {point.y:g}), outside the {frame.drawn_width} x "
                        f"{frame.drawn_height} picture",
                        field="points",
                    )
        return keypoints, hidden


def _draw(region: Region, frame: Frame) -> Patch:
    shape = region.shape.decode() if isinstance(region.shape, Encoded) else region.shape
    if isinstance(shape, Raster) and not shape.inside.any():
        raise AnnotationError(f"{region.where} is an empty mask; delete it or draw it", field="mask")
    return shape.draw(frame)
