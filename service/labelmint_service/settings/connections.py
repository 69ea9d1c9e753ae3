"""Settings of connections: where to listen, who may call, what one caller may hold; part of the server's."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings

from labelmint.hosts import is_loopback

_MIB = 2**20


class ConnectionSettings(BaseSettings):
    """Where to listen, who may call, and what bounds connections."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. With tokens, another than loopback needs TLS.",
    )
    port: int = Field(default=50051, ge=0, le=65535, description="Port to listen on; 0 lets the system choose one.")
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the server's certificate chain: turns TLS on. Read again when it changes.",
    )
    tls_key: Path | None = Field(default=None, description="PEM file of its private key, without a passphrase.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of roots: only callers with a certificate that leads to one of them may connect.",
    )
    tokens: Path | None = Field(
        default=None,
        description="TOML or JSON file of clients with their tokens and limits: calls need a token. Read again when "
        "it changes.",
    )
    quota_file: Path | None = Field(
        default=None,
        description="File that keeps what clients have used of their samples_per_day.",
    )
    max_request_bytes: int = Field(
        default=4 * _MIB,
        ge=65536,
        le=2**31 - 1,
        description="Largest request message; latents for Label arrive in these.",
    )
    keepalive_time_s: float = Field(
        default=60.0,
        ge=1.0,
        le=7200.0,
        description="Quiet time after which a connection is pinged.",
    )
    keepalive_timeout_s: float = Field(
        default=20.0,
        ge=1.0,
        le=3600.0,
        description="Time after a ping until a silent connection is closed.",
    )
    handshake_timeout_s: float = Field(
        default=20.0,
        ge=0.1,
        le=3600.0,
        description="Time that a new connection has until it speaks HTTP/2 (and TLS, if that is on).",
    )
    connection_idle_s: float = Field(
        default=300.0,
        ge=1.0,
        le=86400.0,
        description="Time without a call after which a connection is closed; clients connect again when they call.",
    )
    max_connections: int = Field(
        default=2000,
        ge=1,
        le=1_000_000,
        description="Most connections at a time; more are closed at once.",
    )
    max_connection_calls: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Most calls of one connection at a time; its caller holds more back.",
    )

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        """What one of them asks of another. The type of an error names the setting at fault."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, missing = ("tls_certificate", "tls_key") if self.tls_certificate else ("tls_key", "tls_certificate")
            raise PydanticCustomError(missing, f"{missing} is missing, but {given} is set; give both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise PydanticCustomError(
                "tls_client_ca",
                "tls_client_ca is set without TLS; give tls_certificate and tls_key too, or leave it out",
            )
        if self.tokens is not None and self.tls_certificate is None and not is_loopback(self.host):
            raise PydanticCustomError(
                "tokens",
                f"tokens is set and host is {self.host!r}, where tokens would be sent in plain text over a network; "
                "give tls_certificate and tls_key, or listen on loopback",
            )
        if self.quota_file is not None and self.tokens is None:
            raise PydanticCustomError(
                "quota_file",
                "quota_file is set without tokens, so that no client has a quota; give tokens or leave it out",
            )
        return self
