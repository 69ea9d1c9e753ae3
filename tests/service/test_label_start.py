"""Label calls before their first message: no streams yet, they neither stay for ever nor hold up the server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labelmint.addresses import latents
from labelmint.arrays import tensor_from_array
from labelmint.v1.service_pb2 import LabelOptions, LabelRequest
from tests.service.calls import TIMEOUT_S, collect, expect_failure
from tests.serving import serving


class SilentCaller:
    """Requests of a caller that sends nothing until it is released."""

    def __init__(self, *requests: LabelRequest) -> None:
        self._requests = requests
        self._released = threading.Event()

    def __iter__(self) -> Iterator[LabelRequest]:
        self._released.wait(TIMEOUT_S)
        yield from self._requests

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def caller() -> Iterator[SilentCaller]:
    z = latents(7, np.arange(2, dtype=np.uint64), 8)
    silent = SilentCaller(LabelRequest(options=LabelOptions(model="tiny"), z=tensor_from_array(z)))
    yield silent
    silent.release()


def test_call_without_a_message_ends_when_its_time_is_up(bundles: dict[str, Path], caller: SilentCaller) -> None:
    with serving([bundles["tiny"]], first_message_timeout_s=0.05) as running:
        failure = expect_failure(running.stub().Label(iter(caller), timeout=TIMEOUT_S))

    assert failure.code == "DEADLINE_EXCEEDED"
    assert failure.detail is not None
    assert failure.detail.field == "options"
    assert "within 0.05 s" in failure.text


def test_call_without_a_message_does_not_hold_up_a_stop(bundles: dict[str, Path], caller: SilentCaller) -> None:
    with serving([bundles["tiny"]]) as running:
        call = running.stub().Label(iter(caller), timeout=TIMEOUT_S)
        call.initial_metadata()  # the server has begun to wait
        running.stop(grace_s=TIMEOUT_S / 2)
        failure = expect_failure(call)

    assert failure.code == "UNAVAILABLE"
    assert failure.detail is not None, "the call was cut, not ended"


def test_late_first_message_is_served(bundles: dict[str, Path], caller: SilentCaller) -> None:
    with serving([bundles["tiny"]]) as running:
        call = running.stub().Label(iter(caller), timeout=TIMEOUT_S)
        call.initial_metadata()
        caller.release()

        assert collect(call).indices == [0, 1]
