"""Opens the engine that was asked for."""

from __future__ import annotations

from labelmint.bundle import Bundle
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
    try:
        from labelmint_service.engine.onnxruntime_engine import OnnxRuntimeEngine  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise EngineStartError(
            f"onnxruntime cannot be imported ({error}); run: pip install 'labelmint[service,cpu]', or with gpu in the "
            "place of cpu for CUDA",
            field="engine",
        ) from error
    return OnnxRuntimeEngine(bundle, provider=provider)
