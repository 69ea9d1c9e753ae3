"""Errors of the service.

LabelmintError                    root of the contract
└── ServiceError
    ├── SettingsError             a flag, variable or configuration file that cannot be used
    ├── StartError                a port, bundle or engine that keeps the server from starting
    │   └── EngineStartError      the engine that was asked for cannot run this bundle here
    ├── RequestError              a request field is missing, out of range or contradicts another
    ├── ModelNotFoundError        no model of that name is served
    ├── PinMismatchError          the served bundle or numerics is not the one the request pins
    ├── ScanLimitError            a stream scanned max_scanned indices without reaching its limit
    ├── StreamLimitError          the server runs as many streams as it may
    ├── LateError                 the caller's deadline has passed
    ├── DrainingError             the server is going away; the stream can be taken up elsewhere
    ├── EngineRunError            a run failed; nothing of it was sent
    │   └── EngineMemoryError     because memory ran out
    ├── EngineLostError           a run does not end, so the server has to
    └── NonFiniteSampleError      one sample came out non-finite; it was not sent

Every error may carry `next_index`, the index at which the stream can be taken up again.
"""

from __future__ import annotations

from labelmint.errors import LabelmintError


class ServiceError(LabelmintError):
    """Base class of every error that labelmint_service raises on purpose.

    Attributes:
        field: Request or settings field at fault; empty if there is none.
        next_index: Where the stream can be taken up again; None if it cannot or if there is no stream.
    """

    def __init__(self, message: str, *, field: str = "", next_index: int | None = None) -> None:
        super().__init__(message, field=field)
        self.next_index = next_index


class SettingsError(ServiceError):
    """A flag, an environment variable or the configuration file cannot be used."""


class StartError(ServiceError):
    """The server cannot start."""


class EngineStartError(StartError):
    """The engine that was asked for cannot run the bundle on this machine."""


class RequestError(ServiceError):
    """A request field is missing, out of range or contradicts another."""


class ModelNotFoundError(ServiceError):
    """No model of that name is served."""


class PinMismatchError(ServiceError):
    """The request pins a digest or numerics id that is not the served one."""


class ScanLimitError(ServiceError):
    """The stream scanned max_scanned indices without reaching its limit."""


class StreamLimitError(ServiceError):
    """The server runs as many streams as it may."""


class LateError(ServiceError):
    """The deadline of the call has passed before the work was done."""


class DrainingError(ServiceError):
    """The server is going away."""


class EngineRunError(ServiceError):
    """A run of the engine failed or gave arrays that do not fit the manifest."""


class EngineMemoryError(EngineRunError):
    """A run of the engine failed because memory ran out."""


class EngineLostError(ServiceError):
    """A run of the engine does not end."""


class NonFiniteSampleError(ServiceError):
    """A sample has a non-finite image, logit or heatmap."""
