"""Supervised training of a U-Net on labelled pictures: the oracle's, and the downstream network's.

Legend: N images, C classes, K keypoints, H rows, W columns.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm

from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import TrainingError
from labelmint_export.heatmaps import encode_heatmaps
from labelmint_export.metrics import confusion, figure_size, iou_per_class, keypoint_scores, miou
from labelmint_export.oracle.network import Labels, Segmenter, SegmenterConfig, predict
from labelmint_export.pictures import normalize
from labelmint_export.precision import computing_in, fast_dtype
from labelmint_export.ranges import require_at_least, require_between, require_positive, require_seed

SIGMA_PIXELS = 2.0
LOSS_STEPS = 50
"""Steps between two looks at the loss: reading one from a GPU waits for all that the GPU has yet to do."""

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32]]
"""Pictures uint8 [N, H, W, 3], masks uint8 [N, H, W], keypoints float32 [N, K, 3]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterTraining:
    """Settings of one training."""

    steps: int
    """Optimiser steps, at least 1."""
    batch_size: int = 16
    """Pictures a step, at least 1."""
    learning_rate: float = 3e-3
    """Peak of a one-cycle schedule (AdamW), above 0."""
    heatmap_weight: float = 300.0
    """Weight of the squared error of the keypoints' heatmaps, beside the cross entropy of the classes, at least 0. A
    peak covers a thousandth of a picture: with a small weight the heatmaps stay flat and keypoints swap sides."""
    seed: int = 0
    """Of initial weights, order and augmentation, 0 to 2**64 - 1."""
    noise: float = 0.02
    """Standard deviation of pixel noise, in units of the [-1, 1] range."""
    blur_share: float = 0.0
    """Share of pictures that are softened, as a generator's pictures are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where to train. Each draws its own augmentation from a seed."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            TrainingError: A field is out of range.
        """
        require_at_least(self, 1, "steps", "batch_size")
        require_at_least(self, 0, "heatmap_weight", "noise")
        require_positive(self, "learning_rate")
        require_between(self, 0, 1, "blur_share")
        require_seed(self.seed)

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the feature maps: what the device is fast in."""
        return fast_dtype(self.device)


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """A labelled set in memory or mapped from disk."""

    pictures: npt.NDArray[np.uint8]
    """uint8 [N, H, W, 3]."""
    masks: npt.NDArray[np.uint8]
    """uint8 [N, H, W]; 255 is not learned."""
    keypoints: npt.NDArray[np.float32]
    """float32 [N, K, 3]: x, y, visible."""

    def __post_init__(self) -> None:
        """Check that the three belong together.

        Raises:
            TrainingError: The arrays do not fit each other, or hold something else.
        """
        kinds = (("pictures", "uint8", "NHW3"), ("masks", "uint8", "NHW"), ("keypoints", "float32", "NK3"))
        for name, expected, axes in kinds:
            array = getattr(self, name)
            if array.dtype != expected or array.ndim != len(axes) or (axes[-1] == "3" and array.shape[-1] != 3):
                raise TrainingError(
                    f"{name} are {array.dtype} {list(array.shape)}, expected {expected} [{', '.join(axes)}]", field=name
                )
        if self.masks.shape != self.pictures.shape[:3] or len(self.keypoints) != len(self.pictures):
            raise TrainingError(
                f"pictures {list(self.pictures.shape)}, masks {list(self.masks.shape)} and keypoints "
                f"{list(self.keypoints.shape)} do not belong together",
                field="masks",
            )

    def check_labels(self, config: SegmenterConfig) -> None:
        """Refuse labels that a network of this shape cannot learn, or be scored with.

        Raises:
            TrainingError: There is no picture, or a size, class or keypoint is not the network's.
        """
        if not len(self.pictures):
            raise TrainingError("the set holds no pictures, expected at least 1", field="pictures")
        height, width = self.pictures.shape[1:3]
        if height % config.stride or width % config.stride:
            raise TrainingError(
                f"pictures are {height} x {width}, expected multiples of {config.stride} pixels", field="pictures"
            )
        strangers = self.masks[(self.masks >= config.num_classes) & (self.masks != IGNORE_LABEL)]
        if len(strangers):
            raise TrainingError(
                f"a mask holds class {strangers[0]}, expected 0 to {config.num_classes - 1}, or {IGNORE_LABEL}",
                field="masks",
            )
        if self.keypoints.shape[1] != config.num_keypoints or not np.isfinite(self.keypoints).all():
            raise TrainingError(
                f"keypoints are {list(self.keypoints.shape)}, expected {config.num_keypoints} a picture, all finite",
                field="keypoints",
            )

    def shuffled_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Give batches for ever, each epoch in a new order.

        Raises:
            TrainingError: A batch takes more pictures than there are.
        """
        if batch_size > len(self.pictures):
            raise TrainingError(
                f"batch_size is {batch_size}, expected at most the {len(self.pictures)} pictures of the set",
                field="batch_size",
            )
        return self._endless_batches(batch_size, np.random.Generator(np.random.Philox(key=[seed, 2])))

    def _endless_batches(self, batch_size: int, random: np.random.Generator) -> Iterator[Batch]:
        while True:
            order = random.permutation(len(self.pictures))
            for start in range(0, len(order) - batch_size + 1, batch_size):
                part = np.sort(order[start : start + batch_size])
                yield self.pictures[part], self.masks[part], self.keypoints[part]


def _augment(image: torch.Tensor, settings: SegmenterTraining) -> torch.Tensor:
    """Vary contrast, brightness, tint, sharpness and noise of float [N, 3, H, W]; labels stay valid."""
    count, device = image.shape[0], image.device
    gain = 1 + 0.2 * _normal(count, 3, device).mul(0.3) + 0.1 * _normal(count, 1, device)
    shift = 0.05 * _normal(count, 3, device) + 0.1 * _normal(count, 1, device)
    image = image * gain + shift
    if settings.blur_share > 0:
        line = torch.tensor([1.0, 2.0, 1.0], device=device) / 4
        kernel = torch.outer(line, line).expand(3, 1, 3, 3)
        soft = functional.conv2d(functional.pad(image, [1] * 4, mode="replicate"), kernel, groups=3)
        image = torch.where(torch.rand(count, 1, 1, 1, device=device) < settings.blur_share, soft, image)
    return image + settings.noise * torch.rand(count, 1, 1, 1, device=device) * torch.randn_like(image)


def _normal(count: int, channels: int, device: torch.device) -> torch.Tensor:
    """Draw a number for each picture and channel: float32 [N, channels, 1, 1]."""
    return torch.randn(count, channels, 1, 1, device=device)


def train_segmenter(
    config: SegmenterConfig,
    batches: Callable[[int, int], Iterator[Batch]],
    settings: SegmenterTraining,
    *,
    start: Segmenter | None = None,
    description: str = "segmenter",
) -> Segmenter:
    """Train a network.

    Args:
        config: Its shape.
        batches: Called with batch size and seed, gives batches for at least `settings.steps` steps.
        settings: How to train.
        start: Network to go on from, of the same shape; None begins with random weights.
        description: Shown in front of the progress bar.

    Returns:
        The network in evaluation mode, on the device of the settings.

    Raises:
        TrainingError: `start` is of another shape, or a loss was not finite.
    """
    torch.manual_seed(settings.seed)
    network = Segmenter(config)
    if start is not None:
        if start.config != config:
            raise TrainingError(f"the network to start from is {start.config}, expected {config}", field="start")
        network.load_state_dict(start.state_dict())
    device, compute_dtype = settings.device, settings.compute_dtype
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=min(0.3, max(0.05, 2 / settings.steps))
    )
    source = batches(settings.batch_size, settings.seed)
    bar = tqdm(range(settings.steps), desc=description, unit="step", mininterval=2.0, dynamic_ncols=True)
    losses: list[torch.Tensor] = []
    for step in bar:
        pictures, masks, keypoints = next(source)
        image = _augment(normalize(torch.from_numpy(np.ascontiguousarray(pictures)).to(device)), settings)
        image = image.contiguous(memory_format=torch.channels_last)
        with computing_in(compute_dtype, device):
            logits, heatmaps = network(image)
        classes = torch.from_numpy(masks).to(device).long()
        loss = functional.cross_entropy(logits.float(), classes, ignore_index=IGNORE_LABEL)
        if config.num_keypoints:
            height, width = masks.shape[1:]
            target = encode_heatmaps(torch.from_numpy(keypoints).to(device), height, width, SIGMA_PIXELS)
            loss = loss + settings.heatmap_weight * functional.mse_loss(heatmaps.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % LOSS_STEPS == 0 or step == settings.steps - 1:
            bar.set_postfix(loss=f"{_last_loss(losses, step):.4f}")
            losses.clear()
    return network.eval().requires_grad_(False)


def _last_loss(losses: list[torch.Tensor], step: int) -> float:
    """Give the last of some losses, float [] each, which is that of a step.

    Raises:
        TrainingError: One is not finite.
    """
    if not bool(torch.isfinite(torch.stack(losses)).all()):
        for number, value in enumerate(losses, step - len(losses) + 1):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {float(value)} at step {number}; lower learning_rate", field="learning_rate"
                )
    return float(losses[-1])


def evaluate_segmenter(network: Segmenter, test: LabelledPictures, class_names: tuple[str, ...]) -> dict[str, object]:
    """Score a network on labelled pictures.

    Returns:
        mIoU, IoU of each class, PCK and visibility accuracy, ready for JSON.
    """
    return score_labels(predict(network, test.pictures), test, class_names)


def score_labels(predicted: Labels, true: LabelledPictures, class_names: tuple[str, ...]) -> dict[str, object]:
    """Score labels against the truth; see `evaluate_segmenter`."""
    counts = confusion(predicted.mask, true.masks, len(class_names))
    per_class = iou_per_class(counts)
    report: dict[str, object] = {
        "num_pictures": len(true.pictures),
        "miou": miou(counts),
        "iou": {name: float(value) for name, value in zip(class_names, per_class, strict=True)},
    }
    if true.keypoints.shape[1]:
        scores = keypoint_scores(
            predicted.keypoints[..., :2], predicted.keypoints[..., 2] > 0.5, true.keypoints, figure_size(true.masks)
        )
        report |= {
            "pck_at_0_1": scores.pck_at_0_1,
            "pck_at_0_05": scores.pck_at_0_05,
            "visibility_accuracy": scores.visibility_accuracy,
        }
    return report
