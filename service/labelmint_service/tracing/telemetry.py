"""Traces by OpenTelemetry, sent with OTLP over gRPC from a thread of their own.

Each call is a span, below that of its caller if the metadata `traceparent` names one, and above a span for each stage.
Each batch that holds rows of a call whose trace is kept is the root of a trace of its own, linked to these calls.
What the settings do not say, the standard variables OTEL_* do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from labelmint_service.tracing.calls import AttributeValue, CallTrace, Metadata, TracedRows

MOST_STAGES = 400
"""Stages of one call that are sent; an endless stream has endlessly many."""
_CLOSE_S = 3.0
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
# Those for which the server is to blame, by OpenTelemetry's conventions for gRPC.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class TelemetryTracing:
    """See Tracing.

    Args:
        endpoint: URL of the collector, http or https; None for what OTEL_EXPORTER_OTLP_ENDPOINT says.
        ratio: Part of the calls to trace whose caller does not say whether they are; None for what OTEL_TRACES_SAMPLER
            says.

    Raises:
        Exception: A variable OTEL_* cannot be used; of which class, the library decides.
    """

    def __init__(self, *, endpoint: str | None = None, ratio: float | None = None) -> None:
        for name in _PROTOCOL_VARIABLES:
            if os.environ.get(name, "grpc") != "grpc":
                raise ValueError(f"{name} is {os.environ[name]!r}, expected 'grpc', which is all that is spoken here")
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        self._calls = self._make_tracer(None if ratio is None else ParentBased(TraceIdRatioBased(ratio)))
        # Whether a batch is sent follows from its calls, which were sampled already.
        self._batches = self._make_tracer(ALWAYS_ON)
        self._propagator = TraceContextTextMapPropagator()

    def begin_call(self, service: str, rpc: str, request_id: str, metadata: Metadata) -> CallTrace:
        """Begin to trace a call; see Tracing."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        span = self._calls.start_span(
            f"{service}/{rpc}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": rpc,
                "labelmint.request_id": request_id,
            },
        )
        return _TelemetryCall(self._calls, span)

    def add_batch(
        self,
        model: str,
        parts: Sequence[TracedRows],
        began_ns: int,
        ended_ns: int,
        stages_ns: Mapping[str, int],
        error: BaseException | None = None,
    ) -> None:
        """Say that the engine has run a batch; see Tracing."""
        traced = [(part, trace) for part in parts if isinstance(trace := part.stream.trace, _TelemetryCall)]
        kept = [(part, trace) for part, trace in traced if trace.is_kept]
        if not kept:
            return
        span = self._batches.start_span(
            "batch",
            kind=SpanKind.INTERNAL,
            start_time=_wall_ns(began_ns),
            links=[Link(trace.context, _describe_rows(part)) for part, trace in kept],
            attributes={
                "labelmint.model": model,
                "labelmint.rows": sum(len(part.indices) for part in parts),
                "labelmint.streams": len({id(part.stream) for part in parts}),
                **{f"labelmint.stage.{stage}_s": duration_ns / 1e9 for stage, duration_ns in stages_ns.items()},
            },
        )
        if error is not None:
            _record(span, error, type(error).__name__)
        span.end(_wall_ns(ended_ns))
        link = Link(span.get_span_context())
        for part, trace in kept:
            if part.waited_ns:
                trace.add_stage("turn", part.taken_ns - part.waited_ns, part.taken_ns, rows=len(part.indices))
            trace.add_stage("queue", part.taken_ns, began_ns, rows=len(part.indices))
            trace.add_linked_stage("compute", began_ns, ended_ns, link, error, rows=len(part.indices))

    def close(self) -> None:
        """Send what was not sent yet; see Tracing."""
        ending = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(_CLOSE_S)
        if ending.is_alive():
            self._exporter.shutdown()
            ending.join(_CLOSE_S)

    def _make_tracer(self, sampler: Sampler | None) -> Tracer:
        provider = TracerProvider(sampler=sampler, resource=_make_resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer("labelmint_service", version("labelmint"))


class _TelemetryCall:
    """See CallTrace.

    Args:
        tracer: Makes the spans of the stages.
        span: Of the call.

    Attributes:
        context: Of the span.
        is_kept: Whether the trace is sent.
    """

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._above = set_span_in_context(span)
        self._num_stages = 0
        self.context: SpanContext = span.get_span_context()
        self.is_kept = span.is_recording()
        trace_id = f"{self.context.trace_id:032x}"
        self.log_fields: Mapping[str, str] = {"trace_id": trace_id, "span_id": f"{self.context.span_id:016x}"}
        self.exemplar: dict[str, str] | None = {"trace_id": trace_id} if self.is_kept else None

    def describe(self, **attributes: AttributeValue) -> None:
        """Say more of the call; see CallTrace."""
        self._span.set_attributes(_named(attributes))

    def add_stage(self, stage: str, began_ns: int, ended_ns: int, **attributes: AttributeValue) -> None:
        """Say that a stage is over; see CallTrace."""
        self._add(stage, began_ns, ended_ns, (), None, attributes)

    def add_linked_stage(
        self, stage: str, began_ns: int, ended_ns: int, link: Link, error: BaseException | None, rows: int
    ) -> None:
        """Say that a stage is over that a batch was part of."""
        self._add(stage, began_ns, ended_ns, (link,), error, {"rows": rows})

    def end(self, code: str, error: BaseException | None) -> None:
        """Say that the call is over; see CallTrace."""
        self._span.set_attribute("rpc.response.status_code", code)
        if self._num_stages > MOST_STAGES:
            self._span.set_attribute("labelmint.stages_not_sent", self._num_stages - MOST_STAGES)
        if error is not None:
            self._span.record_exception(error)
        if code in _FAULTS:
            self._span.set_attribute("error.type", code)
            self._span.set_status(Status(StatusCode.ERROR, str(error) if error is not None else code))
        self._span.end()

    def _add(
        self,
        stage: str,
        began_ns: int,
        ended_ns: int,
        links: Sequence[Link],
        error: BaseException | None,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        if not self.is_kept:
            return
        self._num_stages += 1
        if self._num_stages > MOST_STAGES:
            return
        span = self._tracer.start_span(
            stage,
            context=self._above,
            start_time=_wall_ns(began_ns),
            links=links,
            attributes=_named(attributes),
        )
        if error is not None:
            _record(span, error, type(error).__name__)
        span.end(_wall_ns(ended_ns))


def _record(span: Span, error: BaseException, kind: str) -> None:
    span.record_exception(error)
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _named(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {f"labelmint.{name}": value for name, value in attributes.items()}


def _describe_rows(part: TracedRows) -> dict[str, AttributeValue]:
    # Indices are uint64, which OTLP's integers do not hold.
    return {
        "labelmint.request_id": part.stream.request_id,
        "labelmint.rows": len(part.indices),
        "labelmint.first_index": str(part.indices[0]),
        "labelmint.last_index": str(part.indices[-1]),
    }


def _wall_ns(counter_ns: int) -> int:
    """The time of day that belongs to a time of time.perf_counter_ns()."""
    return counter_ns + time.time_ns() - time.perf_counter_ns()


def _make_resource() -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and the package's own name where they say none."""
    resource = Resource.create()
    own: dict[str, str] = {}
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        own[SERVICE_NAME] = "labelmint"
    if SERVICE_VERSION not in resource.attributes:
        own[SERVICE_VERSION] = version("labelmint")
    return resource.merge(Resource(own))
