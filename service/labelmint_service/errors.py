"""Errors of the service.

LabelmintError                    root of the contract
└── ServiceError
    ├── SettingsError             a flag, variable or configuration file that cannot be used
    ├── StartError                a port, bundle or engine that keeps the server from starting
    │   ├── StuckStartError       the same, and a thread is left that may never end
    │   ├── EngineStartError      the engine that was asked for cannot run this bundle here
    │   ├── ModelMemoryError      a model needs more memory than it may have
    │   ├── LoadTimeoutError      a bundle is not loaded and warm in time
    │   ├── VersionFolderError    a folder of the model repository holds what it should not, or nothing
    │   └── AccessFileError       a certificate, a file of tokens or one of quotas cannot be used
    ├── UnauthenticatedError      a token is missing, unknown, expired or was withdrawn
    ├── ModelForbiddenError       the caller's token does not open this model
    ├── RequestError              a request field is missing, out of range or contradicts another
    ├── AdminForbiddenError       the caller's token does not open the admin service
    ├── ModelNotFoundError        no model or version of that name is served
    ├── ModelNotReadyError        the version is there, but not ready (yet)
    ├── RepositoryStateError      as things stand, the repository cannot do what an operator asks
    ├── PinMismatchError          the served bundle or numerics is not the one the request pins
    ├── ScanLimitError            a stream scanned max_scanned indices without reaching its limit
    ├── StreamLimitError          the server runs as many streams as it may
    ├── QueueFullError            so many streams wait for the engine that another would wait too long
    ├── QuotaError                the client has used up a limit of its own
    ├── QuotaStoreError           what a client uses cannot be written down, so nothing is handed out
    ├── LateError                 the caller's deadline has passed
    ├── StalledError              the caller took or sent nothing for too long; the stream can be taken up again
    ├── DrainingError             the server is going away; the stream can be taken up elsewhere
    ├── EngineRunError            a run failed; nothing of it was sent
    │   └── EngineMemoryError     because memory ran out
    ├── EngineLostError           a run does not end, so the server has to
    └── NonFiniteSampleError      one sample came out non-finite; it was not sent

Every error may carry `next_index`, the index at which the stream can be taken up again. Errors that pass by themselves
carry `retry_after_s`.
"""

from __future__ import annotations

from labelmint.errors import LabelmintError


class ServiceError(LabelmintError):
    """Base class of every error that labelmint_service raises on purpose.

    Attributes:
        field: Request or settings field at fault; empty if there is none.
        next_index: Where the stream can be taken up again; None if it cannot or if there is no stream.
        retry_after_s: Seconds after which another try may succeed; None if time alone does not help, or nobody knows.
    """

    retry_after_s: float | None = None

    def __init__(self, message: str, *, field: str = "", next_index: int | None = None) -> None:
        super().__init__(message, field=field)
        self.next_index = next_index


class SettingsError(ServiceError):
    """A flag, an environment variable or the configuration file cannot be used."""


class StartError(ServiceError):
    """The server cannot start."""


class StuckStartError(StartError):
    """The server cannot start, and a thread of the process is left that may never end."""


class EngineStartError(StartError):
    """The engine that was asked for cannot run the bundle on this machine."""


class ModelMemoryError(StartError):
    """A model needs more memory than it may have."""


class LoadTimeoutError(StartError):
    """A bundle is not loaded and warm in time; the thread that loads it cannot be ended."""

    def __init__(self, what: str, limit_s: float) -> None:
        super().__init__(
            f"{what} was not loaded and warm after {limit_s:g} s; look at device, driver and disk, or raise "
            "load_timeout_s",
            field="load_timeout_s",
        )


class VersionFolderError(StartError):
    """A folder of the model repository holds what it should not, or nothing; or the folder itself cannot be used."""


class AccessFileError(StartError):
    """A certificate, a file of tokens or one of quotas cannot be used.

    When it was read again because it had changed, the one before it stays in force.
    """


class UnauthenticatedError(ServiceError):
    """A token is missing, unknown, expired or was withdrawn."""


class ModelForbiddenError(ServiceError):
    """The model is served, but not to this client."""


class RequestError(ServiceError):
    """A request field is missing, out of range or contradicts another."""


class AdminForbiddenError(ServiceError):
    """The client may call, but not the admin service."""


class ModelNotFoundError(ServiceError):
    """No model or version of that name is served."""


class ModelNotReadyError(ServiceError):
    """The version that was asked for is in the repository, but not ready."""

    def __init__(self, message: str, *, field: str, is_coming: bool) -> None:
        super().__init__(message, field=field)
        self.retry_after_s = 5.0 if is_coming else None  # a guess: nobody knows how long a load takes


class RepositoryStateError(ServiceError):
    """As things stand, the model repository cannot do what an operator asks."""


class PinMismatchError(ServiceError):
    """The request pins a digest or numerics id that is not the served one."""


class ScanLimitError(ServiceError):
    """The stream scanned max_scanned indices without reaching its limit."""


class StreamLimitError(ServiceError):
    """The server runs as many streams as it may."""

    retry_after_s = 1.0  # a guess: nobody knows when a stream ends


class QueueFullError(ServiceError):
    """So many streams wait for an engine that another would have to wait for too long."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaError(ServiceError):
    """The client has used up a limit of its own.

    Attributes:
        client: Name of the client.
        limit: Name of the limit, for example "samples_per_day".
    """

    def __init__(self, message: str, *, client: str, limit: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.client = client
        self.limit = limit
        self.retry_after_s = retry_after_s


class QuotaStoreError(ServiceError):
    """What a client uses cannot be written down, so that nothing is handed out to it."""

    retry_after_s = 1.0


class LateError(ServiceError):
    """The deadline of the call has passed before the work was done."""


class StalledError(ServiceError):
    """The caller of a stream took none of its messages, or sent none of its latents, for too long."""


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
