"""Settings of what an operator watches: metrics, traces, logs; part of the server's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings


class WatchingSettings(BaseSettings):
    """What is told of the server, and where."""

    metrics: bool = Field(default=True, description="Serve Prometheus metrics over HTTP.")
    metrics_host: str = Field(default="127.0.0.1", min_length=1, description="Address of the metrics.")
    metrics_port: int = Field(default=9464, ge=0, le=65535, description="Port of the metrics; 0 for any.")
    tracing: bool = Field(
        default=False,
        description="Send traces by OTLP over gRPC. The variables OTEL_* say what the settings below do not.",
    )
    tracing_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+/?$",
        description="URL of the collector of traces, such as http://collector:4317.",
    )
    tracing_ratio: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Part of the calls that are traced, of those whose caller did not decide.",
    )
    profile: bool = Field(
        default=False,
        description="Print where the time went, by stage, when the server stops.",
    )
    ready_file: Path | None = Field(
        default=None,
        description="File that is written, whole, once the server is ready: JSON with address, metrics and models.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["text", "json"] = Field(default="text", description="Form of the log lines on stderr.")

    @model_validator(mode="after")
    def _check_tracing(self) -> Self:
        for name in ("tracing_endpoint", "tracing_ratio"):
            if getattr(self, name) is not None and not self.tracing:
                raise PydanticCustomError(
                    name, f"{name} is set, but tracing is off; switch it on too, or leave {name} out"
                )
        return self
