"""Names this machine's GPUs as the NVIDIA driver lists them, because libraries choose their kernels by them."""

from __future__ import annotations

import re
from pathlib import Path

from labelmint_service.engine.protocol import JsonValue

_DRIVER = Path("/proc/driver/nvidia")
_VERSION = re.compile(r"\b\d+\.\d+(?:\.\d+)?\b")


def describe_graphics(driver: Path = _DRIVER) -> dict[str, JsonValue]:
    """Version of the driver and models of the GPUs that it lists.

    Nothing that differs between two cards of a model is named, such as their UUID.

    Args:
        driver: Folder in which the driver describes itself on Linux.

    Returns:
        "driver", None where it is not told, and "models", sorted and each once.
    """
    version = _VERSION.search(_first_line(driver / "version"))
    models = {_model(path) for path in driver.glob("gpus/*/information")} - {""}
    return {"driver": version.group() if version else None, "models": [*sorted(models)]}


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] if path.is_file() else ""


def _model(information: Path) -> str:
    """The entry "Model:" of a card; empty if it has none."""
    for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""
