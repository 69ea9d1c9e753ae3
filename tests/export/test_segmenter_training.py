"""Where a segmentation network is trained, what it waits for, and what it starts from.

The device `meta` has shapes and no numbers, so that reading one from it is an error, as is mixing it with others.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelmint_export.cli import main
from labelmint_export.commands import oracle
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES
from labelmint_export.devices import choose_device
from labelmint_export.errors import TrainingError
from labelmint_export.oracle.network import Segmenter, SegmenterConfig, predict, save_segmenter
from labelmint_export.oracle.training import (
    Batch,
    LabelledPictures,
    SegmenterTraining,
    evaluate_segmenter,
    train_segmenter,
)

CLASSES = ("left", "right", "none")
CONFIG = SegmenterConfig(num_classes=3, num_keypoints=1, widths=(8, 16))


def make_halves(count: int) -> LabelledPictures:
    """Pictures whose halves, dark and bright, are the first two classes; the keypoint lies in the dark one."""
    random = np.random.default_rng(0)
    dark_left = random.random(count) < 0.5
    bright = np.where(dark_left[:, None], np.arange(16) >= 8, np.arange(16) < 8)
    masks = np.broadcast_to(bright[:, None, :], (count, 16, 16)).astype(np.uint8)
    noise = random.integers(0, 50, (count, 16, 16, 3))
    x = np.where(dark_left, 4.5, 11.5)
    keypoints = np.stack([x, np.full(count, 7.5), np.ones(count)], axis=1)[:, None].astype(np.float32)
    return LabelledPictures((noise + 150 * masks[..., None]).astype(np.uint8), masks, keypoints)


def train_on(device: torch.device, pictures: LabelledPictures, steps: int) -> Segmenter:
    settings = SegmenterTraining(
        steps=steps, batch_size=8, heatmap_weight=5.0, learning_rate=1e-2, blur_share=0.1, device=device
    )
    return train_segmenter(CONFIG, pictures.shuffled_batches, settings)


def test_a_step_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelmint_export.oracle.training.fast_dtype", lambda device: torch.float32)  # not autocast's
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        train_on(torch.device("meta"), make_halves(16), 1)  # refused where the loss is read: after the whole step


def test_training_waits_for_a_loss_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[int, int]] = []
    devices: list[torch.device] = []

    def look(losses: list[torch.Tensor], step: int) -> float:
        looks.append((step, len(losses)))
        return 0.0

    def choose(device: torch.device) -> torch.dtype:
        devices.append(device)
        return torch.float32

    monkeypatch.setattr("labelmint_export.oracle.training._last_loss", look)
    monkeypatch.setattr("labelmint_export.oracle.training.fast_dtype", choose)
    train_on(torch.device("meta"), make_halves(16), 53)
    assert looks == [(0, 1), (50, 50), (52, 2)]
    assert len(devices) == 1


@pytest.mark.parametrize("bad", [0, 3, 5])
def test_loss_that_is_not_finite_is_refused_with_its_step(bad: int) -> None:
    """Where no pixel counts the loss is 0 / 0 and its gradient 0: all later losses are finite."""
    pictures = make_halves(16)

    def give(batch_size: int, seed: int) -> Iterator[Batch]:
        for step, (images, masks, keypoints) in enumerate(pictures.shuffled_batches(batch_size, seed)):
            yield images, np.full_like(masks, 255) if step == bad else masks, keypoints[:, :0]

    config = dataclasses.replace(CONFIG, num_keypoints=0)
    with pytest.raises(TrainingError, match=f"the loss is nan at step {bad}; lower learning_rate"):
        train_segmenter(config, give, SegmenterTraining(steps=6, batch_size=4))


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")],
        ),
    ],
)
def test_network_learns_and_is_scored_on_the_device(name: str) -> None:
    train, test = make_halves(64), make_halves(20)
    network = train_on(choose_device(name), train, 150)
    assert {parameter.device.type for parameter in network.parameters()} == {name}
    score = evaluate_segmenter(network, test, CLASSES)["miou"]
    assert isinstance(score, float)
    assert score > 0.98
    assert np.abs(predict(network, test.pictures).keypoints - test.keypoints).max() < 1


def test_absent_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(TrainingError, match="torch sees no GPU here"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda record: record.pop("report"), "is NoneType, expected the object that train-oracle wrote"),
        (lambda record: record.update(report=[1]), "is list, expected the object that train-oracle wrote"),
    ],
)
def test_oracle_that_says_nothing_of_itself_is_refused_before_the_training(
    change: Callable[[dict[str, Any]], object],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = SegmenterConfig(num_classes=len(CLASS_NAMES), num_keypoints=len(KEYPOINT_NAMES))
    save_segmenter(Segmenter(config), tmp_path / "old.safetensors", {})
    record = json.loads((tmp_path / "old.json").read_text())
    change(record)
    (tmp_path / "old.json").write_text(json.dumps(record))
    pictures = np.zeros((4, 32, 32, 3), np.uint8)
    keypoints = np.zeros((4, len(KEYPOINT_NAMES), 3), np.float32)
    np.savez(tmp_path / "set.npz", pictures=pictures, masks=pictures[..., 0], keypoints=keypoints)
    monkeypatch.setattr(oracle, "train_segmenter", lambda *_, **__: pytest.fail("trained"))
    paths = {"train": "set.npz", "test": "set.npz", "start-from": "old.safetensors", "out": "new.safetensors"}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(tmp_path / path))]
    assert main(["train-oracle", *options]) == 1
    assert f"report in {tmp_path / 'old.json'} {told}" in capsys.readouterr().err
