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

from labelmint.batches import Chunk, join_batch, write_items, write_tensor
from labelmint.v1 import service_pb2
from labelmint_service.engine import LatentInputs
from labelmint_service.models import ServedModel
from labelmint_service.outputs import ENVELOPE_BYTES, OutputPlan, check_fits, fixed_sample_bytes
from labelmint_service.requests import NUM_INDICES
from labelmint_service.rows import Delivery

_ITEM_OVERHEAD_BYTES = 8


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
        began_ns: Time of time.perf_counter_ns() at which scoring and encoding began.
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


def build_replies(rows: AcceptedRows, plan: OutputPlan, model: ServedModel) -> list[Reply]:
    """Build the messages of some samples, as few as the size allows.

    Args:
        rows: What to send.
        plan: Fields, codecs and size.
        model: What made the samples.

    Returns:
        Messages in index order.

    Raises:
        RequestError: One sample is larger than a message may be.
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
        positions = rows.positions[first:last]
        data = join_batch(_ids(delivery, positions), _arrays(rows, first, last, plan), account)
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
    classes = delivery.loaded.class_indices
    return service_pb2.SampleBatch(
        indices=[delivery.indices[position] for position in positions],
        class_indices=None if classes is None else _rows_of(classes, positions).tolist(),
    )


def _arrays(rows: AcceptedRows, first: int, last: int, plan: OutputPlan) -> Iterator[Chunk]:
    """The fields of a message that hold arrays, in ascending order of their numbers."""
    kind, positions, fields = service_pb2.SampleBatch, rows.positions[first:last], plan.fields
    outputs, inputs = rows.delivery.outputs, rows.delivery.loaded.inputs
    if rows.images:
        shape, images = outputs.image.shape[1:], rows.images[first:last]
        yield from write_items(kind.IMAGE_ENCODED_FIELD_NUMBER, plan.image_codec, shape, images)
    elif service_pb2.SAMPLE_FIELD_IMAGE in fields:
        yield from write_tensor(kind.IMAGE_RAW_FIELD_NUMBER, _rows_of(outputs.image, positions))
    if rows.masks:
        shape, masks = outputs.label.shape[1:], rows.masks[first:last]
        yield from write_items(kind.MASK_ENCODED_FIELD_NUMBER, plan.mask_codec, shape, masks)
    elif service_pb2.SAMPLE_FIELD_MASK in fields:
        yield from write_tensor(kind.MASK_RAW_FIELD_NUMBER, _rows_of(outputs.label, positions))
    if service_pb2.SAMPLE_FIELD_KEYPOINTS in fields and outputs.keypoints is not None:
        yield from write_tensor(kind.KEYPOINTS_FIELD_NUMBER, _rows_of(outputs.keypoints, positions))
    if service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP in fields:
        yield from write_tensor(kind.UNCERTAINTY_MAP_FIELD_NUMBER, _rows_of(outputs.uncertainty_map, positions))
    yield from write_tensor(kind.UNCERTAINTY_FIELD_NUMBER, _rows_of(rows.scores, positions))
    if service_pb2.SAMPLE_FIELD_Z in fields and isinstance(inputs, LatentInputs):
        yield from write_tensor(kind.Z_FIELD_NUMBER, _rows_of(inputs.z, positions))


# Any: rows of an array of any dtype.
def _rows_of(array: npt.NDArray[Any], positions: Sequence[int]) -> npt.NDArray[Any]:
    """Some rows; a view if they are contiguous, so that the bytes are copied once."""
    first, last = positions[0], positions[-1] + 1
    return array[first:last] if last - first == len(positions) else array[list(positions)]
