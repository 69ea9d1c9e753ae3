"""What to train on what."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STREAMED_SEED = 20_000
"""Of the addresses of the streamed samples."""
TRAINING_SEED = 20_001
"""Of the rendered training pictures."""
TEST_SEED = 20_002
"""Of the rendered test pictures, whose combinations no training picture of either kind has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownstreamSettings:
    """Settings of the benchmark.

    Attributes:
        bundle: What a server of one's own serves; unused where an address is given.
        engine: Name of the engine that such a server runs it on.
        address: host:port of a running server; None starts one.
        model: Name of the model; None takes the server's only one.
        num_samples: Streamed samples.
        max_uncertainty_quantile: Of the streamed samples' filter, in (0, 1]; 1 filters nothing.
        cache: File that keeps the streamed samples.
        num_rendered: Rendered training pictures with true labels.
        num_test: Rendered test pictures.
        pose_range: Of the rendered pictures, training and test: share of the full ranges of the pose.
        steps: Optimiser steps of every training.
        batch_size: Pictures a step.
        blur_share: Share of training pictures that are softened.
        with_keypoints: Whether keypoints are learned too.
        device: Where to train, one of `labelmint_export.devices.DEVICES`.
        arms: Which to train now; there is no summary before all are.
        seeds: Seeds of weights, order and augmentation; each trains both arms.
        threads: Threads of a training and processes that render; None lets torch choose.
        jobs: Trainings at a time, each in a process of its own if there are several.
        out: Folder for the results.
    """

    bundle: Path
    engine: str
    address: str | None
    model: str | None
    num_samples: int
    max_uncertainty_quantile: float
    cache: Path
    num_rendered: int
    num_test: int
    pose_range: float
    steps: int
    batch_size: int
    blur_share: float
    with_keypoints: bool
    device: str
    arms: Sequence[str]
    seeds: tuple[int, ...]
    threads: int | None
    jobs: int
    out: Path
