"""Memory of the devices that engines run on, as metrics. It is asked for when somebody reads the metrics, no sooner."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from labelmint_service.engine.fused.gpu.driver import CudaDevice
from labelmint_service.errors import EngineStartError, ServiceError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models import ServedModel
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)


@runtime_checkable
class OnDevice(Protocol):
    """An engine on a device with memory of its own, about which any thread may ask."""

    def device_bytes(self) -> int:
        """Memory in use, also by others.

        Raises:
            ServiceError: The device does not say.
        """
        ...

    def device_total_bytes(self) -> int:
        """All memory that there is.

        Raises:
            ServiceError: The device does not say.
        """
        ...


def watch_device(model: ServedModel, provider: str, metrics: ServiceMetrics) -> Callable[[], None]:
    """Let metrics tell the memory of the device that a model's engine runs on; on a processor there is none to tell.

    Args:
        model: Which model.
        provider: What its engine runs on.
        metrics: Where to tell.

    Returns:
        Ends it; to be called before the engine is closed.
    """
    engine = model.engine
    if isinstance(engine, OnDevice):
        return _watch(model.name, metrics, engine.device_bytes, engine.device_total_bytes)
    if provider != "cuda":
        return lambda: None
    try:
        device = CudaDevice()
    except EngineStartError as error:  # onnxruntime itself needs no binding
        log_event(_log, logging.WARNING, "metrics.device_memory", model=model.name, message=str(error))
        return lambda: None
    forget = _watch(model.name, metrics, device.allocated_bytes, device.total_bytes)

    def end() -> None:
        forget()
        device.close()

    return end


def _watch(
    name: str, metrics: ServiceMetrics, used_bytes: Callable[[], int], total_bytes: Callable[[], int]
) -> Callable[[], None]:
    asks = {"used": used_bytes, "total": total_bytes}
    for kind, ask in asks.items():
        metrics.device_memory_bytes.labels(name, kind).set_function(functools.partial(_answer, ask))

    def forget() -> None:
        for kind in asks:
            metrics.device_memory_bytes.remove(name, kind)

    return forget


def _answer(ask: Callable[[], int]) -> float:
    """What a device says; no number from one that fails, so that the other metrics can still be read."""
    try:
        return ask()
    except ServiceError:
        return math.nan
