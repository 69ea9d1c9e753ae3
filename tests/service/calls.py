"""Calls as tests make them: whole streams as arrays, and failures as what the caller learns of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from labelmint.arrays import array_from_tensor
from labelmint.v1 import service_pb2

TIMEOUT_S = 120.0
RAW_FIELDS = ("image_raw", "mask_raw", "keypoints", "uncertainty_map", "uncertainty", "z")
EVERY_FIELD = (
    service_pb2.SAMPLE_FIELD_IMAGE,
    service_pb2.SAMPLE_FIELD_MASK,
    service_pb2.SAMPLE_FIELD_KEYPOINTS,
    service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP,
    service_pb2.SAMPLE_FIELD_Z,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The samples of a stream.

    Attributes:
        batches: Its messages.
        indices: In the order in which they came.
        arrays: RAW fields by name, joined over the messages.
    """

    batches: list[service_pb2.SampleBatch]
    indices: list[int]
    arrays: dict[str, npt.NDArray[Any]]  # Any: the dtype depends on the field

    def row(self, index: int) -> dict[str, bytes]:
        """The bytes of one sample, by field."""
        place = self.indices.index(index)
        return {name: array[place].tobytes() for name, array in self.arrays.items()}


def collect(batches: Iterable[service_pb2.SampleBatch]) -> Collected:
    """Reads a stream to its end."""
    messages = list(batches)
    arrays = {}
    for name in RAW_FIELDS:
        parts = [array_from_tensor(getattr(batch, name), field=name) for batch in messages if batch.HasField(name)]
        if parts:
            arrays[name] = np.concatenate(parts)
    return Collected(
        batches=messages,
        indices=[index for batch in messages for index in batch.indices],
        arrays=arrays,
    )


def make_request(**fields: Any) -> service_pb2.GenerateRequest:  # Any: fields of every type
    """A good Generate request for "tiny" but for the given fields; None removes a field."""
    request = service_pb2.GenerateRequest(model="tiny", seed=7, max_accepted=5)
    for name, value in fields.items():
        if value is None:
            request.ClearField(name)
    changes = {name: value for name, value in fields.items() if value is not None}
    request.MergeFrom(service_pb2.GenerateRequest(**changes))
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a call failed.

    Attributes:
        code: Name of the status code.
        text: Details.
        detail: From the trailing metadata; None if there was none.
        batches: Messages that came before.
    """

    code: str
    text: str
    detail: service_pb2.ErrorDetail | None
    batches: list[service_pb2.SampleBatch]


def expect_failure(call: Iterable[service_pb2.SampleBatch]) -> Failure:
    """Reads a stream that must fail."""
    batches: list[service_pb2.SampleBatch] = []
    with pytest.raises(grpc.RpcError) as caught:
        batches.extend(call)  # what came before the error stays in the list
    return describe_failure(caught.value, batches)


def describe_failure(error: BaseException, batches: list[service_pb2.SampleBatch] | None = None) -> Failure:
    """What the caller learns of an error."""
    assert isinstance(error, grpc.Call)
    metadata = dict(error.trailing_metadata() or ())
    raw = metadata.get("labelmint-error-bin")
    detail = None
    if raw is not None:
        assert isinstance(raw, bytes)
        detail = service_pb2.ErrorDetail.FromString(raw)
    return Failure(code=error.code().name, text=str(error.details()), detail=detail, batches=batches or [])
