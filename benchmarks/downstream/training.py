"""One training: an arm's network, trained and tested.

The arms differ in nothing but the pictures and labels they learn from.
"""

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from types import MappingProxyType

import numpy as np
import torch

from benchmarks.downstream.settings import TEST_SEED, TRAINING_SEED, DownstreamSettings
from benchmarks.downstream.streamed import StreamedSamples
from benchmarks.errors import BenchmarkError
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES, Split, ToonHeadSet
from labelmint_export.devices import choose_device
from labelmint_export.oracle.network import SegmenterConfig
from labelmint_export.oracle.training import (
    LabelledPictures,
    SegmenterTraining,
    evaluate_segmenter,
    train_segmenter,
)
from labelmint_export.orphans import end_with_parent

STREAMED, RENDERED = "streamed", "rendered"
ARMS: Mapping[str, str] = MappingProxyType(
    {STREAMED: "samples streamed from the service", RENDERED: "rendered pictures with true labels"}
)
"""Arms by name, with what they learn from."""


def use_streamed(samples: StreamedSamples, settings: DownstreamSettings) -> LabelledPictures:
    """Take streamed samples as a labelled set.

    Raises:
        BenchmarkError: They are no ToonHead samples.
    """
    height, width = samples.masks.shape[1:]
    if samples.class_names != CLASS_NAMES or samples.pictures.shape[1:3] != (height, width) or height != width:
        raise BenchmarkError(
            f"the model has the classes {', '.join(samples.class_names)} at {height} x {width}, expected "
            f"{', '.join(CLASS_NAMES)} on square pictures of the size of their masks: the test pictures are ToonHead's",
            field="bundle",
        )
    keypoints = samples.keypoints[:, :, [0, 1, 3]]
    if settings.with_keypoints and keypoints.shape[1] != len(KEYPOINT_NAMES):
        raise BenchmarkError(
            f"the model has {keypoints.shape[1]} keypoints, expected {len(KEYPOINT_NAMES)}; leave --keypoints out",
            field="keypoints",
        )
    return LabelledPictures(samples.pictures, samples.masks, keypoints[:, : _num_keypoints(settings)])


def render_training(settings: DownstreamSettings, resolution: int) -> LabelledPictures:
    """Render training pictures with true labels."""
    return _render(settings, resolution, TRAINING_SEED, Split.TRAIN, settings.num_rendered)


def render_test(settings: DownstreamSettings, resolution: int) -> LabelledPictures:
    """Render test pictures of unseen combinations with true labels."""
    return _render(settings, resolution, TEST_SEED, Split.TEST, settings.num_test)


def run_arms(
    learned: Mapping[str, LabelledPictures],
    test: LabelledPictures,
    settings: DownstreamSettings,
    trainings: Sequence[tuple[str, int]],
) -> Iterator[dict[str, object]]:
    """Do several trainings, `settings.jobs` at a time.

    Args:
        learned: What each arm learns from.
        test: To be tested on.
        settings: How to train.
        trainings: Arm and seed of each.

    Yields:
        What `run_arm` returns, as the trainings end.
    """
    if settings.jobs == 1:
        for arm, seed in trainings:
            yield run_arm(learned[arm], test, settings, arm=arm, seed=seed)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.jobs, spawn, _begin_worker, (settings.threads,)) as pool:
        runs = [pool.submit(run_arm, learned[arm], test, settings, arm=arm, seed=seed) for arm, seed in trainings]
        try:
            for run in as_completed(runs):
                yield run.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure, hours of trainings that have not begun yet


def _begin_worker(threads: int | None) -> None:
    end_with_parent()
    if threads is not None:
        torch.set_num_threads(threads)


def run_arm(
    pictures: LabelledPictures, test: LabelledPictures, settings: DownstreamSettings, *, arm: str, seed: int
) -> dict[str, object]:
    """Train a network and test it.

    Args:
        pictures: To learn from.
        test: To be tested on.
        settings: How to train.
        arm: Name of the arm.
        seed: Of weights, order and augmentation.

    Returns:
        Arm, seed, device, precision, duration and scores, ready for JSON.
    """
    if len(pictures.pictures) < settings.batch_size:
        raise BenchmarkError(
            f"{arm} has {len(pictures.pictures)} pictures for batches of {settings.batch_size}; take more pictures or "
            "a smaller --batch-size",
            field="batch_size",
        )
    began = time.perf_counter()
    device = choose_device(settings.device)
    training = SegmenterTraining(
        steps=settings.steps,
        batch_size=settings.batch_size,
        seed=seed,
        blur_share=settings.blur_share,
        device=device,
    )
    network = train_segmenter(
        SegmenterConfig(num_classes=len(CLASS_NAMES), num_keypoints=_num_keypoints(settings)),
        pictures.shuffled_batches,
        training,
        description=f"{arm}, seed {seed}",
    )
    scores = evaluate_segmenter(network, test, CLASS_NAMES)
    iou = scores["iou"]
    assert isinstance(iou, dict)
    # JSON has no NaN: a class that neither truth nor prediction holds has no IoU.
    scores["iou"] = {name: None if np.isnan(value) else value for name, value in iou.items()}
    return {
        "arm": arm,
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "compute_dtype": str(training.compute_dtype).removeprefix("torch."),
        "train_seconds": round(time.perf_counter() - began, 1),
        "scores": scores,
    }


def _num_keypoints(settings: DownstreamSettings) -> int:
    return len(KEYPOINT_NAMES) if settings.with_keypoints else 0


def _render(settings: DownstreamSettings, resolution: int, seed: int, split: Split, count: int) -> LabelledPictures:
    avatars = ToonHeadSet(resolution=resolution, seed=seed, split=split, pose_range=settings.pose_range)
    pictures, masks, keypoints = avatars.render_labelled(range(count), num_processes=settings.threads or 1)
    return LabelledPictures(pictures, masks, keypoints[:, : _num_keypoints(settings)])
