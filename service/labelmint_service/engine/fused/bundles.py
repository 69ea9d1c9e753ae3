"""What the fused engines read of a bundle: the interpreter's weights, and the frame in which labels are delivered.

N pictures, K keypoints, H = W label resolution before the crop.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.bundle import Bundle
from labelmint.tables import read_interpreter_tables
from labelmint.v1 import bundle_pb2
from labelmint_service.engine.fused.weights import InterpreterWeights, weights_from_tables
from labelmint_service.errors import EngineStartError


class LabelFrame:
    """The part of the label picture that is delivered.

    Args:
        manifest: Of the bundle.
        size: H.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    def __init__(self, manifest: bundle_pb2.Manifest, size: int) -> None:
        frame, resolution = manifest.frame, manifest.backbone.resolution
        self.top, self.left = frame.crop_top * size // resolution, frame.crop_left * size // resolution
        self.height, self.width = frame.label_height, frame.label_width
        self._scale = resolution / size
        self._frame = frame
        self._thresholds = np.array(manifest.keypoints.visibility_thresholds, dtype=np.float32)

    @property
    def rows(self) -> range:
        """Rows of the label picture that are delivered."""
        return range(self.top, self.top + self.height)

    def cut(self, pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:  # Any: of every dtype
        """The frame of pictures [N, H, W], as a view."""
        return pictures[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def place_peaks(self, peaks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Keypoints in image pixels of the frame.

        Args:
            peaks: float32 [N, K, 3]: x, y in label pixels before the crop, score.

        Returns:
            float32 [N, K, 4]: x, y, score, visibility.
        """
        frame = self._frame
        x = peaks[..., 0:1] * np.float32(self._scale) - np.float32(frame.crop_left)
        y = peaks[..., 1:2] * np.float32(self._scale) - np.float32(frame.crop_top)
        score = peaks[..., 2:]
        visible = score >= self._thresholds[:, None]
        visible &= (x >= 0) & (x <= frame.image_width) & (y >= 0) & (y <= frame.image_height)
        return np.concatenate([x, y, score, visible.astype(np.float32)], axis=2)


def read_weights(bundle: Bundle) -> InterpreterWeights:
    """The interpreter of a bundle.

    Raises:
        EngineStartError: The bundle has no tables, or they do not fit its manifest.
    """
    manifest, names = bundle.manifest, bundle.manifest.keypoints.names
    tables = read_interpreter_tables(bundle)
    if not tables:
        raise EngineStartError(
            f"bundle {bundle.name!r} has no interpreter_tables, which the fused engine reads; build it again with this "
            "release, or choose engine 'onnxruntime'",
            field="engine",
        )
    channels = Counter[int]()
    for tap in manifest.taps:
        channels[tap.resolution] += tap.channels
    try:
        weights = weights_from_tables(tables, channels, _label_size(manifest), manifest.vote_rule)
        outputs = [members.weight3.shape[1] for members in weights.ensembles]
        expected = [len(manifest.classes), *([len(names)] if names else [])]
        if outputs != expected:
            raise ValueError(f"the members have {outputs} outputs, expected {expected} for classes and keypoints")
    except (KeyError, ValueError, IndexError) as error:
        raise EngineStartError(
            f"the interpreter_tables of bundle {bundle.name!r} do not fit its manifest ({error}); build it again, or "
            "choose engine 'onnxruntime'",
            field="engine",
        ) from error
    return weights


def _label_size(manifest: bundle_pb2.Manifest) -> int:
    """H, of a manifest whose frame is the same part of the picture and of its labels.

    Raises:
        ValueError: It is not.
    """
    frame, resolution = manifest.frame, manifest.backbone.resolution
    size = frame.label_height * resolution // frame.image_height
    of_image = (frame.image_height, frame.image_width, frame.crop_top, frame.crop_left)
    top, left = (offset * size // resolution for offset in of_image[2:])
    if [side * size for side in of_image] != [
        side * resolution for side in (frame.label_height, frame.label_width, top, left)
    ]:
        raise ValueError(
            f"the labels' frame of {frame.label_height} x {frame.label_width} is not that of the picture, "
            f"{frame.image_height} x {frame.image_width} from row {frame.crop_top} and column {frame.crop_left} of "
            f"{resolution}"
        )
    return size
