"""Opens the engine that was asked for."""

from __future__ import annotations

from labelmint.bundle import Bundle
from labelmint_service.engine.protocol import Engine
from labelmint_service.errors import EngineStartError

ENGINES = ("onnxruntime", "fused")


def load_engine(bundle: Bundle, *, engine: str = "onnxruntime", provider: str = "cpu", kernel: str = "auto") -> Engine:
    """Load an engine for a bundle.

    Args:
        bundle: Verified bundle.
        engine: One of `ENGINES`.
        provider: What onnxruntime runs on: "cpu" or "cuda". The fused engine runs on "cpu".
        kernel: Form of the fused engine's kernel; "auto" chooses.

    Raises:
        EngineStartError: The engine or provider is unknown, missing, or cannot run the bundle.
    """
    if engine not in ENGINES:
        raise EngineStartError(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}", field="engine")
    if engine == "fused" and provider != "cpu":
        raise EngineStartError(
            f"provider is {provider!r}, but the fused engine runs on the processor; choose provider 'cpu', or engine "
            "'onnxruntime'",
            field="provider",
        )
    try:
        if engine == "fused":
            from labelmint_service.engine.fused.engine import FusedEngine  # noqa: PLC0415 - an optional library

            return FusedEngine(bundle, kernel=kernel)
        from labelmint_service.engine.onnxruntime_engine import OnnxRuntimeEngine  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise EngineStartError(
            f"onnxruntime cannot be imported ({error}); run: pip install 'labelmint[service,cpu]', or with gpu in the "
            "place of cpu for CUDA",
            field="engine",
        ) from error
    return OnnxRuntimeEngine(bundle, provider=provider)
