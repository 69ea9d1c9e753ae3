"""Traces: what became of each call, stage by stage. Off unless asked for; `telemetry` sends them by OpenTelemetry."""
