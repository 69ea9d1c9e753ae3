"""A small U-Net that predicts masks, keypoints and visibility.

It serves three times: as the oracle that labels GAN pictures, as the feature space of the Frechet distance, and (with
other weights) as the network that is trained downstream on streamed samples.

Legend: N images, C classes, K keypoints, H rows, W columns.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from labelmint_export.errors import CheckpointError, DatasetError, TrainingError
from labelmint_export.heatmaps import find_peaks
from labelmint_export.pictures import normalize
from labelmint_export.stored import load_module, read_description, write_json, write_tensors

FORMAT = "labelmint-segmenter"


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig:
    """Shape of the network."""

    num_classes: int
    """C."""
    num_keypoints: int
    """K; 0 leaves the keypoint head out."""
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    """Channels at full resolution and after each halving."""

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            TrainingError: A field is out of range.
        """
        if not self.widths or min(self.widths) < 1:
            raise TrainingError(
                f"widths are {list(self.widths)}, expected at least one, each at least 1", field="widths"
            )
        if not 2 <= self.num_classes <= 255:
            raise TrainingError(f"num_classes is {self.num_classes}, expected 2 to 255", field="num_classes")
        if self.num_keypoints < 0:
            raise TrainingError(f"num_keypoints is {self.num_keypoints}, expected at least 0", field="num_keypoints")

    def check_counts(self, num_classes: int, num_keypoints: int, field: str) -> None:
        """Refuse a network of other classes or keypoints.

        Raises:
            TrainingError: It is one; `field` names what it was given as.
        """
        if (self.num_classes, self.num_keypoints) != (num_classes, num_keypoints):
            raise TrainingError(
                f"{field} knows {self.num_classes} classes and {self.num_keypoints} keypoints, expected {num_classes} "
                f"and {num_keypoints}; give a network that was trained for these",
                field=field,
            )

    @property
    def stride(self) -> int:
        """Pixels of a picture along an axis that become one at the coarsest level."""
        return int(2 ** (len(self.widths) - 1))


class ConvPair(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to float [N, O, H, W]."""
        x = functional.relu(self.norm0(self.conv0(x)), inplace=True)
        return functional.relu(self.norm1(self.conv1(x)), inplace=True)


class Segmenter(nn.Module):
    """U-Net (Ronneberger et al. 2015) with one head for classes and one for keypoint heatmaps."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(ConvPair(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(ConvPair(low + high, high) for high, low in itertools.pairwise(widths))
        self.head = nn.Conv2d(widths[0], config.num_classes + config.num_keypoints, 1)

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Compute the features of each resolution from float [N, 3, H, W], [-1, 1].

        Raises:
            DatasetError: The pictures are too small for the coarsest level.
        """
        height, width = image.shape[2:]
        if min(height, width) < self.config.stride:
            raise DatasetError(
                f"pictures are {height} x {width}, expected at least {self.config.stride} pixels for this network",
                field="pictures",
            )
        features = []
        x = image
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else functional.max_pool2d(x, 2))
            features.append(x)
        return features

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict.

        Args:
            image: float [N, 3, H, W], [-1, 1].

        Returns:
            logits float [N, C, H, W] and heatmaps float [N, K, H, W].

        Raises:
            DatasetError: H or W is no multiple of the stride.
        """
        height, width = image.shape[2:]
        if height % self.config.stride or width % self.config.stride:
            raise DatasetError(
                f"pictures are {height} x {width}, expected multiples of {self.config.stride} pixels for this network",
                field="pictures",
            )
        features = self.encode(image)
        x = features.pop()
        for pair in reversed(self.up):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = pair(torch.cat([x, features.pop()], dim=1))
        y = self.head(x)
        return y[:, : self.config.num_classes], y[:, self.config.num_classes :]


@dataclass(frozen=True, slots=True)
class Labels:
    """What the network says about pictures."""

    mask: npt.NDArray[np.uint8]
    """uint8 [N, H, W], class ids."""
    keypoints: npt.NDArray[np.float32]
    """float32 [N, K, 3]: x, y in pixels, visible (0 or 1)."""


VISIBLE_SCORE = 0.5


@torch.no_grad()
def predict(network: Segmenter, pictures: npt.NDArray[np.uint8], batch_size: int = 50) -> Labels:
    """Label pictures.

    Args:
        network: In evaluation mode.
        pictures: uint8 [N, H, W, 3].
        batch_size: Pictures a pass.

    Returns:
        Masks and keypoints.
    """
    masks, keypoints = [], []
    device = next(network.parameters()).device
    for start in range(0, len(pictures), batch_size):
        part = torch.from_numpy(np.array(pictures[start : start + batch_size]))  # a copy: mapped files are read-only
        logits, heatmaps = network(normalize(part.to(device)))
        masks.append(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())
        peaks = find_peaks(heatmaps)
        peaks[..., 2] = (peaks[..., 2] >= VISIBLE_SCORE).float()
        keypoints.append(peaks.cpu().numpy())
    return Labels(np.concatenate(masks), np.concatenate(keypoints))


def save_segmenter(network: Segmenter, path: Path, report: dict[str, object]) -> None:
    """Write `NAME.safetensors` and `NAME.json`."""
    write_tensors(path, network.state_dict())
    config = network.config
    write_json(
        path.with_suffix(".json"),
        {
            "format": FORMAT,
            "num_classes": config.num_classes,
            "num_keypoints": config.num_keypoints,
            "widths": list(config.widths),
            "report": report,
        },
    )


def load_segmenter(path: Path) -> Segmenter:
    """Read a network in evaluation mode.

    Raises:
        CheckpointError: A file is missing, malformed or of another shape.
    """
    record = read_description(path, FORMAT, None, "a network from train-oracle")
    try:
        config = SegmenterConfig(
            num_classes=int(record["num_classes"]),
            num_keypoints=int(record["num_keypoints"]),
            widths=tuple(int(width) for width in record["widths"]),
        )
    except (KeyError, TypeError, ValueError, TrainingError) as error:
        raise CheckpointError(f"{path} describes no network ({error}); train it anew", field="config") from error
    network = load_module(lambda: Segmenter(config), path)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
    return network
