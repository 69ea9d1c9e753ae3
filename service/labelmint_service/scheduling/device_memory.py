"""Memory of the devices that engines run on, as metrics. It is asked for when somebody reads the metrics, no sooner."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from labelmint_service.engine import EngineChoice
from labelmint_service.engine.fused.gpu.driver import CudaDevice
from labelmint_service.errors import EngineStartError, ServiceError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Watch:
    """A device that engines of one version run on.

    Attributes:
        number: Of the device.
        used_bytes: Asks for the memory in use.
        total_bytes: Asks for all there is.
    """

    number: int
    used_bytes: Callable[[], int]
    total_bytes: Callable[[], int]


class DeviceMemory:
    """Lets metrics tell the memory of the devices that engines run on; each is counted once for a model.

    Args:
        metrics: Where to tell.
    """

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics
        self._watches: dict[str, tuple[_Watch, ...]] = {}

    def watch(self, model: ServedModel, choice: EngineChoice) -> Callable[[], None]:
        """Tell of the devices of a version of a model, besides those of its other versions.

        Args:
            model: The version.
            choice: What its engines run on; of a processor there is nothing to tell.

        Returns:
            Ends it; to be called before the engines are closed.
        """
        engines = {number or 0: one.engine for one, number in zip(model.replicas, choice.devices, strict=False)}
        watches: list[_Watch] = []
        opened: list[CudaDevice] = []
        for number, engine in engines.items():
            if isinstance(engine, OnDevice):
                watches.append(
                    _Watch(number=number, used_bytes=engine.device_bytes, total_bytes=engine.device_total_bytes)
                )
                continue
            if choice.provider != "cuda":
                continue
            try:
                device = CudaDevice(number)
            except EngineStartError as error:  # onnxruntime itself needs no binding
                log_event(_log, logging.WARNING, "metrics.device_memory", model=model.name, message=str(error))
                continue
            opened.append(device)
            watches.append(_Watch(number=number, used_bytes=device.allocated_bytes, total_bytes=device.total_bytes))
        self._tell(model.name, (*self._watches.get(model.name, ()), *watches))

        def end() -> None:
            self._tell(model.name, [watch for watch in self._watches[model.name] if watch not in watches])
            for device in opened:
                device.close()

        return end

    def _tell(self, name: str, watches: Iterable[_Watch]) -> None:
        gauge, had = self._metrics.device_memory_bytes, self._watches.get(name)
        self._watches[name] = tuple(watches)
        if self._watches[name]:
            devices = {watch.number: watch for watch in self._watches[name]}.values()
            for kind, asks in (
                ("used", [watch.used_bytes for watch in devices]),
                ("total", [watch.total_bytes for watch in devices]),
            ):
                gauge.labels(name, kind).set_function(functools.partial(_answer, asks))
        elif had:
            for kind in ("used", "total"):
                gauge.remove(name, kind)


def _answer(asks: Sequence[Callable[[], int]]) -> float:
    """What devices say, together; no number if one fails, so that the other metrics can still be read."""
    try:
        return sum(ask() for ask in asks)
    except ServiceError:
        return math.nan
