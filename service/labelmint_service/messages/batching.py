"""Batching: samples that were accepted become messages no larger than the caller wants.

N samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.addresses import NUM_INDICES
from labelmint.batches import Chunk, join_batch, write_items, write_tensor
from labelmint.v1 import service_pb2
from labelmint.wire import ring_bytes
from labelmint_service.engine import LatentInputs
from labelmint_service.messages.shared_ring import SharedRing
from labelmint_service.models.served import ServedModel
from labelmint_service.requests.outputs import ENVELOPE_BYTES, OutputPlan, check_fits, fixed_sample_bytes
from labelmint_service.scheduling.rows import Delivery

_ITEM_OVERHEAD_BYTES = 8
_Batch = service_pb2.SampleBatch
_SHARED = frozenset({_Batch.IMAGE_RAW_FIELD_NUMBER, _Batch.MASK_RAW_FIELD_NUMBER, _Batch.UNCERTAINTY_MAP_FIELD_NUMBER})
"""Fields large enough for shared memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRows:
    """The rows of a delivery that will be sent.

    Attributes:
        delivery: What came out of the engine.
        positions: Rows of it to send, ascending, at least one.
        scores: float32, image score of every row of the delivery.
        images: Encoded images, one for each position; empty unless the plan encodes them.
        masks: Encoded masks, one for each position; empty unless the plan encodes them.
        num_scanned: Leading rows of the delivery that the messages account for, at least up to the last position.
        num_unreported: Rows scanned and rejected before the delivery that no message has accounted for.
        began_ns: Time of time.perf_counter_ns() at which scoring and encoding began, or would have without waiting for
            the caller.
    """

    delivery: Delivery
    positions: Sequence[int]
    scores: npt.NDArray[np.float32]
    images: Sequence[bytes]
    masks: Sequence[bytes]
    num_scanned: int
    num_unreported: int
    began_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A message on its way to the caller.

    Attributes:
        data: A serialised SampleBatch.
        num_rows: Samples in it.
    """

    data: bytes
    num_rows: int


def shared_bytes(rows: AcceptedRows, plan: OutputPlan) -> list[int]:
    """Most bytes that each array of some samples takes in shared memory, however they are split into messages."""
    count = len(rows.positions)
    return [ring_bytes(array[0].nbytes) * count for number, array in _tensors(rows, plan).items() if number in _SHARED]


def build_replies(
    rows: AcceptedRows, plan: OutputPlan, model: ServedModel, ring: SharedRing | None = None
) -> list[Reply]:
    """Build the messages of some samples, as few as the size allows.

    Args:
        rows: What to send.
        plan: Fields, codecs and size.
        model: What made the samples.
        ring: Where RAW images, masks and maps go; None puts them into the messages.

    Returns:
        Messages in index order.

    Raises:
        RequestError: One sample is larger than a message may be, or the ring cannot be written.
    """
    delivery = rows.delivery
    encode_ns = time.perf_counter_ns() - rows.began_ns
    times = service_pb2.StageTimes(queue_ns=delivery.queue_ns, compute_ns=delivery.compute_ns, encode_ns=encode_ns)
    replies = []
    num_reported = -rows.num_unreported
    for first, last in _split(rows, plan, model):
        num_scanned = rows.num_scanned if last == len(rows.positions) else rows.positions[last - 1] + 1
        account = service_pb2.SampleBatch(
            num_scanned=num_scanned - num_reported,
            num_rejected=num_scanned - num_reported - (last - first),
            digest=model.bundle.digest,
            numerics_id=model.numerics.id,
            times=times,
        )
        num_reported = num_scanned
        set_next_index(account, delivery.indices[num_scanned - 1] + 1)
        arrays = list(_arrays(rows, first, last, plan, ring))
        account.shared_end = ring.end if ring else 0
        data = join_batch(_ids(delivery, rows.positions[first:last]), arrays, account)
        replies.append(Reply(data=data, num_rows=last - first))
    return replies


def build_progress(model: ServedModel, *, num_rejected: int, next_index: int) -> Reply:
    """Build a message without samples.

    Args:
        model: What made the samples.
        num_rejected: Rows scanned and rejected since the last message.
        next_index: One more than the last index scanned.
    """
    message = service_pb2.SampleBatch(
        digest=model.bundle.digest,
        numerics_id=model.numerics.id,
        num_scanned=num_rejected,
        num_rejected=num_rejected,
    )
    set_next_index(message, next_index)
    return Reply(data=message.SerializeToString(), num_rows=0)


def set_next_index(message: service_pb2.SampleBatch, index: int) -> None:
    """Say where to go on after the samples below `index`, which may be one more than the last there is."""
    message.next_index = min(index, NUM_INDICES - 1)
    message.exhausted = index >= NUM_INDICES


def _split(rows: AcceptedRows, plan: OutputPlan, model: ServedModel) -> Iterator[tuple[int, int]]:
    """Ranges of `rows.positions` that fit one message each."""
    fixed = fixed_sample_bytes(plan, model.bundle.manifest)
    first, used = 0, ENVELOPE_BYTES
    for place in range(len(rows.positions)):
        items = [encoded[place] for encoded in (rows.images, rows.masks) if encoded]
        size = fixed + sum(len(item) + _ITEM_OVERHEAD_BYTES for item in items)
        check_fits(size, plan)
        if used + size > plan.max_message_bytes:
            yield first, place
            first, used = place, ENVELOPE_BYTES
        used += size
    yield first, len(rows.positions)


def _ids(delivery: Delivery, positions: Sequence[int]) -> service_pb2.SampleBatch:
    classes = delivery.class_indices
    return service_pb2.SampleBatch(
        indices=[delivery.indices[position] for position in positions],
        class_indices=None if classes is None else _rows_of(classes, positions).tolist(),
    )


def _arrays(rows: AcceptedRows, first: int, last: int, plan: OutputPlan, ring: SharedRing | None) -> Iterator[Chunk]:
    """The fields of a message that hold arrays, in ascending order of their numbers."""
    outputs, tensors = rows.delivery.outputs, _tensors(rows, plan)
    encoded = {
        _Batch.IMAGE_ENCODED_FIELD_NUMBER: (plan.image_codec, outputs.image.shape[1:], rows.images[first:last]),
        _Batch.MASK_ENCODED_FIELD_NUMBER: (plan.mask_codec, outputs.label.shape[1:], rows.masks[first:last]),
    }
    for number in sorted({*tensors, *encoded}):
        if number in tensors:
            array = _rows_of(tensors[number], rows.positions[first:last])
            offset = ring.put(array) if ring and number in _SHARED else None
            yield from write_tensor(number, array, shared_offset=offset)
        elif encoded[number][2]:
            yield from write_items(number, *encoded[number])


# Any: arrays of any dtype that travels.
def _tensors(rows: AcceptedRows, plan: OutputPlan) -> dict[int, npt.NDArray[Any]]:
    """Arrays of all rows of the delivery that travel unencoded, by the number of their field."""
    outputs, inputs = rows.delivery.outputs, rows.delivery.inputs
    asked = {
        service_pb2.SAMPLE_FIELD_IMAGE: (_Batch.IMAGE_RAW_FIELD_NUMBER, None if rows.images else outputs.image),
        service_pb2.SAMPLE_FIELD_MASK: (_Batch.MASK_RAW_FIELD_NUMBER, None if rows.masks else outputs.label),
        service_pb2.SAMPLE_FIELD_KEYPOINTS: (_Batch.KEYPOINTS_FIELD_NUMBER, outputs.keypoints),
        service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP: (_Batch.UNCERTAINTY_MAP_FIELD_NUMBER, outputs.uncertainty_map),
        service_pb2.SAMPLE_FIELD_Z: (
            _Batch.Z_FIELD_NUMBER,
            inputs.z if isinstance(inputs, LatentInputs) else None,
        ),
    }
    tensors = {number: array for field, (number, array) in asked.items() if field in plan.fields and array is not None}
    return {**tensors, _Batch.UNCERTAINTY_FIELD_NUMBER: rows.scores}


# Any: rows of an array of any dtype.
def _rows_of(array: npt.NDArray[Any], positions: Sequence[int]) -> npt.NDArray[Any]:
    """Some rows; a view if they are contiguous, so that the bytes are copied once."""
    first, last = positions[0], positions[-1] + 1
    return array[first:last] if last - first == len(positions) else array[list(positions)]
