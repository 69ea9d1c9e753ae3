"""Which engine runs bundles; opens it."""

from __future__ import annotations

from dataclasses import dataclass

from labelmint.bundle import Bundle
from labelmint_service.engine.protocol import Engine
from labelmint_service.errors import EngineStartError

ENGINES = ("onnxruntime", "fused")
ALGORITHMS = ("repeatable", "fast")
"""How cuDNN computes on a GPU: so that bits repeat, or as its heuristics choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engines run a bundle, and on what.

    Attributes:
        engine: One of `ENGINES`.
        provider: "cpu" or "cuda".
        kernel: Form of the fused engine's kernel on a processor; "auto" chooses.
        algorithms: One of `ALGORITHMS`; a processor's bits always repeat.
        devices: Number of the GPU of each engine; None for the first, or on a processor.
    """

    engine: str = "onnxruntime"
    provider: str = "cpu"
    kernel: str = "auto"
    algorithms: str = "repeatable"
    devices: tuple[int | None, ...] = (None,)

    @property
    def promises_bits(self) -> bool:
        """Whether the same latents always give the same bits."""
        return self.provider == "cpu" or self.algorithms == "repeatable"


DEFAULT_CHOICE = EngineChoice()


def load_engine(bundle: Bundle, choice: EngineChoice = DEFAULT_CHOICE, device: int | None = None) -> Engine:
    """Load an engine for a bundle.

    Args:
        bundle: Verified bundle.
        choice: Which one.
        device: Of the choice's devices, the one that it runs on.

    Raises:
        EngineStartError: The engine or provider is unknown, missing, or cannot run the bundle.
    """
    if device is not None and choice.provider == "cpu":
        raise EngineStartError(
            f"device is {device}, but provider is 'cpu', which has none; leave devices out or choose provider 'cuda'",
            field="devices",
        )
    if choice.engine not in ENGINES:
        raise EngineStartError(f"engine is {choice.engine!r}, expected one of {', '.join(ENGINES)}", field="engine")
    if choice.algorithms not in ALGORITHMS:
        raise EngineStartError(
            f"algorithms is {choice.algorithms!r}, expected one of {', '.join(ALGORITHMS)}", field="algorithms"
        )
    try:
        if choice.engine == "fused":
            return _load_fused(bundle, choice, device or 0)
        from labelmint_service.engine.onnxruntime_engine import OnnxRuntimeEngine  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise EngineStartError(
            f"onnxruntime cannot be imported ({error}); run: pip install 'labelmint[service,cpu]', or with gpu in the "
            "place of cpu for CUDA",
            field="engine",
        ) from error
    return OnnxRuntimeEngine(bundle, provider=choice.provider, device=device, algorithms=choice.algorithms)


def _load_fused(bundle: Bundle, choice: EngineChoice, ordinal: int) -> Engine:
    """The fused engine of a provider.

    Raises:
        ImportError: onnxruntime is missing.
        EngineStartError: The engine cannot run the bundle here.
    """
    provider, kernel = choice.provider, choice.kernel
    if provider == "cpu":
        from labelmint_service.engine.fused.engine import FusedEngine  # noqa: PLC0415 - an optional library

        return FusedEngine(bundle, kernel=kernel)
    if provider != "cuda":
        raise EngineStartError(f"provider is {provider!r}, expected cpu or cuda; choose one of these", field="provider")
    if kernel != "auto":
        raise EngineStartError(
            f"kernel is {kernel!r}, a form for processors, but provider is 'cuda'; leave kernel at 'auto'",
            field="kernel",
        )
    from labelmint_service.engine.fused.gpu.driver import CudaDevice  # noqa: PLC0415
    from labelmint_service.engine.fused.gpu.engine import GpuEngine  # noqa: PLC0415 - an optional library
    from labelmint_service.engine.sessions import find_provider  # noqa: PLC0415 - an optional library

    find_provider(provider)
    device = CudaDevice(ordinal)
    try:
        return GpuEngine(bundle, device, algorithms=choice.algorithms)
    except BaseException:
        device.close()
        raise
