"""Rich status details: when to try again and which limit was met, as google.rpc messages that any client can read."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from labelmint_service.errors import QuotaError, ServiceError


def status_details(error: ServiceError, code_name: str) -> bytes | None:
    """Describe an error that passes by itself.

    Args:
        error: The error.
        code_name: Name of its gRPC code, for example "RESOURCE_EXHAUSTED".

    Returns:
        A serialised google.rpc.Status for the trailing metadata `STATUS_DETAILS_KEY`; None if there is nothing to
        say.
    """
    details: list[Message] = []
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after_s * 1000) + 1)  # not a moment too early
        details.append(retry)
    if isinstance(error, QuotaError):
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=f"client:{error.client}", description=f"{error.limit}: {error}"
        )
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if not details:
        return None
    status = status_pb2.Status(code=code_pb2.Code.Value(code_name), message=str(error))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    data: bytes = status.SerializeToString()
    return data
