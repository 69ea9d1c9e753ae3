"""Labels of other programs, put on the pictures of an annotation folder.

Read -> match by the names of the files -> names of classes and keypoints -> drawn in order -> specks dropped -> report.
Nothing is written here, and every error comes before anything is.

Legend: N pictures, K keypoints.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint_export.annotations.folder import AnnotatedSet
from labelmint_export.annotations.import_report import ClassUse, ImportReport, KeypointUse
from labelmint_export.annotations.labels import LabelSource, PictureLabels
from labelmint_export.annotations.matching import match_pictures
from labelmint_export.annotations.painting import ImportSettings, Names, Painter
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import AnnotationError


def import_labels(
    pictures: AnnotatedSet, sources: Sequence[LabelSource], settings: ImportSettings
) -> tuple[AnnotatedSet, ImportReport]:
    """Put labels on pictures.

    Args:
        pictures: From `read_pictures`; its masks and keypoints are not looked at.
        sources: What was read. Areas and points of a picture may come from different sources.
        settings: How.

    Returns:
        The pictures that have labels, in the order of their names, and the report.

    Raises:
        AnnotationError: No label belongs to a picture, or one does not fit; the message names it.
    """
    names = Names(pictures, settings)
    names.check(sources)
    matched, strangers = match_pictures(pictures.names, sources)
    painter = Painter(pictures, names, settings)
    masks, keypoints, hidden, kept, empty = [], [], [], [], []
    for index, name in enumerate(pictures.names):
        mask = painter.draw_mask(matched[index])
        if mask is None:
            empty.append(name)
            continue
        points, covered = painter.place_keypoints(matched[index])
        kept.append(index)
        masks.append(mask)
        keypoints.append(points)
        hidden.append(covered)
    if not kept:
        raise AnnotationError(
            f"none of the {len(pictures)} pictures has a labelled pixel; "
            f"{_explain_nothing(pictures, matched, strangers)}",
            field="labels",
        )
    schema = dataclasses.replace(pictures.schema, skeleton=_skeleton(pictures, sources, settings))
    annotated = AnnotatedSet(
        schema=schema,
        pictures=pictures.pictures[kept],
        masks=np.stack(masks),
        keypoints=np.stack(keypoints),
        z=pictures.z[kept],
        ws=pictures.ws[kept],
        names=tuple(pictures.names[index] for index in kept),
    )
    used = {shape.label for source in sources for one in source.pictures for shape in one.shapes}
    declared = dict.fromkeys(label for source in sources for label in source.declared if label not in used)
    report = ImportReport(
        sources=tuple({"path": str(s.path), "format": s.format, "num_pictures": len(s.pictures)} for s in sources),
        pictures=annotated.names,
        pairs={pictures.names[i]: [str(one.path) for one in matched[i]] for i in kept},
        pictures_without_labels=tuple(empty),
        labels_without_pictures=strangers,
        declared_never_used=tuple(declared),
        notes=tuple(note for source in sources for note in source.notes),
        **_count(annotated, np.stack(hidden)),
        **painter.findings(),
    )
    return annotated, report


def _explain_nothing(
    pictures: AnnotatedSet, matched: Sequence[Sequence[PictureLabels]], strangers: tuple[str, ...]
) -> str:
    found = [one for several in matched for one in several]
    if any(one.regions for one in found):
        return "the shapes drawn on them are skipped, ignored, outside, not labelled or smaller than min_area"
    if strangers or not found:
        return f"the labels are for {_some(strangers) or 'no pictures'}, the pictures are {_some(pictures.names)}"
    files = _some(dict.fromkeys(one.path.name for one in found))
    return f"the labels are for these pictures, but hold no areas ({files}); give --format if others were meant"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")


def _skeleton(
    pictures: AnnotatedSet, sources: Sequence[LabelSource], settings: ImportSettings
) -> tuple[tuple[int, int], ...]:
    """The folder's own; if it has none, that of the files between keypoints that are known."""
    if pictures.schema.skeleton:
        return pictures.schema.skeleton
    known = {name: index for index, name in enumerate(pictures.schema.keypoint_names)}
    named = [
        [known.get(settings.rename.get(end, end)) for end in pair] for source in sources for pair in source.skeleton
    ]
    pairs = [(first, second) for first, second in named if first is not None and second is not None]
    return tuple(dict.fromkeys(pairs))


def _count(annotated: AnnotatedSet, hidden: npt.NDArray[np.bool_]) -> dict[str, Any]:
    # Any: fields of ImportReport, of several types.
    """Areas and keypoints, by the names of the report's fields."""
    schema, masks = annotated.schema, annotated.masks
    areas = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in masks])  # [N, 256]
    pixels, shown = areas.sum(axis=0), (areas > 0).sum(axis=0)
    visible = (annotated.keypoints[..., 2] > 0.5).sum(axis=0)
    return {
        "classes": {
            name: ClassUse(pixels=int(pixels[i]), share=round(float(pixels[i] / masks.size), 6), pictures=int(shown[i]))
            for i, name in enumerate(schema.class_names)
        },
        "not_labelled_share": round(float(pixels[IGNORE_LABEL] / masks.size), 6),
        "keypoints": {
            name: KeypointUse(
                visible=int(visible[k]),
                hidden=int(hidden[:, k].sum()),
                absent=len(annotated) - int(visible[k]) - int(hidden[:, k].sum()),
            )
            for k, name in enumerate(schema.keypoint_names)
        },
        "classes_never_used": tuple(name for i, name in enumerate(schema.class_names) if not pixels[i]),
        "keypoints_never_used": tuple(name for k, name in enumerate(schema.keypoint_names) if not visible[k]),
    }
