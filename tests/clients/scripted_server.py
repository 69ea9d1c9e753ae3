"""A real gRPC server on a real socket whose faults are scripted, for tests of the client.

Sample contents are a pure function of the index, so that a test can tell every sample that arrives from every other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from labelmint.arrays import array_from_tensor, tensor_from_array
from labelmint.v1 import bundle_pb2, service_pb2, service_pb2_grpc
from tests.clients.relay import Relay

HEIGHT, WIDTH, KEYPOINTS, CLASSES = 6, 5, 3, 4
DIGEST = "d" * 64
NUMERICS = "numerics-a"
UINT64_MAX = 2**64 - 1


def arrays_of(index: int) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of one sample."""
    generator = np.random.default_rng(index)
    return {
        "image": generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "mask": generator.integers(0, CLASSES, (HEIGHT, WIDTH), dtype=np.uint8),
        "keypoints": np.concatenate(
            [generator.uniform(0, WIDTH, (KEYPOINTS, 3)), generator.integers(0, 2, (KEYPOINTS, 1))], axis=1
        ).astype(np.float32),
        "uncertainty_map": generator.uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float16),
        "uncertainty": generator.uniform(0, 1, ()).astype(np.float32),
        "z": generator.standard_normal(8).astype(np.float32),
    }


def message_of(indices: list[int], next_index: int, **fields: Any) -> service_pb2.SampleBatch:
    """A RAW message of these samples."""
    batch = service_pb2.SampleBatch(
        indices=indices,
        next_index=min(next_index, UINT64_MAX),
        exhausted=next_index > UINT64_MAX,
        digest=DIGEST,
        numerics_id=NUMERICS,
        num_scanned=len(indices),
    )
    if indices:
        samples = [arrays_of(index) for index in indices]
        stacked = {name: tensor_from_array(np.stack([sample[name] for sample in samples])) for name in samples[0]}
        batch.image_raw.CopyFrom(stacked["image"])
        batch.mask_raw.CopyFrom(stacked["mask"])
        for name in ("keypoints", "uncertainty_map", "uncertainty", "z"):
            getattr(batch, name).CopyFrom(stacked[name])
    for name, value in fields.items():
        setattr(batch, name, value)
    return batch


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What befalls one call.

    Attributes:
        after_messages: Messages that are sent first.
        code: Status to end with; None to cut the connection.
        details: Text of the status.
        detail: Attached to the status; None attaches nothing.
        retry_after_s: Attached as google.rpc.RetryInfo; None attaches none.
        limit: Attached as google.rpc.QuotaFailure; empty attaches none.
    """

    after_messages: int = 0
    code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    details: str = "draining"
    detail: service_pb2.ErrorDetail | None = field(default_factory=service_pb2.ErrorDetail)
    retry_after_s: float | None = None
    limit: str = ""

    def metadata(self) -> list[tuple[str, bytes]]:
        """Trailing metadata that say so."""
        rich = status_pb2.Status(code=8, message=self.details)
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            rich.details.add().Pack(retry)
        if self.limit:
            violation = error_details_pb2.QuotaFailure.Violation(subject="client:one", description=self.limit)
            rich.details.add().Pack(error_details_pb2.QuotaFailure(violations=[violation]))
        metadata = [] if self.detail is None else [("labelmint-error-bin", self.detail.SerializeToString())]
        return [*metadata, ("grpc-status-details-bin", rich.SerializeToString())] if rich.details else metadata


CUT: dict[str, Any] = {"code": None}
FAULTS: dict[str, dict[str, Any]] = {
    "drain": {
        "code": grpc.StatusCode.UNAVAILABLE,
        "details": "draining",
        "detail": service_pb2.ErrorDetail(next_index=99),
    },
    "cut": CUT,
    "cancel": {"code": grpc.StatusCode.CANCELLED, "details": "", "detail": None},
    "stream_removed": {"code": grpc.StatusCode.UNKNOWN, "details": "Stream removed", "detail": None},
}
"""What may befall a stream that is then taken up again."""


class ScriptedServicer(service_pb2_grpc.LabelMintServicer):
    """Serves every address, in messages of `batch_size`, with a list of faults: the i-th stream suffers the i-th fault.

    Attributes:
        requests: Every request for a stream as it came.
        rewrite: Alters a message before it is sent; gets the number of the call, of the message, and the message.
        rejects: Says whether a filter rejects an index.
    """

    def __init__(self) -> None:
        self.batch_size = 2
        self.faults: list[Fault] = []
        self.unary_faults: list[Fault] = []
        self.num_unary_calls = 0
        self.num_models = 1
        self.requests: list[service_pb2.GenerateRequest] = []
        self.label_requests: list[list[service_pb2.LabelRequest]] = []
        self.numerics_of_call: Callable[[int], str] = lambda call: NUMERICS
        self.digest_of_call: Callable[[int], str] = lambda call: DIGEST
        self.rewrite: Callable[[int, int, service_pb2.SampleBatch], service_pb2.SampleBatch | None] = (
            lambda call, number, batch: batch
        )
        self.rejects: Callable[[int], bool] = lambda index: False
        self.cut_connections: Callable[[], None] = lambda: None
        self.manifest = bundle_pb2.Manifest(name="scripted", digest=DIGEST)
        self.cancelled = threading.Event()

    def ListModels(  # noqa: N802  # the method is named by the proto
        self, request: service_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> service_pb2.ListModelsResponse:
        self._fail_at_once(context)
        return service_pb2.ListModelsResponse(
            models=[service_pb2.ModelSummary(name="scripted", version="1", digest=DIGEST, numerics_id=NUMERICS)]
            * self.num_models
        )

    def GetModel(  # noqa: N802  # the method is named by the proto
        self, request: service_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> service_pb2.GetModelResponse:
        self._fail_at_once(context)
        return service_pb2.GetModelResponse(manifest=self.manifest, numerics_id=NUMERICS, numerics="{}")

    def Generate(  # noqa: N802  # the method is named by the proto
        self, request: service_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[service_pb2.SampleBatch]:
        call = len(self.requests)
        self.requests.append(request)
        self._check_pins(request, call, context)
        context.add_callback(self.cancelled.set)
        yield from self._with_fault(self._batches(request), call, context)

    def Label(  # noqa: N802  # the method is named by the proto
        self, request_iterator: Iterator[service_pb2.LabelRequest], context: grpc.ServicerContext
    ) -> Iterator[service_pb2.SampleBatch]:
        call = len(self.label_requests)
        received: list[service_pb2.LabelRequest] = []
        self.label_requests.append(received)
        yield from self._with_fault(self._labelled(request_iterator, received), call, context)

    def _labelled(
        self, requests: Iterator[service_pb2.LabelRequest], received: list[service_pb2.LabelRequest]
    ) -> Iterator[service_pb2.SampleBatch]:
        ordinal = 0
        for request in requests:
            received.append(request)
            latents = array_from_tensor(getattr(request, request.WhichOneof("latents")), field="latents")
            for first in range(0, len(latents), self.batch_size):
                rows = latents[first : first + self.batch_size].reshape(-1, latents[0].size)
                indices = list(range(ordinal, ordinal + len(rows)))
                ordinal += len(rows)
                batch = message_of(indices, ordinal)
                batch.z.CopyFrom(tensor_from_array(rows))
                yield batch

    def _batches(self, request: service_pb2.GenerateRequest) -> Iterator[service_pb2.SampleBatch]:
        num_shards = request.num_shards or 1
        end = request.end_index if request.HasField("end_index") else UINT64_MAX + 1
        due = request.max_accepted if request.HasField("max_accepted") else None
        index = request.start_index + (request.shard_index - request.start_index) % num_shards
        while index < end and due != 0:
            indices: list[int] = []
            num_rejected = 0
            while index < end and len(indices) < min(self.batch_size, due or self.batch_size) and num_rejected < 4:
                if request.HasField("filter") and self.rejects(index):
                    num_rejected += 1
                else:
                    indices.append(index)
                index += num_shards
            due = None if due is None else due - len(indices)
            batch = message_of(indices, min(index, max(end, request.start_index)))
            batch.num_rejected = num_rejected
            batch.num_scanned += num_rejected
            yield batch

    def _with_fault(
        self, batches: Iterator[service_pb2.SampleBatch], call: int, context: grpc.ServicerContext
    ) -> Iterator[service_pb2.SampleBatch]:
        fault = self.faults[call] if call < len(self.faults) else None
        for number, batch in enumerate(batches):
            if fault is not None and number == fault.after_messages:
                break
            batch.numerics_id = self.numerics_of_call(call)
            batch.digest = self.digest_of_call(call)
            changed = self.rewrite(call, number, batch)
            if changed is None:
                return
            yield changed
        if fault is not None:
            self._fail(fault, context)

    def _check_pins(self, request: service_pb2.GenerateRequest, call: int, context: grpc.ServicerContext) -> None:
        if request.numerics_id and request.numerics_id != self.numerics_of_call(call):
            detail = service_pb2.ErrorDetail(field="numerics_id", request_id="r7")
            self._fail(
                Fault(code=grpc.StatusCode.FAILED_PRECONDITION, details="another engine", detail=detail), context
            )

    def _fail_at_once(self, context: grpc.ServicerContext) -> None:
        self.num_unary_calls += 1
        if self.unary_faults:
            self._fail(self.unary_faults.pop(0), context)

    def _fail(self, fault: Fault, context: grpc.ServicerContext) -> None:
        if fault.code is None:
            self.cut_connections()
            return
        context.set_trailing_metadata(tuple(fault.metadata()))
        context.abort(fault.code, fault.details)


class ScriptedServer:
    """The servicer behind a relay, on a port of the loopback interface."""

    def __init__(self) -> None:
        self.servicer = ScriptedServicer()
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool)
        # Generated code has no types.
        service_pb2_grpc.add_LabelMintServicer_to_server(self.servicer, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._relay = Relay(port)
        self.servicer.cut_connections = self._relay.cut
        self.address = f"127.0.0.1:{self._relay.port}"

    def close(self) -> None:
        """Stop serving."""
        self._relay.close()
        self._server.stop(None).wait()
        self._pool.shutdown(wait=True)


def scripted_manifest() -> bundle_pb2.Manifest:
    manifest = bundle_pb2.Manifest(name="scripted", version="1", digest=DIGEST, ignore_label=255)
    frame = bundle_pb2.Frame(image_height=HEIGHT, image_width=WIDTH, label_height=HEIGHT, label_width=WIDTH)
    manifest.frame.CopyFrom(frame)
    for number in range(CLASSES):
        manifest.classes.add(name=f"class{number}", red=number, green=number, blue=number)
    manifest.keypoints.names.extend([f"point{number}" for number in range(KEYPOINTS)])
    return manifest
