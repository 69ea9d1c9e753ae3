"""Opens the tracing that the settings ask for."""

from __future__ import annotations

from labelmint_service.errors import StartError
from labelmint_service.tracing.calls import UNTRACED, Tracing


def open_tracing(*, is_on: bool, endpoint: str | None, ratio: float | None) -> Tracing:
    """Open it.

    Args:
        is_on: Whether anything is traced.
        endpoint: URL of the collector; None for what OTEL_EXPORTER_OTLP_ENDPOINT says.
        ratio: Part of the calls to trace; None for what OTEL_TRACES_SAMPLER says.

    Raises:
        StartError: OpenTelemetry is not installed, or a variable of it cannot be used.
    """
    if not is_on:
        return UNTRACED
    try:
        from labelmint_service.tracing.telemetry import TelemetryTracing  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise StartError(
            f"tracing is on, but OpenTelemetry cannot be imported ({error}); run: pip install 'labelmint[tracing]', or "
            "leave tracing off",
            field="tracing",
        ) from error
    try:
        return TelemetryTracing(endpoint=endpoint, ratio=ratio)
    except Exception as error:
        # The library raises what it likes at a variable that it cannot read, also a plain Exception.
        raise StartError(
            f"tracing is on, but OpenTelemetry does not start ({error}); correct or unset the variables OTEL_*",
            field="tracing",
        ) from error
