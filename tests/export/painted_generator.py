"""A generator whose taps and labels are known functions of its latent: a disc with a ring, a centre and a tip."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from labelmint_export.annotations import AnnotatedSet, AnnotationSchema
from labelmint_export.generator import Generator, SynthesisOutput, TapSpec
from labelmint_export.pictures import to_uint8

SIDE = 32
TAPS = (TapSpec("b8.conv1", 3, 8), TapSpec("b16.conv1", 3, 16), TapSpec("b32.conv1", 4, 32))
SCHEMA = AnnotationSchema(
    class_names=("ground", "disc", "ring"),
    palette=((255, 255, 255), (200, 0, 0), (0, 0, 200)),
    keypoint_names=("centre", "tip"),
)


class Truth(NamedTuple):
    """What a latent paints, label pixels."""

    masks: npt.NDArray[np.uint8]
    keypoints: npt.NDArray[np.float32]


class PaintedGenerator(nn.Module):
    """ws[:, 0] = (x, y, radius, tip is visible): what the pictures show."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_ws=1, w_dim=4, resolution=SIDE)

    def synthesis(self, ws: torch.Tensor, noise_mode: str = "const") -> SynthesisOutput:
        taps = {spec.name: self._fields(ws, spec.resolution)[:, : spec.channels] for spec in TAPS}
        return SynthesisOutput(image=taps["b32.conv1"][:, :3].tanh(), taps=taps)

    def _fields(self, ws: torch.Tensor, side: int) -> torch.Tensor:
        """Distances to the circle, its centre and the tip, and noise: [N, 4, side, side]."""
        places = (torch.arange(side) + 0.5) * (SIDE / side)
        x, y, radius, seen = (ws[:, 0, k, None, None] for k in range(4))
        columns, rows = places[None, None, :], places[None, :, None]
        centre = torch.hypot(columns - x, rows - y)
        tip = torch.hypot(columns - x - radius, rows - y)
        tip = torch.where(seen > 0, tip, torch.full_like(tip, 30.0))
        noise = torch.sin(37.0 * columns + 91.0 * rows + 13.0 * x)
        return torch.stack([(centre - radius) / 4, centre / 8, tip / 8, noise.expand_as(centre)], dim=1)


def as_generator(painted: PaintedGenerator) -> Generator:
    return cast(Generator, painted)


def truth_of(ws: torch.Tensor) -> Truth:
    places = torch.arange(SIDE) + 0.5
    x, y, radius = (ws[:, 0, k, None, None] for k in range(3))
    distance = torch.hypot(places[None, None, :] - x, places[None, :, None] - y)
    masks = torch.where(distance < radius, 1, torch.where(distance < radius + 3, 2, 0))
    keypoints = torch.zeros(len(ws), 2, 3)
    keypoints[:, 0] = torch.cat([ws[:, 0, :2], torch.ones(len(ws), 1)], dim=1)
    tips = torch.stack([ws[:, 0, 0] + ws[:, 0, 2], ws[:, 0, 1], torch.ones(len(ws))], dim=1)
    keypoints[:, 1] = tips * (ws[:, 0, 3:] > 0)
    return Truth(masks.to(torch.uint8).numpy(), keypoints.numpy())


def draw_ws(count: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    ws = torch.rand(count, 1, 4, generator=random)
    ws[..., :2] = 11 + ws[..., :2] * 10
    ws[..., 2] = 5 + ws[..., 2] * 4
    ws[..., 3] = torch.where(torch.arange(count) % 3 == 0, -1.0, 1.0)[:, None]
    return ws


def draw_annotated(count: int, seed: int) -> AnnotatedSet:
    """What a perfect annotator leaves."""
    ws = draw_ws(count, seed)
    truth = truth_of(ws)
    pictures = to_uint8(PaintedGenerator().synthesis(ws).image)
    return AnnotatedSet(SCHEMA, pictures, truth.masks, truth.keypoints, torch.zeros(count, 2), ws)
