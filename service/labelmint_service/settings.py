"""Settings of the server: flags over environment over file over defaults, checked once at the start.

Each setting is one field below. `max_streams` is the flag `--max-streams`, the variable `LABELMINT_SERVE_MAX_STREAMS`
and the key `max_streams` of the TOML or JSON file that `--config` or `LABELMINT_SERVE_CONFIG` names. Unknown flags,
variables with that prefix and keys are errors.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from labelmint.hosts import is_loopback
from labelmint_service.errors import SettingsError
from labelmint_service.repository_settings import RepositorySettings

ENV_PREFIX = "LABELMINT_SERVE_"
EMBEDDED_BUNDLE = Path(__file__).parent / "bundles" / "toonhead"
"""The bundle that the package brings along."""

_MIB = 2**20
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ServiceSettings(RepositorySettings):
    """Everything an operator may choose. Frozen; units are in the names."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    bundle: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(EMBEDDED_BUNDLE,),
        min_length=1,
        description="Folder of a bundle to serve. As a flag repeatable, as a variable separated like PATH.",
    )
    verify_files: bool = Field(default=True, description="Compare the sha256 of each bundle file before serving it.")
    expect_digest: Annotated[tuple[_Digest, ...], NoDecode] = Field(
        default=(),
        description="Digest that a bundle must have: one for each bundle, in their order. Repeatable as bundle is.",
    )
    engine: Literal["onnxruntime", "fused"] = Field(
        default="onnxruntime",
        description="onnxruntime runs the graphs as they are; fused runs the interpreter in a kernel of its own.",
    )
    kernel: Literal["auto", "avx2", "avx512", "avx512bf16"] = Field(
        default="auto",
        description="Form of the fused kernel on a processor. auto: the fastest whose labels agree with float32.",
    )
    provider: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="What the engine runs on. It runs there or the server does not start.",
    )
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
    max_streams: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Most Generate and Label streams of one model at a time; more get RESOURCE_EXHAUSTED.",
    )
    max_waiting_streams: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Most streams of all models together that may wait for their turn at an engine; more get "
        "RESOURCE_EXHAUSTED, with the time after which to try again.",
    )
    max_wait_s: float = Field(
        default=60.0,
        gt=0.0,
        le=86400.0,
        description="Longest time that a new stream may have to wait for its first sample; beyond it the stream gets "
        "RESOURCE_EXHAUSTED.",
    )
    stream_queue_batches: int = Field(
        default=3,
        ge=2,
        le=64,
        description="Engine batches of samples that one stream may have in work or waiting for its reader.",
    )
    encode_threads: int = Field(default=2, ge=1, le=256, description="Threads that score and encode samples.")
    progress_interval_s: float = Field(
        default=2.0,
        gt=0.0,
        le=3600.0,
        description="Time between empty messages while a filter rejects everything.",
    )
    first_message_timeout_s: float = Field(
        default=30.0,
        gt=0.0,
        le=3600.0,
        description="Time that a call has for its first message; one without is no stream yet.",
    )
    max_message_bytes: int = Field(
        default=256 * _MIB,
        ge=_MIB,
        le=2**31 - 1,
        description="Largest output.max_message_bytes a request may ask for.",
    )
    shared_memory_folder: Path | None = Field(
        default=None,
        description="Folder in which callers on this machine may name files for RAW arrays, such as /dev/shm.",
    )
    max_request_bytes: int = Field(
        default=16 * _MIB,
        ge=65536,
        le=2**31 - 1,
        description="Largest request message; latents for Label arrive in these.",
    )
    grace_s: float = Field(
        default=20.0,
        ge=0.0,
        le=3600.0,
        description="Time that streams get to end when the server is told to stop.",
    )
    engine_timeout_s: float = Field(
        default=120.0,
        gt=0.0,
        le=3600.0,
        description="Time that a run of an engine may take; one that takes longer ends the server.",
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

    @field_validator("bundle", "expect_digest", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(os.pathsep)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_repository(self) -> Self:
        """What the settings of the repository ask of the others, and these of them."""
        if self.model_repository is not None:
            for name in ("bundle", "expect_digest"):
                if name in self.model_fields_set:
                    raise PydanticCustomError(
                        name,
                        f"{name} is set beside model_repository, which says what is served; leave one of them out, or "
                        "put the bundle into the repository",
                    )
        if self.devices and self.provider == "cpu":
            raise PydanticCustomError(
                "devices", f"devices is {self.devices}, but provider is 'cpu', which has none; choose provider 'cuda'"
            )
        is_open = self.tokens is None or self.tls_certificate is None
        if self.admin_port is not None and is_open and not is_loopback(self.admin_host):
            raise PydanticCustomError(
                "admin_host",
                f"admin_host is {self.admin_host!r}, where only tokens over TLS keep others out; give tokens, "
                "tls_certificate and tls_key, or leave it on loopback",
            )
        return self

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """What one setting asks of another. The type of an error names the setting at fault."""
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
        for name in ("tracing_endpoint", "tracing_ratio"):
            if getattr(self, name) is not None and not self.tracing:
                raise PydanticCustomError(
                    name, f"{name} is set, but tracing is off; switch it on too, or leave {name} out"
                )
        if self.quota_file is not None and self.tokens is None:
            raise PydanticCustomError(
                "quota_file",
                "quota_file is set without tokens, so that no client has a quota; give tokens or leave it out",
            )
        if self.expect_digest and len(self.expect_digest) != len(self.bundle):
            raise PydanticCustomError(
                "expect_digest",
                f"expect_digest has {len(self.expect_digest)} digests for {len(self.bundle)} bundles; give one for "
                "each, in the same order, or none",
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructing settings reads nothing; load_settings merges the sources and remembers which value is whose."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def load_settings(argv: Sequence[str]) -> ServiceSettings:
    """Read flags, environment and file.

    Args:
        argv: Command line without the program's name.

    Raises:
        SettingsError: A value is out of range, a key or variable is unknown, or the file cannot be read.
        SystemExit: Help was asked for, or a flag is unknown.
    """
    flags = vars(_make_parser().parse_args(argv))
    config = flags.pop("config", None) or os.environ.get(f"{ENV_PREFIX}CONFIG")
    values: dict[str, Any] = {}  # Any: unchecked input of every type
    origins: dict[str, str] = {}
    for given, origin in (
        (_read_file(Path(config)) if config else {}, f"file {config}"),
        (_read_environment(), "environment"),
        (flags, "flag"),
    ):
        values.update(given)
        origins.update(dict.fromkeys(given, origin))
    try:
        return ServiceSettings(**values)
    except ValidationError as error:
        raise _settings_error(error, origins) from error


def _read_environment() -> dict[str, Any]:  # Any: unchecked input
    known = {f"{ENV_PREFIX}{name.upper()}" for name in ServiceSettings.model_fields} | {f"{ENV_PREFIX}CONFIG"}
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            raise SettingsError(
                f"environment variable {name} is set, expected one of the settings{_nearest(name, known)}; "
                "unset it or correct its name",
                field=name,
            )
    return EnvSettingsSource(ServiceSettings)()


def _read_file(path: Path) -> dict[str, Any]:  # Any: unchecked input
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:  # UnicodeDecodeError, JSONDecodeError, TOMLDecodeError are ValueErrors
        raise SettingsError(
            f"configuration file {path} cannot be read ({error}); give a TOML file, or JSON with the suffix .json",
            field="config",
        ) from error
    if not isinstance(content, dict):
        raise SettingsError(f"configuration file {path} holds no table of settings; see --help", field="config")
    return content


def _settings_error(error: ValidationError, origins: Mapping[str, str]) -> SettingsError:
    lines = []
    for problem in error.errors():
        if not problem["loc"]:  # of several settings together
            lines.append(problem["msg"])
            continue
        name = str(problem["loc"][0])
        origin = origins.get(name, "defaults")
        if problem["type"] == "extra_forbidden":
            nearest = _nearest(name, ServiceSettings.model_fields)
            lines.append(f"{name} (from {origin}) is no setting{nearest}; remove it or correct its name")
        else:
            lines.append(f"{name} is {problem['input']!r} (from {origin}): {problem['msg']}; see --help")
    first = error.errors()[0]
    return SettingsError("\n".join(lines), field=str(first["loc"][0] if first["loc"] else first["type"]))


def _nearest(name: str, known: Collection[str]) -> str:
    matches = difflib.get_close_matches(name, sorted(known), n=1)
    return f", perhaps {matches[0]}" if matches else ""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labelmint-serve",
        description="Serve labelled samples of one or more bundles over gRPC.",
        epilog=f"Flags go before environment variables, those before the file, that before the defaults. "
        f"Example: labelmint-serve --port 0 --bundle ./my-bundle; {ENV_PREFIX}PORT=8500 labelmint-serve. "
        "`labelmint-serve new-token NAME` makes a token and its entry for the file of tokens.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="PATH",
        help=f"TOML or JSON file with settings, keys as the flags with underscores (variable {ENV_PREFIX}CONFIG)",
    )
    for name, field in ServiceSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = ServiceSettings.model_fields[name].default
        shown = "the embedded toonhead" if name == "bundle" else "none" if default in {None, ()} else default
        text = f"{field.description} (default: {shown}; variable {ENV_PREFIX}{name.upper()})".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif get_origin(field.annotation) is tuple:
            metavar = {"bundle": "PATH", "load": "MODEL", "devices": "N"}.get(name, "DIGEST")
            parser.add_argument(flag, action="append", metavar=metavar, help=text)
        else:
            parser.add_argument(flag, metavar=_metavar(field.annotation), help=text)
    return parser


def _metavar(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    kinds = {annotation, *get_args(annotation)}  # a kind, or a kind or None
    if kinds & {int, float}:
        return "N"
    return "TEXT" if str in kinds else "PATH"
