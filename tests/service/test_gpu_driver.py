"""The CUDA driver as a device: what is said where it is missing, and on a GPU that it does what it promises."""

import sys
from pathlib import Path

import numpy as np
import pytest

from labelmint.bundle import open_bundle
from labelmint.errors import IntegrityError
from labelmint_service.engine import EngineChoice, load_engine, sessions
from labelmint_service.engine.fused.gpu import driver, engine
from labelmint_service.engine.fused.gpu.device import download, upload
from labelmint_service.engine.fused.gpu.driver import CudaDevice
from labelmint_service.errors import EngineRunError, EngineStartError
from labelmint_service.settings import EMBEDDED_BUNDLE


def find_gpu() -> str:
    """Why there is no GPU; empty if there is one."""
    try:
        CudaDevice().close()
    except EngineStartError as error:
        return str(error)
    return ""


REASON = find_gpu()
needs_gpu = pytest.mark.skipif(bool(REASON), reason=f"no GPU: {REASON}")


def test_missing_binding_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(EngineStartError, match=r"pip install 'labelmint\[service,gpu\]'") as caught:
        CudaDevice()
    assert caught.value.field == "provider"


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has NVIDIA's driver")
def test_missing_driver_stops_the_start() -> None:
    pytest.importorskip("cuda.bindings.driver", reason="the binding is part of the extra gpu")
    with pytest.raises(EngineStartError, match=r"NVIDIA's driver is not to be found .*choose provider 'cpu'") as caught:
        CudaDevice()
    assert caught.value.field == "provider"


@pytest.mark.parametrize("error", [IntegrityError("altered"), EngineRunError("failed"), KeyboardInterrupt()])
def test_device_is_freed_whatever_keeps_its_engine_from_starting(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    closed = []

    class Device:
        def __init__(self, _ordinal: int) -> None: ...

        def close(self) -> None:
            closed.append(self)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sessions, "find_provider", lambda _: None)
    monkeypatch.setattr(driver, "CudaDevice", Device)
    monkeypatch.setattr(engine, "GpuEngine", fail)
    with pytest.raises(type(error)):
        load_engine(open_bundle(EMBEDDED_BUNDLE, verify_files=False), EngineChoice(engine="fused", provider="cuda"))
    assert len(closed) == 1


@pytest.mark.gpu
@needs_gpu
def test_bytes_come_back_as_they_went() -> None:
    device = CudaDevice()
    try:
        content = np.random.default_rng(0).integers(0, 256, (1000, 77)).astype(np.uint8)
        array = upload(device, content)
        assert array.address % 256 == 0
        assert np.array_equal(download(device, array), content)
        device.zero(array.address, 770)
        assert not download(device, array)[:10].any()
    finally:
        device.close()


@pytest.mark.gpu
@needs_gpu
def test_copy_waits_for_what_it_copies() -> None:
    device = CudaDevice()
    try:
        source, target = (upload(device, np.full(2**24, value, np.uint8)) for value in (1, 2))
        pinned, event = device.allocate_pinned(2**24), device.make_event()
        for _ in range(50):
            device.copy_within(source.address, target.address, source.num_bytes)
        device.record(event, device.compute)
        device.let_wait(device.copies, event)
        device.copy_out(target.address, pinned)
        done = device.make_event()
        device.record(done, device.copies)
        device.wait(done)
        assert (pinned == 1).all()
        assert device.elapsed_ns(event, done) > 0
    finally:
        device.close()


@pytest.mark.gpu
@needs_gpu
def test_memory_that_there_is_not_is_said() -> None:
    device = CudaDevice()
    try:
        with pytest.raises(EngineStartError, match=r"CUDA_ERROR_OUT_OF_MEMORY for .* bytes; use a smaller batch"):
            device.allocate(2**50)
    finally:
        device.close()


@pytest.mark.gpu
@needs_gpu
def test_failed_call_is_an_error_of_the_run() -> None:
    device = CudaDevice()
    try:
        with pytest.raises(EngineRunError, match="the CUDA driver answers cuMemsetD8Async with CUDA_ERROR"):
            device.zero(1, 2**40)
    finally:
        device.close()
