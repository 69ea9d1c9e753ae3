"""How a call ended: a status of gRPC becomes one of our errors."""

import re
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from labelmint.v1 import service_pb2
from labelmint.wire import ERROR_DETAIL_KEY
from labelmint_client._errors import (
    AccessError,
    CallCancelledError,
    ClientError,
    DeadlineError,
    InvalidArgumentError,
    ModelChangedError,
    ModelNotFoundError,
    NumericsMismatchError,
    PreconditionError,
    ProtocolError,
    QuotaExceededError,
    ScanLimitError,
    ServerBusyError,
    ServerFaultError,
    ServerUnavailableError,
)
from labelmint_client._retry_hint import RetryHint, read_retry_hint

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
    def is_answer(self) -> bool:
        """Whether the service itself ended the call, and not the connection to it: it is there."""
        return self.detail is not None or self.hint != RetryHint()

    @property
    def needs_a_hand(self) -> bool:
        """Whether the service names what is wrong and no time to come again: somebody has to do something first."""
        return self.detail is not None and bool(self.detail.field) and self.hint.retry_after_s is None

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
