"""Two workers: a server of Arrow Flight that sends recorded samples, and their reader.

A record batch holds a batch of samples, each field a column of binaries of fixed size, which Arrow copies neither when
it writes nor when it reads.
"""

import argparse
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.flight

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from benchmarks.transport.arrived import describe_arrived
from benchmarks.transport.recording import load_recording

FIELDS = ("image", "label", "keypoints")


class FlightServer(pyarrow.flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Sends a record batch as often as the ticket says.

    Args:
        batch: What to send.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._batch = batch

    def do_get(self, _context: object, ticket: pyarrow.flight.Ticket) -> pyarrow.flight.GeneratorStream:
        """Stream the batch."""
        repeated = (self._batch for _ in range(int(ticket.ticket)))
        return pyarrow.flight.GeneratorStream(self._batch.schema, repeated)


def _prepare_server(recording: Path) -> tuple[Document, Answer]:
    batch = load_recording(recording)
    columns = []
    for field in FIELDS:
        array = getattr(batch, field)
        size = array[0].nbytes
        buffers = [None, pa.py_buffer(np.ascontiguousarray(array))]
        columns.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(array), buffers))
    server = FlightServer(pa.record_batch(columns, names=list(FIELDS)))
    threading.Thread(target=server.serve, daemon=True).start()
    return {"address": f"grpc://127.0.0.1:{server.port}"}, lambda _: {"peak_rss_bytes": peak_rss_bytes()}


def _prepare_reader(address: str, recording: Path) -> tuple[Document, Answer]:
    like = load_recording(recording)
    client = pyarrow.flight.connect(address)

    def answer(request: Document) -> Document:
        num_batches = int(request["samples"]) // len(like.image)
        first: list[list[npt.NDArray[Any]]] = []  # Any: of every dtype
        began_ns = time.perf_counter_ns()
        for chunk in client.do_get(pyarrow.flight.Ticket(str(num_batches).encode())):
            for sample in _samples(chunk.data, like):
                if len(first) < int(request["kept"]):
                    first.append(sample)
        return describe_arrived(time.perf_counter_ns() - began_ns, first)

    return {}, answer


def _samples(batch: pa.RecordBatch, like: Any) -> Iterator[list[npt.NDArray[Any]]]:  # Any: fields by name, every dtype
    arrays = []
    for column, field in zip(batch.columns, FIELDS, strict=True):
        model = getattr(like, field)
        shape = (len(batch), *model.shape[1:])
        arrays.append(np.frombuffer(column.buffers()[1], dtype=model.dtype, count=int(np.prod(shape))).reshape(shape))
    for row in range(len(batch)):
        yield [array[row] for array in arrays]


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Send or read samples with Arrow Flight.")
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--address", help="read from there; without it, serve")
    parsed = parser.parse_args()
    if parsed.address:
        return _prepare_reader(parsed.address, parsed.recording)
    return _prepare_server(parsed.recording)


if __name__ == "__main__":
    answer_requests(_prepare)
