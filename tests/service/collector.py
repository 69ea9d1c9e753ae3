"""A collector of traces: OTLP's TraceService on a real socket, which keeps what it gets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedSpan:
    """A span as it came over the wire.

    Attributes:
        message: All of it.
        resource: Attributes of whose it is.
    """

    message: trace_pb2.Span
    resource: dict[str, Any]  # Any: text, numbers and truth values

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def trace_id(self) -> str:
        return self.message.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.message.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.message.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:  # Any: as above
        return values(self.message.attributes)

    @property
    def links(self) -> dict[str, dict[str, Any]]:  # Any: as above
        """Attributes of each link by the id of the linked span."""
        return {link.span_id.hex(): values(link.attributes) for link in self.message.links}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans.

    Attributes:
        address: host:port.
        headers: Metadata of the last export.
    """

    def __init__(self) -> None:
        self.address = ""
        self.headers: dict[str, str | bytes] = {}
        self._spans: list[CollectedSpan] = []
        self._changed = threading.Condition()

    def Export(  # noqa: N802  # the method is named by the proto
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._changed:
            self.headers = dict(context.invocation_metadata())
            for group in request.resource_spans:
                resource = values(group.resource.attributes)
                for scope in group.scope_spans:
                    self._spans += [CollectedSpan(message=span, resource=resource) for span in scope.spans]
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, name: str = "") -> list[CollectedSpan]:
        """What came, in the order in which the spans began; all of it or what has a name."""
        with self._changed:
            found = [span for span in self._spans if not name or span.name == name]
        return sorted(found, key=lambda span: span.message.start_time_unix_nano)

    def wait_for(self, enough: Callable[[list[CollectedSpan]], bool]) -> list[CollectedSpan]:
        """Wait until what came is enough."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self._spans), WAIT_S), [span.name for span in self._spans]
        return self.spans()


@contextlib.contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    """A collector on a free port of the loopback interface."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    # Generated code has no types.
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    if credentials is None:
        collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        collector.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def values(attributes: Any) -> dict[str, Any]:  # Any: repeated KeyValue; text, numbers and truth values
    """Attributes as a dict."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
