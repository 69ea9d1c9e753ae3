"""The workloads: what is painted and how it is labelled. Weights are random; the shapes are the point."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

STYLEGAN1_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
STYLEGAN2_CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
"""With channel multiplier 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One shape of generator and interpreter.

    Attributes:
        family: "stylegan1" or "stylegan2"; "" for the embedded bundle, of which the rest is read.
        resolution: Of the generator, pixels.
        label_resolution: Of masks and maps before the crop, pixels.
        first_row: First row of the delivered picture.
        num_rows: Rows of the delivered picture.
        taps: Name of the set of taps.
        num_features: Channels of all taps, to be compared with what the generator gives.
        hidden_widths: Of a member.
        num_classes: Classes.
        num_members: Pixel classifiers.
    """

    family: str
    resolution: int = 0
    label_resolution: int = 0
    first_row: int = 0
    num_rows: int = 0
    taps: str = ""
    num_features: int = 0
    hidden_widths: tuple[int, int] = (128, 32)
    num_classes: int = 0
    num_members: int = 10


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "toonhead": Workload(family=""),
        "cat-256": Workload(
            family="stylegan1",
            resolution=256,
            label_resolution=256,
            num_rows=256,
            taps="datasetgan",
            num_features=4992,
            num_classes=16,
        ),
        "car-512": Workload(
            family="stylegan1",
            resolution=512,
            label_resolution=512,
            first_row=64,
            num_rows=384,
            taps="datasetgan",
            num_features=5056,
            num_classes=20,
        ),
        "face-1024": Workload(
            family="stylegan1",
            resolution=1024,
            label_resolution=512,
            num_rows=1024,
            taps="datasetgan",
            num_features=5088,
            hidden_widths=(256, 128),
            num_classes=34,
        ),
        "ffhq-512": Workload(
            family="stylegan2",
            resolution=512,
            label_resolution=512,
            num_rows=512,
            taps="editgan",
            num_features=6016,
            hidden_widths=(256, 128),
            num_classes=34,
        ),
    }
)
"""Workloads by name."""
