"""The blocking client."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import grpc
import numpy.typing as npt

from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client import _request
from labelmint_client._calls import make_stub, start_generate
from labelmint_client._channel import (
    DEFAULT_ADDRESS,
    DEFAULT_MAX_RECEIVE_BYTES,
    DEFAULT_TIMEOUT_S,
    MAX_RECEIVE_BYTES,
    LazyChannel,
    check_address,
    open_channel,
    process_id,
)
from labelmint_client._closing import Closing
from labelmint_client._errors import FailedCall
from labelmint_client._label_request import label_job
from labelmint_client._model import Model, ModelSummary
from labelmint_client._request import ChromaSubsampling, Field, ImageCodec, MaskCodec
from labelmint_client._resume import Recovery, StreamCursor
from labelmint_client._retry import RetryPolicy
from labelmint_client._security import Tls, make_security
from labelmint_client._sync_stream import OpenedCall, SampleStream
from labelmint_client._trace_context import call_metadata

_ResponseT = TypeVar("_ResponseT")


class Client(Closing):
    """Talks to a labelmint server. Opens nothing before the first call, and may be shared by threads.

    Forked processes may share a client that was not used before. After the first call grpc's own threads run, and a
    forked child can hang in them: start processes with "spawn", fork before the first call, or set
    GRPC_ENABLE_FORK_SUPPORT=1 before Python starts.

    Args:
        address: "host:port" of the server.
        timeout_s: Limit of `list_models` and `get_model`, seconds.
        max_receive_bytes: Largest message to accept, below 2 GiB. Streams are asked for less, see `max_message_bytes`.
        retry: When broken calls are tried again.
        tls: For a server with TLS; None for plain text.
        token: Bearer token, for a server that asks for one; see also `token_from_environment`.
        token_file: File that holds it, instead; read again for each call, so that it may be replaced.
        credentials: Credentials of grpc's own, instead of `tls`.

    Raises:
        InvalidArgumentError: The address is none, a size is out of range, a file cannot be read, or the token would
            leave this machine in plain text.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_receive_bytes: int = DEFAULT_MAX_RECEIVE_BYTES,
        retry: RetryPolicy | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._address = check_address(address)
        self._timeout_s = timeout_s
        self._max_receive_bytes = _request.integer("max_receive_bytes", max_receive_bytes, 1, MAX_RECEIVE_BYTES)
        self._retry = retry or RetryPolicy()
        self._security = make_security(
            self._address, tls=tls, credentials=credentials, token=token, token_file=token_file
        )
        self._channel: LazyChannel[grpc.Channel] = LazyChannel(
            lambda: open_channel(self._address, self._security, max_receive_bytes), process_id
        )

    @property
    def address(self) -> str:
        """The server."""
        return self._address

    def list_models(self) -> list[ModelSummary]:
        """List what the server has.

        Raises:
            ClientError: See the tree of errors.
        """
        request = service_pb2.ListModelsRequest()
        response = self._unary(
            lambda stub: stub.ListModels(request, timeout=self._timeout_s, metadata=call_metadata(self._security))
        )
        return [ModelSummary.from_message(message) for message in response.models]

    def get_model(self, name: str) -> Model:
        """Describe a model: classes, palette, keypoints, sizes, licence and the whole manifest.

        Args:
            name: "name", "name@version" or "name@alias", here and wherever a model is named.

        Raises:
            ModelNotFoundError: The server has no such model.
            ClientError: See the tree of errors.
        """
        request = service_pb2.GetModelRequest(model=_request.text("model", name))
        return Model.from_message(
            self._unary(
                lambda stub: stub.GetModel(request, timeout=self._timeout_s, metadata=call_metadata(self._security))
            )
        )

    def generate(
        self,
        model: str,
        *,
        seed: int,
        count: int | None = None,
        endless: bool = False,
        start_index: int = 0,
        end_index: int | None = None,
        shard_index: int = 0,
        num_shards: int = 1,
        truncation_psi: float | None = None,
        class_index: int | None = None,
        max_uncertainty_quantile: float | None = None,
        max_uncertainty: float | None = None,
        min_class_areas: Mapping[str, float] | None = None,
        max_scanned: int | None = None,
        fields: Iterable[Field] | None = None,
        image_codec: ImageCodec = "raw",
        mask_codec: MaskCodec = "raw",
        jpeg_quality: int | None = None,
        jpeg_subsampling: ChromaSubsampling = "444",
        max_message_bytes: int | None = None,
        shared_memory_bytes: int | None = None,
        digest: str | None = None,
        numerics_id: str | None = None,
        pin_numerics: bool = True,
    ) -> SampleStream:
        """Stream labelled samples.

        Sample i of a seed is the same whenever, wherever and in whatever order it is asked for. Nothing is sent before
        the first sample is read.

        Args:
            model: Name of the model.
            seed: uint64.
            count: Samples wanted. Give count, endless or end_index.
            endless: Stream until the reader stops.
            start_index: First address, uint64.
            end_index: Exclusive end of the addresses.
            shard_index: Only addresses congruent to this modulo num_shards come.
            num_shards: Number of shards, at least 1.
            truncation_psi: From 0 (all alike) to the manifest's largest; None for its default.
            class_index: Class of a conditional model; None to draw it.
            max_uncertainty_quantile: Keep samples whose image score is at or below this calibrated quantile, in (0, 1].
            max_uncertainty: Keep samples whose image score is at most this, nats.
            min_class_areas: Keep samples in which each named class covers at least this fraction of the label frame.
            max_scanned: Give up with ScanLimitError after so many indices.
            fields: Arrays to send; None for image, mask, and keypoints where the model has them.
            image_codec: How images travel. "raw" is bit-identical; "jpeg" and "png" need `labelmint[cli]`.
            mask_codec: How masks travel. "zstd" and "png" need `labelmint[cli]`; all are lossless.
            jpeg_quality: 1 to 100; None for the server's default.
            jpeg_subsampling: "444", "422" or "420".
            max_message_bytes: Largest message; None for 4 MiB.
            shared_memory_bytes: On the server's machine only: size of a ring in shared memory through which RAW images,
                masks and maps come, past gRPC. Two engine batches at least; the server refuses less. None does without.
            digest: Refuse any other bundle.
            numerics_id: Refuse any other engine.
            pin_numerics: After a reconnect refuse an engine other than the first, so that the stream stays
                bit-identical.

        Raises:
            InvalidArgumentError: An argument cannot be sent. What the server refuses is raised by the first `next`.
        """
        request = _request.generate_request(
            model=model,
            seed=seed,
            count=count,
            endless=endless,
            start_index=start_index,
            end_index=end_index,
            shard_index=shard_index,
            num_shards=num_shards,
            truncation_psi=truncation_psi,
            class_index=class_index,
            max_uncertainty_quantile=max_uncertainty_quantile,
            max_uncertainty=max_uncertainty,
            min_class_areas=min_class_areas,
            max_scanned=max_scanned,
            digest=digest,
            numerics_id=numerics_id,
            output=_request.output_options(
                fields=fields,
                image_codec=image_codec,
                mask_codec=mask_codec,
                jpeg_quality=jpeg_quality,
                jpeg_subsampling=jpeg_subsampling,
                max_message_bytes=max_message_bytes,
                max_receive_bytes=self._max_receive_bytes,
            ),
        )

        ring_bytes = _request.optional_size("shared_memory_bytes", shared_memory_bytes)

        def open_call(cursor: StreamCursor) -> OpenedCall:
            return start_generate(
                self._channel.get(), cursor.resumed(request), ring_bytes, call_metadata(self._security)
            ), None

        return self._stream(StreamCursor.of_generate(request, pin_numerics=pin_numerics), open_call)

    def label(
        self,
        model: str,
        *,
        z: npt.ArrayLike | None = None,
        w: npt.ArrayLike | None = None,
        w_plus: npt.ArrayLike | None = None,
        class_indices: Iterable[int] | None = None,
        truncation_psi: float | None = None,
        fields: Iterable[Field] | None = None,
        image_codec: ImageCodec = "raw",
        mask_codec: MaskCodec = "raw",
        jpeg_quality: int | None = None,
        jpeg_subsampling: ChromaSubsampling = "444",
        max_message_bytes: int | None = None,
        digest: str | None = None,
        numerics_id: str | None = None,
        pin_numerics: bool = True,
    ) -> SampleStream:
        """Stream the labelled images of latents that the caller brings; `Sample.index` is the row of a latent.

        Args:
            model: Name of the model.
            z: float32 [N, z_dim]. Give one of z, w and w_plus.
            w: float32 [N, w_dim], not truncated; truncation is applied.
            w_plus: float32 [N, num_ws, w_dim], used as it is.
            class_indices: With z of a conditional model, one class a latent.
            truncation_psi: As in `generate`.
            fields: As in `generate`, and so are the arguments below.
            image_codec: How images travel.
            mask_codec: How masks travel.
            jpeg_quality: 1 to 100; None for the server's default.
            jpeg_subsampling: "444", "422" or "420".
            max_message_bytes: Largest message; None for 4 MiB.
            digest: Refuse any other bundle.
            numerics_id: Refuse any other engine.
            pin_numerics: After a reconnect refuse an engine other than the first.

        Raises:
            InvalidArgumentError: An argument cannot be sent. What the server refuses is raised by the first `next`.
        """
        job = label_job(
            model=model,
            z=z,
            w=w,
            w_plus=w_plus,
            class_indices=class_indices,
            truncation_psi=truncation_psi,
            digest=digest,
            numerics_id=numerics_id,
            output=_request.output_options(
                fields=fields,
                image_codec=image_codec,
                mask_codec=mask_codec,
                jpeg_quality=jpeg_quality,
                jpeg_subsampling=jpeg_subsampling,
                max_message_bytes=max_message_bytes,
                max_receive_bytes=self._max_receive_bytes,
            ),
        )

        def open_call(cursor: StreamCursor) -> OpenedCall:
            return self._stub().Label(job.messages(cursor), metadata=call_metadata(self._security)), cursor.next_index

        return self._stream(StreamCursor.of_label(job.options, len(job.latents), pin_numerics=pin_numerics), open_call)

    def close(self) -> None:
        """Close the connection; open streams end."""
        channel = self._channel.close()
        if channel is not None:
            channel.close()

    def _stub(self) -> service_pb2_grpc.LabelMintStub:
        return make_stub(self._channel.get())

    def _stream(self, cursor: StreamCursor, open_call: Callable[[StreamCursor], OpenedCall]) -> SampleStream:
        recovery = Recovery(policy=self._retry, address=self._address)
        return SampleStream(cursor, recovery, open_call, self._channel.renew)

    def _unary(self, call: Callable[[service_pb2_grpc.LabelMintStub], _ResponseT]) -> _ResponseT:
        recovery = Recovery(policy=self._retry, address=self._address)
        while True:
            try:
                return call(self._stub())
            except grpc.RpcError as error:
                time.sleep(recovery.delay_s(FailedCall(error), None))
