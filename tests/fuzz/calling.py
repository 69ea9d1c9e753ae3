"""Sends cases to a server, many at a time, and judges each."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil

from labelmint.v1 import service_pb2
from tests.fuzz.generating import MODELS, Case
from tests.fuzz.judging import Outcome, judge
from tests.service.calls import EVERY_FIELD, describe_failure, make_request

IN_FLIGHT = 8
HANG_S = 120.0
MOST_REPLIES = 3
"""After so many a stream is left: many would never end."""
NUM_PROBES = 40
"""Times at which the server's memory is looked at."""

_PATH = "/labelmint.v1.LabelMint/"
_GOLDEN = make_request(max_accepted=9, output=service_pb2.OutputOptions(fields=EVERY_FIELD))


class Caller:
    """Calls a server over one connection.

    Args:
        channel: To it.
        describe: Says how to make a case again.

    Attributes:
        outcomes: How often calls of each method ended how.
    """

    def __init__(self, channel: grpc.Channel, describe: Callable[[Case], str]) -> None:
        # Every method can be called as a stream, which allows for several messages or none.
        self._calls = {
            method: channel.stream_stream(f"{_PATH}{method}", request_serializer=None, response_deserializer=None)
            for method in ("ListModels", "GetModel", "Generate", "Label")
        }
        self._describe = describe
        self._models = {name: self._describe_model(name) for name in MODELS}
        self.outcomes: collections.Counter[str] = collections.Counter()

    def run(self, cases: Iterable[Case], process: psutil.Process, count: int) -> list[int]:
        """Call with every case and judge; gives the server's resident bytes over time."""
        memory: list[int] = []
        waiting, lock = enumerate(cases), threading.Lock()
        is_over = threading.Event()

        def work() -> None:
            try:
                while not is_over.is_set():
                    with lock:
                        place, case = next(waiting, (0, None))
                    if case is None:
                        return
                    self._try(case)
                    if not place % max(1, count // NUM_PROBES):
                        memory.append(process.memory_info().rss)
            finally:
                is_over.set()

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for future in [pool.submit(work) for _ in range(IN_FLIGHT)]:
                future.result()
        return memory

    def golden(self) -> list[bytes]:
        """The samples of a sound request, as bytes without the times."""
        outcome = self._call(Case(number=0, method="Generate", payloads=(_GOLDEN.SerializeToString(),)))
        assert outcome.code == "OK", outcome
        batches = [service_pb2.SampleBatch.FromString(reply) for reply in outcome.replies]
        for batch in batches:
            batch.ClearField("times")
        return [batch.SerializeToString(deterministic=True) for batch in batches]

    def _describe_model(self, name: str) -> service_pb2.GetModelResponse:
        request = service_pb2.GetModelRequest(model=name)
        outcome = self._call(Case(number=0, method="GetModel", payloads=(request.SerializeToString(),)))
        return service_pb2.GetModelResponse.FromString(outcome.replies[0])

    def _try(self, case: Case) -> None:
        outcome = self._call(case)
        try:
            self.outcomes[f"{case.method} {judge(case, outcome, self._models)}"] += 1
        except AssertionError as error:
            raise AssertionError(f"{self._describe(case)}: {error}") from error

    def _call(self, case: Case) -> Outcome:
        """Make one call; a stream that goes on and on is left."""
        call = self._calls[case.method](iter(case.payloads), timeout=HANG_S)
        replies: list[bytes] = []
        try:
            for reply in call:
                replies.append(reply)
                if len(replies) > MOST_REPLIES:
                    call.cancel()  # type: ignore[no-untyped-call]  # the stubs lack its type
                    return Outcome(code="", text="", detail=None, replies=tuple(replies))
        except grpc.RpcError as error:
            failure = describe_failure(error)
            return Outcome(code=failure.code, text=failure.text, detail=failure.detail, replies=tuple(replies))
        return Outcome(code="OK", text="", detail=None, replies=tuple(replies))
