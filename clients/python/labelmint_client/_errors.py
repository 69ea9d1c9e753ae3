"""Errors of the client.

ClientError                       everything labelmint_client raises on purpose
├── InvalidArgumentError          an argument out of range, refused here or by the server (also a ValueError)
├── ModelNotFoundError            the server has no such model
├── PreconditionError             the request is sound but cannot be served as things stand
│   ├── NumericsMismatchError     another engine would compute other last bits
│   ├── ModelChangedError         another bundle is served than the stream began with
│   └── ScanLimitError            max_scanned indices gave too few samples that pass the filter
├── ServerBusyError               so many ask that the server takes no more for now
│   └── QuotaExceededError        a limit of this client's own is reached
├── DeadlineError                 no answer in time
├── ServerUnavailableError        no server could be reached, also after retries
├── AccessError                   credentials are missing or do not suffice
├── ServerFaultError              the server failed; its log has the cause under `request_id`
├── CallCancelledError            the call was cancelled by the other side
├── ProtocolError                 the answer breaks the contract
├── FieldNotRequestedError        an array of a sample that the request left out (also an AttributeError)
├── UsageError                    a closed client, or a stream of another process or event loop
├── MissingDependencyError        a package of an extra is not installed (also an ImportError)
└── OutputError                   a data set, or what a command prints, cannot be written
"""

import grpc

from labelmint.errors import LabelmintError


class ClientError(LabelmintError):
    """Root of every error this package raises on purpose.

    Attributes:
        field: Name of the request field or argument at fault; empty if there is none.
        code: gRPC status the server or the transport answered with; None if nothing was sent.
        request_id: Names the call in the server's log; empty if unknown.
        next_index: Where the stream can be taken up again, if it can.
        retry_after_s: Seconds after which another try may succeed, as the server says; None if it does not.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        code: grpc.StatusCode | None = None,
        request_id: str = "",
        next_index: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.code = code
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.next_index = next_index


class InvalidArgumentError(ClientError, ValueError):
    """An argument is missing, of the wrong type or out of range."""


class ModelNotFoundError(ClientError):
    """The server has no model of this name."""


class PreconditionError(ClientError):
    """The request is sound but cannot be served as things stand."""


class NumericsMismatchError(PreconditionError):
    """The engine is not the one that was asked for, or that the stream began with."""


class ModelChangedError(PreconditionError):
    """The served bundle is not the one that was asked for, or that the stream began with."""


class ScanLimitError(PreconditionError):
    """So many indices were scanned as the request allowed, and too few passed the filter."""


class ServerBusyError(ClientError):
    """So many ask that the server takes no more for now."""


class QuotaExceededError(ServerBusyError):
    """A limit of this client's own is reached, such as its samples of the day."""


class DeadlineError(ClientError):
    """The answer did not come in time."""


class ServerUnavailableError(ClientError):
    """No server could be reached at the address, also after the retries of the policy."""


class AccessError(ClientError):
    """Credentials are missing or do not suffice."""


class ServerFaultError(ClientError):
    """The server failed on its side."""


class CallCancelledError(ClientError):
    """The other side cancelled the call."""


class ProtocolError(ClientError):
    """The answer breaks the contract: wrong addresses, arrays that do not fit, an early end."""


class FieldNotRequestedError(ClientError, AttributeError):
    """The request did not ask for this array."""


class UsageError(ClientError):
    """An object was used where it cannot serve: after close, or in another process or event loop."""


class MissingDependencyError(ClientError, ImportError):
    """A package that this feature needs is not installed."""


class OutputError(ClientError):
    """A data set cannot be written, continued or replaced, or a command cannot print what it has to say."""
