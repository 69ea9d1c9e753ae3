"""Where a segmentation network is trained.

The device `meta` has shapes and no numbers, so that reading one from it is an error, as is mixing it with others.
"""

import numpy as np
import pytest
import torch

from labelmint_export.devices import choose_device
from labelmint_export.errors import TrainingError
from labelmint_export.oracle.network import Segmenter, SegmenterConfig, predict
from labelmint_export.oracle.training import LabelledPictures, SegmenterTraining, evaluate_segmenter, train_segmenter

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
