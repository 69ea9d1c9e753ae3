"""The caller's trace goes along, in a program that traces by OpenTelemetry: metadata `traceparent` and `tracestate`."""

import sys

from labelmint_client._security import Metadata, Security


def call_metadata(security: Security) -> Metadata:
    """Make the metadata of a call: token and trace.

    Args:
        security: What makes those of the token.
    """
    return (*security.metadata(), *_trace_context())


def _trace_context() -> Metadata:
    # A program that traces has loaded the library. In others nothing is loaded for it.
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - an optional library
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
