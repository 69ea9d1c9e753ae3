"""What an import read, for people and for programs."""

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassUse:
    """How often a class or a keypoint occurs."""

    pixels: int
    """Over all pictures that were written."""
    share: float
    """Of all pixels of these pictures."""
    pictures: int
    """That show it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeypointUse:
    """How often a keypoint was set."""

    visible: int
    """Pictures in which it can be seen."""
    hidden: int
    """Pictures in which it was set and said to be hidden: written as not visible."""
    absent: int
    """Pictures in which it was not set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What was read, what was left out and why."""

    sources: tuple[dict[str, object], ...]
    """Path, format and number of labelled pictures of each."""
    pictures: tuple[str, ...]
    """Names of the pictures that were written."""
    pairs: dict[str, list[str]]
    """Picture that was written -> the label files that it took its labels from."""
    pictures_without_labels: tuple[str, ...]
    """Left out."""
    labels_without_pictures: tuple[str, ...]
    """Names that no picture has; left out."""
    classes: dict[str, ClassUse]
    """By name."""
    not_labelled_share: float
    """Of all pixels of the pictures that were written."""
    keypoints: dict[str, KeypointUse]
    """By name."""
    classes_never_used: tuple[str, ...]
    """Not one pixel."""
    keypoints_never_used: tuple[str, ...]
    """Never visible."""
    declared_never_used: tuple[str, ...]
    """Labels that a file lists and no shape in it has."""
    skipped_shapes: dict[str, int]
    """Label -> shapes that were left out because they were to be skipped."""
    shapes_without_pixels: tuple[str, ...]
    """Too thin for any pixel's centre, or outside the picture."""
    covered_shapes: tuple[str, ...]
    """Shapes of which nothing is left under later ones."""
    overlap_pixels: int
    """Claimed by shapes of different labels."""
    specks: dict[str, dict[str, int]]
    """Class -> num, pixels of the connected parts that were too small; they became 255."""
    rescaled_pictures: tuple[str, ...]
    """Whose labels were drawn in another size."""
    notes: tuple[str, ...] = ()
    """What the readers say."""

    def to_record(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Everything, as JSON."""
        return json.dumps(self.to_record(), indent=1)

    def to_text(self) -> str:
        """Everything that matters, for a terminal."""
        lines = [f"{one['path']}: {one['format']}, {one['num_pictures']} pictures" for one in self.sources]
        width = max(len(name) for name in [*self.classes, *self.keypoints, "not labelled"])
        lines += ["", f"{'class':{width}} {'pixels':>10} {'share':>8} {'pictures':>9}"]
        for name, use in self.classes.items():
            lines.append(f"{name:{width}} {use.pixels:>10} {use.share:>8.2%} {use.pictures:>9}")
        lines.append(f"{'not labelled':{width}} {'':>10} {self.not_labelled_share:>8.2%}")
        if self.keypoints:
            lines += ["", f"{'keypoint':{width}} {'visible':>10} {'hidden':>8} {'absent':>9}"]
            for name, seen in self.keypoints.items():
                lines.append(f"{name:{width}} {seen.visible:>10} {seen.hidden:>8} {seen.absent:>9}")
        remarks = self._remarks()
        return "\n".join([*lines, "", *remarks] if remarks else lines)

    def _remarks(self) -> list[str]:
        named = {
            "pictures without labels, left out": self.pictures_without_labels,
            "labels without pictures, left out": self.labels_without_pictures,
            "classes never used": self.classes_never_used,
            "keypoints never visible": self.keypoints_never_used,
            "labels that the files list and never use": self.declared_never_used,
            "shapes without pixels": self.shapes_without_pixels,
            "shapes wholly covered by others": self.covered_shapes,
            "pictures whose labels were rescaled": self.rescaled_pictures,
        }
        lines = [f"{title}: {_shorten(names)}" for title, names in named.items() if names]
        if self.skipped_shapes:
            lines.append(f"skipped: {', '.join(f'{count} {name}' for name, count in self.skipped_shapes.items())}")
        if self.overlap_pixels:
            lines.append(f"pixels claimed by shapes of different labels: {self.overlap_pixels}")
        for name, dropped in self.specks.items():
            lines.append(f"specks of {name} dropped: {dropped['num']}, {dropped['pixels']} pixels")
        return [*lines, *self.notes]


def _shorten(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return f"{len(names)} ({shown}{', ...' if len(names) > 8 else ''})"
