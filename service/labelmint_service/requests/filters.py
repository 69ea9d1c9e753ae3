"""Filters: which samples a stream keeps.

N samples, H x W the label frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.v1 import bundle_pb2, service_pb2
from labelmint_service.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """A request's filter, resolved for one model, psi and class.

    Attributes:
        max_scores: float64 [C], largest image score by class of the sample; one value if the class is fixed or there is
            none. Infinite without such a bound.
        min_class_areas: Segmentation class id and its least fraction of the label frame.
    """

    max_scores: npt.NDArray[np.float64]
    min_class_areas: tuple[tuple[int, np.float32], ...]

    def accepts(
        self,
        scores: npt.NDArray[np.float32],
        labels: npt.NDArray[np.uint8],
        class_indices: npt.NDArray[np.int64] | None,
    ) -> npt.NDArray[np.bool_]:
        """Judge samples; the verdict on one does not depend on the others.

        Args:
            scores: float32 [N], image scores in nats.
            labels: uint8 [N, H, W].
            class_indices: int64 [N], classes of a conditional model; None for an unconditional one.

        Returns:
            bool [N], True for samples to keep.
        """
        bounds = self.max_scores[0]
        if class_indices is not None and len(self.max_scores) > 1:
            bounds = self.max_scores[class_indices]
        kept: npt.NDArray[np.bool_] = scores.astype(np.float64) <= bounds
        num_pixels = labels.shape[1] * labels.shape[2]
        for class_id, least in self.min_class_areas:
            covered = np.count_nonzero(labels == class_id, axis=(1, 2)) / num_pixels
            kept &= covered.astype(np.float32) >= least
        return kept


def parse_filter(
    request: service_pb2.Filter,
    manifest: bundle_pb2.Manifest,
    *,
    truncation_psi: float,
    class_index: int | None,
) -> SampleFilter | None:
    """Check a request's filter.

    Args:
        request: From the wire; nothing in it is trusted.
        manifest: Of the model.
        truncation_psi: What the stream uses.
        class_index: Class of a conditional model if the request fixes one.

    Returns:
        The filter, or None if it keeps everything.

    Raises:
        RequestError: A field is out of range, or the model lacks what it needs.
    """
    areas = _parse_areas(request.min_class_areas, manifest)
    bounds: list[npt.NDArray[np.float64]] = []
    if request.HasField("max_uncertainty"):
        bounds.append(np.array([_parse_max_uncertainty(request.max_uncertainty)]))
    if request.HasField("max_uncertainty_quantile"):
        field = "filter.max_uncertainty_quantile"
        quantile = request.max_uncertainty_quantile
        if not 0.0 < quantile <= 1.0:  # also false for NaN
            raise RequestError(f"{field} is {quantile}, expected a number in (0, 1]; choose another", field=field)
        drawn: list[int | None] = list(range(manifest.backbone.c_dim))
        classes = [class_index] if class_index is not None else drawn or [None]
        bounds.append(np.array([_threshold(manifest, quantile, truncation_psi, entry) for entry in classes]))
    if not bounds and not areas:
        return None
    max_scores = np.min(np.broadcast_arrays(*bounds), axis=0) if bounds else np.array([math.inf])
    return SampleFilter(max_scores=max_scores, min_class_areas=areas)


def _parse_max_uncertainty(value: float) -> float:
    if not 0.0 <= value < math.inf:  # also false for NaN
        field = "filter.max_uncertainty"
        raise RequestError(f"{field} is {value}, expected nats in [0, inf); choose another", field=field)
    return value


def _parse_areas(
    areas: Sequence[service_pb2.ClassArea],
    manifest: bundle_pb2.Manifest,
) -> tuple[tuple[int, np.float32], ...]:
    ids = {entry.name: class_id for class_id, entry in enumerate(manifest.classes)}
    parsed: dict[int, np.float32] = {}
    for position, area in enumerate(areas):
        field = f"filter.min_class_areas[{position}]"
        if area.class_name not in ids:
            raise RequestError(
                f"{field}.class_name is {area.class_name[:64]!r}, expected one of {', '.join(ids)}; "
                "choose a class of the model",
                field=f"{field}.class_name",
            )
        if not 0.0 < area.min_fraction <= 1.0:  # also false for NaN
            raise RequestError(
                f"{field}.min_fraction is {area.min_fraction}, expected a number in (0, 1]; choose another",
                field=f"{field}.min_fraction",
            )
        if ids[area.class_name] in parsed:
            raise RequestError(
                f"{field}.class_name is {area.class_name!r} again, expected each class once; keep one entry",
                field=f"{field}.class_name",
            )
        parsed[ids[area.class_name]] = np.float32(area.min_fraction)
    total = sum(float(least) for least in parsed.values())
    if total > 1.0 + 1e-6:
        raise RequestError(
            f"filter.min_class_areas ask for {total:.3f} of the frame together, expected at most 1; lower them",
            field="filter.min_class_areas",
        )
    return tuple(parsed.items())


def _threshold(
    manifest: bundle_pb2.Manifest,
    quantile: float,
    truncation_psi: float,
    class_index: int | None,
) -> float:
    """The calibrated image score of a quantile.

    Between the psi of the manifest's grid, and between the stored quantiles of one psi, it is interpolated linearly;
    beyond the grid's ends the nearest psi counts.
    """
    tables = sorted(
        (
            (table.truncation_psi, table.scores)
            for table in manifest.score_quantiles
            if class_index is None or table.class_index == class_index
        ),
        key=lambda table: table[0],
    )
    if not tables:
        subject = f"class {class_index} of the model" if class_index is not None else "the model"
        raise RequestError(
            f"filter.max_uncertainty_quantile is set, but {subject} has no calibrated quantiles; "
            "use filter.max_uncertainty instead",
            field="filter.max_uncertainty_quantile",
        )
    scores = [np.interp(quantile, np.linspace(0.0, 1.0, len(table)), np.asarray(table)) for _, table in tables]
    return float(np.interp(truncation_psi, [psi for psi, _ in tables], scores))
