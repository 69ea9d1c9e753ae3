"""Names of classes that were given on the command line, and colours for them."""

from collections.abc import Sequence

import numpy as np

from labelmint_export.annotations import AnnotationSchema


def name_classes(classes: Sequence[str], keypoints: Sequence[str] = ()) -> AnnotationSchema:
    """Name classes and keypoints; the colours follow from the place of a class alone.

    Raises:
        AnnotationError: There are fewer than 2 or more than 255 names, or one occurs twice.
    """
    hues = np.random.Generator(np.random.Philox(key=[0, 3])).integers(32, 224, (len(classes), 3))
    return AnnotationSchema(
        class_names=tuple(classes),
        palette=tuple((int(r), int(g), int(b)) for r, g, b in hues),
        keypoint_names=tuple(keypoints),
    )
