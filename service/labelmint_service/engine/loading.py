"""Opens the engine that was asked for."""

from __future__ import annotations

from labelmint.bundle import Bundle
from labelmint_service.engine.onnxruntime_engine import OnnxRuntimeEngine
from labelmint_service.engine.protocol import Engine
from labelmint_service.errors import EngineStartError


def load_engine(bundle: Bundle, *, engine: str = "onnxruntime", provider: str = "cpu") -> Engine:
    """Load an engine for a bundle.

    Args:
        bundle: Verified bundle.
        engine: "onnxruntime".
        provider: What onnxruntime runs on: "cpu" or "cuda".

    Raises:
        EngineStartError: The engine or provider is unknown, missing, or cannot run the bundle.
    """
    if engine != "onnxruntime":
        raise EngineStartError(f"engine is {engine!r}, expected 'onnxruntime'; choose that", field="engine")
    return OnnxRuntimeEngine(bundle, provider=provider)
