"""Label streams: latents that the caller brings, read no faster than they are labelled.

N latents of a message, L num_ws.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from labelmint.arrays import array_from_tensor
from labelmint.v1 import service_pb2
from labelmint_service.engine import LatentInputs, StyleInputs
from labelmint_service.errors import RequestError
from labelmint_service.requests.parsing import StreamJob
from labelmint_service.scheduling.rows import Entry
from labelmint_service.streams.sample_stream import SampleStream
from labelmint_service.streams.sources import LatentSource


class LabelSession:
    """A Label call in work; an async context manager that reads the caller's latents while it is open.

    Args:
        job: The options.
        first: The message that carried them.
        requests: The messages after it.
        source: Where latents go.
        stream: What labels them.
    """

    def __init__(
        self,
        *,
        job: StreamJob,
        first: service_pb2.LabelRequest,
        requests: AsyncIterator[service_pb2.LabelRequest],
        source: LatentSource,
        stream: SampleStream,
    ) -> None:
        self._job = job
        self._first = first
        self._requests = requests
        self._source = source
        self._stream = stream
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to read and label.

        Raises:
            DrainingError: The server is going away.
            StreamLimitError: There are as many streams as there may be.
        """
        await self._stream.__aenter__()
        self._reader = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop all work, also if the caller leaves while this waits."""
        try:
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
        finally:
            await self._stream.__aexit__(exc_type, exc, traceback)

    def messages(self) -> AsyncIterator[bytes]:
        """The messages of the stream; see SampleStream.messages."""
        return self._stream.messages()

    async def _read(self) -> None:
        try:
            add_latents(self._first, self._job, self._source)
            async for request in self._requests:
                await self._source.wait_for_room()
                if request.HasField("options"):
                    raise RequestError(
                        "options came again, expected them in the first message only; open another stream for others",
                        field="options",
                    )
                add_latents(request, self._job, self._source)
            self._source.finish()
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the stream and is reported there
            self._stream.fail(error)


def add_latents(request: service_pb2.LabelRequest, job: StreamJob, source: LatentSource) -> None:
    """Check the latents of a message and queue them.

    Args:
        request: From the wire; nothing in it is trusted. It may carry none.
        job: Options of the stream.
        source: Where they go.

    Raises:
        RequestError: They do not fit the model.
        ArrayError: Their bytes are not the array they claim to be.
    """
    kind = request.WhichOneof("latents")
    backbone = job.model.bundle.manifest.backbone
    if request.class_indices and (kind != "z" or not backbone.c_dim):
        raise RequestError(
            "class_indices are set, expected them only beside z of a conditional model; leave them out",
            field="class_indices",
        )
    if kind is None:
        return
    if kind != "z" and service_pb2.SAMPLE_FIELD_Z in job.output.fields:
        raise RequestError(
            f"options.output.fields asks for z, but {kind} came, which has none; leave the field out or send z",
            field="options.output.fields",
        )
    if kind == "z":
        z = _finite_rows(request.z, (backbone.z_dim,), field="z")
        psi = np.full(len(z), job.truncation_psi, dtype=np.float32)
        classes = _parse_classes(request, len(z), backbone.c_dim)
        source.add(Entry.LATENTS, len(z), LatentInputs(z=z, truncation_psi=psi, class_indices=classes).rows)
    elif kind == "w":
        w = _finite_rows(request.w, (backbone.w_dim,), field="w")
        source.add(Entry.STYLES, len(w), lambda first, last: StyleInputs(ws=_truncate(w[first:last], job)))
    else:
        ws = _finite_rows(request.w_plus, (backbone.num_ws, backbone.w_dim), field="w_plus")
        source.add(Entry.STYLES, len(ws), StyleInputs(ws=ws).rows)


def _finite_rows(tensor: service_pb2.Tensor, tail: tuple[int, ...], *, field: str) -> npt.NDArray[np.float32]:
    """A tensor as float32 [N, *tail], all of it finite."""
    array = array_from_tensor(tensor, field=field)
    if array.dtype != np.float32 or array.shape[1:] != tail or not array.ndim:
        raise RequestError(
            f"{field} is {array.dtype} {list(array.shape)}, expected float32 [N, {', '.join(map(str, tail))}]; "
            "send latents made for this model",
            field=field,
        )
    finite = np.isfinite(array)
    if not finite.all():
        place = [int(axis) for axis in np.argwhere(~finite)[0]]
        raise RequestError(
            f"{field}{place} is {array[tuple(place)]}, expected finite numbers; leave that latent out",
            field=field,
        )
    return array


def _parse_classes(request: service_pb2.LabelRequest, num_rows: int, c_dim: int) -> npt.NDArray[np.int64] | None:
    if not c_dim:
        return None
    if len(request.class_indices) != num_rows:
        raise RequestError(
            f"class_indices has {len(request.class_indices)} entries, expected {num_rows}, one for each z of a "
            "conditional model; add the missing or drop the surplus ones",
            field="class_indices",
        )
    classes = np.array(request.class_indices, dtype=np.int64)
    if num_rows and classes.max() >= c_dim:
        place = int(classes.argmax())
        raise RequestError(
            f"class_indices[{place}] is {classes[place]}, expected an integer in [0, {c_dim}); choose another",
            field=f"class_indices[{place}]",
        )
    return classes


def _truncate(w: npt.NDArray[np.float32], job: StreamJob) -> npt.NDArray[np.float32]:
    """Broadcast w [N, w_dim] to every layer [N, L, w_dim] and truncate the leading ones, as the mapping graph does."""
    manifest, average = job.model.bundle.manifest, job.model.average_style
    cutoff = manifest.truncation.cutoff or manifest.backbone.num_ws
    ws = np.repeat(w[:, None, :], manifest.backbone.num_ws, axis=1)  # [N, L, w_dim]
    ws[:, :cutoff] = average + np.float32(job.truncation_psi) * (ws[:, :cutoff] - average)
    return ws
