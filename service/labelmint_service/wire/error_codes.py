"""The one table from errors to the names of gRPC status codes."""

from __future__ import annotations

from labelmint.errors import ArrayError, BundleError
from labelmint_service.errors import (
    AdminForbiddenError,
    DrainingError,
    EngineLostError,
    EngineRunError,
    LateError,
    ModelForbiddenError,
    ModelMemoryError,
    ModelNotFoundError,
    ModelNotReadyError,
    NonFiniteSampleError,
    PinMismatchError,
    QueueFullError,
    QuotaError,
    QuotaStoreError,
    RepositoryStateError,
    RequestError,
    ScanLimitError,
    StalledError,
    StartError,
    StreamLimitError,
    UnauthenticatedError,
)

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (RequestError, "INVALID_ARGUMENT"),
    (ArrayError, "INVALID_ARGUMENT"),
    (UnauthenticatedError, "UNAUTHENTICATED"),
    (ModelForbiddenError, "PERMISSION_DENIED"),
    (AdminForbiddenError, "PERMISSION_DENIED"),
    (ModelNotFoundError, "NOT_FOUND"),
    (ModelNotReadyError, "UNAVAILABLE"),
    (RepositoryStateError, "FAILED_PRECONDITION"),
    (ModelMemoryError, "RESOURCE_EXHAUSTED"),
    (BundleError, "FAILED_PRECONDITION"),
    (StartError, "FAILED_PRECONDITION"),
    (PinMismatchError, "FAILED_PRECONDITION"),
    (ScanLimitError, "FAILED_PRECONDITION"),
    (StreamLimitError, "RESOURCE_EXHAUSTED"),
    (QueueFullError, "RESOURCE_EXHAUSTED"),
    (QuotaError, "RESOURCE_EXHAUSTED"),
    (QuotaStoreError, "UNAVAILABLE"),
    (LateError, "DEADLINE_EXCEEDED"),
    (StalledError, "UNAVAILABLE"),
    (DrainingError, "UNAVAILABLE"),
    (EngineLostError, "UNAVAILABLE"),
    (EngineRunError, "INTERNAL"),
    (NonFiniteSampleError, "DATA_LOSS"),
)


def code_name(error: Exception) -> str | None:
    """Name of the status code for an error.

    Returns:
        For example "INVALID_ARGUMENT"; None for an unexpected error, whose text is not for callers.
    """
    return next((name for kind, name in _CODES if isinstance(error, kind)), None)
