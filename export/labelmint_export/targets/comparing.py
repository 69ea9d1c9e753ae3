"""How far outputs are from the float64 reference.

Legend: N images, K keypoints, H rows, W columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from labelmint_export.bundle.runtime import Arrays


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One figure and what is allowed."""

    name: str
    measured: float
    tolerance: float | None
    """None: not bounded at this precision, shown all the same."""
    bound: str
    """Either max or min."""

    @property
    def holds(self) -> bool:
        """Whether the tolerance is kept; what is not a number keeps none."""
        if self.tolerance is None:
            return True
        return self.measured <= self.tolerance if self.bound == "max" else self.measured >= self.tolerance


@dataclass(slots=True)
class Comparison:
    """Collects the errors of many samples.

    Legend: levels are steps of 1/255 of the picture, uncertainty is in nats, keypoints in image pixels; only keypoints
    that the reference sees count, the place of an unseen one is that of noise.
    """

    num_samples: int = 0
    _counts: list[int] = field(default_factory=list)
    _errors: dict[str, list[float]] = field(default_factory=dict)
    _distances: list[float] = field(default_factory=list)

    def add(self, expected: Arrays, got: Arrays) -> None:
        """Compare samples: image, label and uncertainty_map [N, H, W, ...], keypoints [N, K, 4], finite [N]."""
        self.num_samples += len(expected["label"])
        self._counts.append(len(expected["label"]))
        image = _difference(expected["image"], got["image"])
        uncertainty = _difference(expected["uncertainty_map"], got["uncertainty_map"])
        figures: dict[str, float] = {
            "image_max_error_levels": float(image.max()),
            "image_mean_error_levels": float(image.mean()),
            "label_agreement": _share(expected["label"] == got["label"]),
            "uncertainty_max_error": float(uncertainty.max()),
            "uncertainty_mean_error": float(uncertainty.mean()),
            "finite": _share(np.asarray(got["finite"])),
        }
        if "keypoints" in expected:
            seen = np.asarray(expected["keypoints"], np.float64)[..., 3] > 0.5
            distance = _difference(expected["keypoints"][..., :2], got["keypoints"][..., :2]).max(axis=-1)
            self._distances += distance[seen].tolist()
            visible = np.asarray(got["keypoints"], np.float64)[..., 3] > 0.5
            figures["keypoint_visibility_agreement"] = _share(visible == seen)
        for name, value in figures.items():
            self._errors.setdefault(name, []).append(value)

    def checks(self, tolerances: Mapping[str, tuple[float, str]]) -> list[Check]:
        """All figures over all samples, each of which counts alike, against what is allowed."""
        figures: dict[str, tuple[float, str]] = {}
        for name, values in self._errors.items():
            if name.endswith("max_error") or "_max_error_" in name:
                figures[name] = (float(np.max(values)), "max")
            else:
                bound = "max" if "mean_error" in name else "min"
                figures[name] = (float(np.average(values, weights=self._counts)), bound)
        if self._distances:
            distances = np.asarray(self._distances)
            figures["keypoint_median_error_px"] = (float(np.median(distances)), "max")
            figures["keypoints_within_0_05_px"] = (float((distances <= 0.05).mean()), "min")
            figures["keypoints_within_0_5_px"] = (float((distances <= 0.5).mean()), "min")
        allowed = {"finite": (1.0, "min"), **tolerances}
        return [
            Check(
                name=name,
                measured=measured,
                tolerance=allowed[name][0] if name in allowed else None,
                bound=allowed[name][1] if name in allowed else bound,
            )
            for name, (measured, bound) in figures.items()
        ]


def _difference(expected: npt.NDArray[np.generic], got: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return np.abs(np.asarray(expected, np.float64) - np.asarray(got, np.float64))


def _share(true: npt.NDArray[np.generic]) -> float:
    return float(np.asarray(true, np.float64).mean())
