"""Where torch works in a benchmark."""

import torch

from benchmarks.errors import DeviceError

DEVICES = ("cpu", "cuda")


def open_device(name: str) -> torch.device:
    """The device, set so that float32 means float32.

    Args:
        name: One of `DEVICES`.

    Raises:
        DeviceError: torch does not see it.
    """
    if name == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError(
                f"device is 'cuda', but torch {torch.__version__} sees no GPU; install a CUDA build of torch and "
                "NVIDIA's driver, or choose device 'cpu'",
                field="device",
            )
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def finish(device: torch.device) -> None:
    """Wait until all that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_device_bytes(device: torch.device) -> int | None:
    """Most memory that torch has held on a GPU so far; None elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
