"""Retry hints: google.rpc.RetryInfo and QuotaFailure in the trailing metadata, as any gRPC server sends them.

The messages are described here, for the package that holds them is not part of the base installation.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from labelmint.wire import STATUS_DETAILS_KEY

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, dict[str, tuple[int, "_Field.Type.ValueType", str]]] = {
    # Field -> number, type, and message type of repeated messages, which all of these are but RetryInfo's.
    "Status": {"details": (3, _Field.TYPE_MESSAGE, ".google.protobuf.Any")},
    "RetryInfo": {"retry_delay": (1, _Field.TYPE_MESSAGE, ".google.protobuf.Duration")},
    "Violation": {"subject": (1, _Field.TYPE_STRING, ""), "description": (2, _Field.TYPE_STRING, "")},
    "QuotaFailure": {"violations": (1, _Field.TYPE_MESSAGE, ".labelmint.hints.Violation")},
}
_REPEATED = frozenset({"details", "violations"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryHint:
    """What a server says of trying again.

    Attributes:
        retry_after_s: Seconds after which another try may succeed; None if it does not say.
        limits: Limits of the caller's own that were met, as the server describes them.
    """

    retry_after_s: float | None = None
    limits: tuple[str, ...] = ()


def read_retry_hint(metadata: Iterable[Any] | None) -> RetryHint:
    """Read the hint of a failed call; an empty one if there is none that can be read.

    Args:
        metadata: Trailing metadata. Any: pairs of text and text or bytes, of a class that differs between grpc and
            grpc.aio.
    """
    for key, value in metadata or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return _read_status(value)
            except DecodeError:
                break
    return RetryHint()


def _read_status(data: bytes) -> RetryHint:
    retry_after_s: float | None = None
    limits: list[str] = []
    for detail in _parse("Status", data).details:
        kind = detail.type_url.rpartition("/")[2]
        if kind == "google.rpc.RetryInfo":
            delay = _parse("RetryInfo", detail.value).retry_delay
            retry_after_s = max(0.0, delay.seconds + delay.nanos / 1e9)
        elif kind == "google.rpc.QuotaFailure":
            violations = _parse("QuotaFailure", detail.value).violations
            limits += [violation.description or violation.subject for violation in violations]
    return RetryHint(retry_after_s=retry_after_s, limits=tuple(limits))


def _parse(name: str, data: bytes) -> Any:  # Any: messages that are described at run time
    return _classes()[name].FromString(data)


@functools.cache
def _classes() -> dict[str, type[Message]]:
    pool = DescriptorPool()
    for known in (any_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="labelmint_client/hints.proto",
        package="labelmint.hints",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, type_name) in fields.items():
            label = _Field.LABEL_REPEATED if field in _REPEATED else _Field.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, type_name=type_name or None, label=label)
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"labelmint.hints.{name}")) for name in _MESSAGES}
