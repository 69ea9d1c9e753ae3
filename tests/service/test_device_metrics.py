"""Memory of a device as metrics. What a device itself says is tested with the engine that runs on one."""

from __future__ import annotations

import math
from pathlib import Path

from labelmint_service.engine import EngineChoice
from labelmint_service.errors import EngineRunError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import join_replicas
from labelmint_service.scheduling.device_memory import DeviceMemory
from tests.service.reading import read_metrics
from tests.service.scripted_engine import ScriptedEngine, scripted_model
from tests.serving import Serving


class BrokenDevice(ScriptedEngine):
    """An engine whose device answers nothing any more but its size."""

    def device_bytes(self) -> int:
        raise EngineRunError("the CUDA driver answers cuMemGetInfo with CUDA_ERROR_ILLEGAL_ADDRESS")

    def device_total_bytes(self) -> int:
        return 2**34


def values(metrics: ServiceMetrics) -> dict[str, float]:
    [family] = metrics.device_memory_bytes.collect()
    return {sample.labels["kind"]: sample.value for sample in family.samples}


def test_processor_has_no_memory_of_a_device(served: Serving) -> None:
    assert not [key for key in read_metrics(served) if key[0] == "labelmint_device_memory_bytes"]


def test_device_that_fails_gives_no_number_and_no_error(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.__class__ = BrokenDevice
    metrics = ServiceMetrics()
    forget = DeviceMemory(metrics).watch(model, EngineChoice(provider="cuda"))
    during = values(metrics)
    forget()

    assert math.isnan(during["used"])
    assert during["total"] == 2**34
    assert values(metrics) == {}


class WorkingDevice(BrokenDevice):
    """An engine on a device of 16 GiB, half of it in use."""

    def device_bytes(self) -> int:
        return 2**33


def test_versions_on_one_device_are_told_once_and_until_the_last_one_goes(bundles: dict[str, Path]) -> None:
    metrics = ServiceMetrics()
    memory = DeviceMemory(metrics)
    ends = []
    for devices in ((0,), (0, 1)):
        pairs = [scripted_model(bundles["tiny"]) for _ in devices]
        for _, engine in pairs:
            engine.__class__ = WorkingDevice
        choice = EngineChoice(provider="cuda", devices=devices)
        ends.append(memory.watch(join_replicas([model for model, _ in pairs]), choice))
    both = values(metrics)
    ends[0]()
    second = values(metrics)
    ends[1]()

    assert both == second == {"used": 2 * 2**33, "total": 2 * 2**34}
    assert values(metrics) == {}


def test_missing_driver_leaves_the_metric_out(bundles: dict[str, Path]) -> None:
    model, _ = scripted_model(bundles["tiny"])
    metrics = ServiceMetrics()
    DeviceMemory(metrics).watch(model, EngineChoice(provider="cuda", devices=(0,)))()

    assert values(metrics) == {}
