"""Calibration of the image score: its distribution over addresses, for each psi of a grid and each class.

Legend: N images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from labelmint.addresses import class_indices, latents
from labelmint.scores import image_score
from labelmint.v1 import bundle_pb2
from labelmint_export.errors import BuildError
from labelmint_export.reserved_seeds import CALIBRATION_SEED

QUANTILES = 101

RunModel = Callable[[dict[str, npt.NDArray[np.float32]]], dict[str, npt.NDArray[np.generic]]]
"""Feeds of the `model` graph -> its outputs by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationPlan:
    """What is measured."""

    psi_grid: tuple[float, ...]
    """Truncations, ascending."""
    num_samples: int = 2000
    """Samples for each truncation (and class)."""
    batch_size: int = 4
    """Samples a run."""


def calibrate_scores(
    run_model: RunModel, backbone: bundle_pb2.Backbone, distribution: Sequence[float], plan: CalibrationPlan
) -> list[bundle_pb2.ScoreQuantiles]:
    """Measure the quantiles of the image score.

    Args:
        run_model: Runs the deployed `model` graph.
        backbone: Sizes of the latents.
        distribution: Class probabilities of a conditional model, else empty.
        plan: What to measure.

    Returns:
        One table a psi, and for conditional models one a psi and class.

    Raises:
        BuildError: A sample is not finite.
    """
    classes: list[int | None] = list(range(len(distribution))) if backbone.c_dim else [None]
    tables = []
    for psi in plan.psi_grid:
        for class_index in classes:
            scores = _scores(run_model, backbone, psi, class_index, plan)
            table = bundle_pb2.ScoreQuantiles(truncation_psi=psi, num_samples=len(scores))
            if class_index is not None:
                table.class_index = class_index
            table.scores.extend(np.quantile(scores, np.linspace(0, 1, QUANTILES)).astype(np.float32).tolist())
            tables.append(table)
    return tables


def _scores(
    run_model: RunModel, backbone: bundle_pb2.Backbone, psi: float, class_index: int | None, plan: CalibrationPlan
) -> npt.NDArray[np.float64]:
    scores = []
    starts = range(0, plan.num_samples, plan.batch_size)
    described = f"calibration psi {psi:g}" + ("" if class_index is None else f" class {class_index}")
    for start in tqdm(starts, desc=described, mininterval=2.0, dynamic_ncols=True):
        indices = np.arange(start, start + plan.batch_size, dtype=np.uint64)
        feeds = make_feeds(backbone, CALIBRATION_SEED, indices, psi, class_index)
        outputs = run_model(feeds)
        check_finite(outputs, indices, psi)
        scores.append(image_score(outputs["uncertainty_map"].astype(np.float16)))
    return np.concatenate(scores)[: plan.num_samples].astype(np.float64)


def check_finite(outputs: Mapping[str, npt.NDArray[np.generic]], indices: npt.NDArray[np.uint64], psi: float) -> None:
    """Refuse samples that an engine would refuse to send.

    Args:
        outputs: Of the `model` graph.
        indices: uint64 [N], of the samples.
        psi: Their truncation.

    Raises:
        BuildError: One is not finite.
    """
    if not bool(outputs["finite"].all()):
        raise BuildError(
            f"a sample of indices {indices[0]} to {indices[-1]} at psi {psi:g} is not finite; the generator or the "
            "interpreter is broken",
            field="finite",
        )


def calibrated_psis(manifest: bundle_pb2.Manifest) -> list[float]:
    """The truncations of a bundle's tables, ascending; the default one of a bundle that has none."""
    return sorted({table.truncation_psi for table in manifest.score_quantiles}) or [manifest.truncation.default_psi]


def make_feeds(
    backbone: bundle_pb2.Backbone,
    seed: int,
    indices: npt.NDArray[np.uint64],
    psi: float,
    class_index: int | None = None,
    distribution: Sequence[float] = (),
) -> dict[str, npt.NDArray[np.float32]]:
    """Make the inputs of the `model` graph for some addresses.

    Args:
        backbone: Sizes of the latents.
        seed: Of the addresses.
        indices: uint64 [N].
        psi: Truncation.
        class_index: Class of a conditional model; None draws it from `distribution`.
        distribution: Class probabilities.

    Returns:
        z float32 [N, z_dim], truncation_psi float32 [N], and c float32 [N, c_dim] for conditional models.
    """
    feeds = {
        "z": latents(seed, indices, backbone.z_dim),
        "truncation_psi": np.full(len(indices), psi, np.float32),
    }
    if backbone.c_dim:
        if class_index is None:
            chosen = class_indices(seed, indices, np.asarray(distribution, np.float64))
        else:
            chosen = np.full(len(indices), class_index)
        feeds["c"] = np.eye(backbone.c_dim, dtype=np.float32)[chosen]
    return feeds
