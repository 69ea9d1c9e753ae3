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
└── OutputError                   a data set cannot be written or continued
"""

import re
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from labelmint.errors import LabelmintError
from labelmint.v1 import service_pb2
from labelmint_client._retry_hint import read_retry_hint

ERROR_DETAIL_KEY = "labelmint-error-bin"

# What grpc says when the connection, not the service, ended a call under a code that services use too.
_TRANSPORT_PHRASES = (
    "RST_STREAM",
    "Stream removed",
    "GOAWAY",
    "Connection reset",
    "Broken pipe",
    "EOS on DATA frame",
    "error from Core",
)


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
    """A data set cannot be written, continued or replaced."""


_CLASS_OF_CODE: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerBusyError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.ABORTED: CallCancelledError,
    grpc.StatusCode.UNIMPLEMENTED: ProtocolError,
    grpc.StatusCode.INTERNAL: ServerFaultError,
    grpc.StatusCode.UNKNOWN: ServerFaultError,
    grpc.StatusCode.DATA_LOSS: ServerFaultError,
}

_CLASS_OF_PRECONDITION: dict[str, type[PreconditionError]] = {
    "numerics_id": NumericsMismatchError,
    "digest": ModelChangedError,
    "max_scanned": ScanLimitError,
}


_TOO_LARGE = re.compile(r"(SERVER|CLIENT): (Received|Sent) message larger than max \((\d+) vs\. (\d+)\)")
"""What gRPC says of a message that one side refused: which side, whose message, bytes that it has and may have."""


class FailedCall:
    """How one call ended, read from the status that grpc reports.

    Attributes:
        code: Status code.
        details: Text of the status.
        detail: What the service attached; None if the transport or a stranger ended the call.
        hint: What was said of trying again.
    """

    def __init__(self, error: grpc.RpcError) -> None:
        code: grpc.StatusCode | None = error.code()
        self.code = code or grpc.StatusCode.UNKNOWN
        self.details: str = error.details() or ""
        self.detail = _error_detail(error.trailing_metadata())
        self.hint = read_retry_hint(error.trailing_metadata())

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a moment later, here or at a restarted server."""
        if self.code is grpc.StatusCode.UNAVAILABLE:
            return True
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return self.hint.retry_after_s is not None
        if self.detail is not None:
            return False
        if self.code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED}:
            return True
        if self.code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}:
            return any(phrase in self.details for phrase in _TRANSPORT_PHRASES)
        return False

    def to_error(self, *, address: str, num_attempts: int = 1) -> ClientError:
        """Build the typed error.

        Args:
            address: Server the call went to.
            num_attempts: How often it was tried.
        """
        detail = self.detail or service_pb2.ErrorDetail()
        error_class = _CLASS_OF_CODE.get(self.code, ClientError)
        if error_class is PreconditionError:
            error_class = _CLASS_OF_PRECONDITION.get(detail.field, PreconditionError)
        if error_class is ServerBusyError and self.hint.limits:
            error_class = QuotaExceededError
        if self._too_large:
            error_class = InvalidArgumentError
        return error_class(
            self._message(address, num_attempts),
            field=detail.field,
            code=self.code,
            request_id=detail.request_id,
            next_index=detail.next_index if detail.HasField("next_index") else None,
            retry_after_s=self.hint.retry_after_s,
        )

    @property
    def _too_large(self) -> re.Match[str] | None:
        return _TOO_LARGE.search(self.details) if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED else None

    def _message(self, address: str, num_attempts: int) -> str:
        text = self.details or f"status {self.code.name} without a text"
        tries = "1 attempt" if num_attempts == 1 else f"{num_attempts} attempts"
        match self.code:
            case grpc.StatusCode.UNAVAILABLE if self.detail is None:
                return f"no answer from {address} after {tries}: {text}; is labelmint-serve running there?"
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return f"no answer from {address} in time: {text}; give the client a larger timeout_s"
            case grpc.StatusCode.RESOURCE_EXHAUSTED if refused := self._too_large:
                return _describe_size(refused, address)
            case grpc.StatusCode.UNIMPLEMENTED:
                return f"the server at {address} does not speak labelmint.v1: {text}"
            case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN | grpc.StatusCode.DATA_LOSS:
                where = f", request {self.detail.request_id}" if self.detail and self.detail.request_id else ""
                return f"the server at {address} failed ({self.code.name}{where}): {text}"
            case _:
                hint_s = self.hint.retry_after_s
                if hint_s is not None:
                    text += f" (after {tries}; another may succeed in {_duration(hint_s)})"
                elif self.code is grpc.StatusCode.UNAVAILABLE:
                    text += f" (server {address}, after {tries})"
                return text


def _describe_size(refused: re.Match[str], address: str) -> str:
    side, way, num_bytes, most = refused.groups()
    if (side, way) in {("SERVER", "Received"), ("CLIENT", "Sent")}:
        limit = (
            f"max_request_bytes of the server at {address}" if side == "SERVER" else "max_receive_bytes of the client"
        )
        return f"the request has {num_bytes} bytes, expected at most {most}: send less at a time, or raise {limit}"
    return (
        f"a message from {address} has {num_bytes} bytes, expected at most {most}: raise max_receive_bytes of the "
        "client or lower max_message_bytes of the request"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _error_detail(metadata: Iterable[Any] | None) -> service_pb2.ErrorDetail | None:
    # Any: the entries are pairs of text and text or bytes, of a class that differs between grpc and grpc.aio.
    for key, value in metadata or ():
        if key == ERROR_DETAIL_KEY and isinstance(value, bytes):
            try:
                return service_pb2.ErrorDetail.FromString(value)
            except DecodeError:
                return None
    return None
