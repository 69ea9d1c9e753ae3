"""Devices that torch trains on, by name."""

import torch

from labelmint_export.errors import TrainingError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """Choose where to train.

    Args:
        name: One of `DEVICES`; "auto" takes a GPU if torch sees one.

    Returns:
        The device.

    Raises:
        TrainingError: It is "cuda", and torch sees no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device is cuda, but torch sees no GPU here; use cpu or another build of torch", field="device"
        )
    return torch.device(name)
