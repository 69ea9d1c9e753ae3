"""Export side of labelmint: pictures, generators, interpreters and the bundles made from them."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelmint_export.checkpoints.loading import load_generator as load_generator

# Read when onnxruntime is imported: it would tell its makers of every run.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["load_generator"]


def __getattr__(name: str) -> object:
    """Import torch only when a generator is asked for: the picture set and the schemas need none."""
    if name == "load_generator":
        from labelmint_export.checkpoints.loading import load_generator  # noqa: PLC0415

        return load_generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
