"""What the blocking and the asynchronous client share: how they are made, and how samples are asked for."""

import abc
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import grpc
import grpc.aio
import numpy.typing as npt

from labelmint.v1 import service_pb2_grpc
from labelmint_client._calls import start_generate, start_label
from labelmint_client._channel import (
    DEFAULT_ADDRESS,
    DEFAULT_MAX_RECEIVE_BYTES,
    DEFAULT_TIMEOUT_S,
    MAX_RECEIVE_BYTES,
    LazyChannel,
    check_address,
)
from labelmint_client._checks import integer, optional_size
from labelmint_client._cursor import StreamCursor
from labelmint_client._label_request import label_job
from labelmint_client._request import (
    ChromaSubsampling,
    Field,
    ImageCodec,
    MaskCodec,
    generate_request,
    output_options,
)
from labelmint_client._retry import Contact, Recovery, RetryPolicy
from labelmint_client._security import Metadata, Tls, make_security
from labelmint_client._stream import OpenedCall
from labelmint_client._trace_context import call_metadata

ChannelT = TypeVar("ChannelT", bound=grpc.Channel | grpc.aio.Channel)
StreamT = TypeVar("StreamT")


class SampleCalls(abc.ABC, Generic[ChannelT, StreamT]):
    """A client as far as it does not matter whether it blocks: channels and streams are its own."""

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
        """Check how the server is to be reached; nothing is opened.

        Args:
            address: "host:port" of the server.
            timeout_s: Limit of `list_models` and `get_model`, seconds.
            max_receive_bytes: Largest message to accept, below 2 GiB. Streams are asked for less, see
                `max_message_bytes`.
            retry: When broken calls are tried again.
            tls: For a server with TLS; None for plain text.
            token: Bearer token, for a server that asks for one; see also `token_from_environment`.
            token_file: File that holds it, instead; read again for each call, so that it may be replaced.
            credentials: Credentials of grpc's own, instead of `tls`.

        Raises:
            InvalidArgumentError: The address is none, a size is out of range, a file cannot be read, or the token would
                leave this machine in plain text.
        """
        self._address = check_address(address)
        self._timeout_s = timeout_s
        self._max_receive_bytes = integer("max_receive_bytes", max_receive_bytes, 1, MAX_RECEIVE_BYTES)
        self._retry = retry or RetryPolicy()
        self._contact = Contact()
        self._security = make_security(
            self._address, tls=tls, credentials=credentials, token=token, token_file=token_file
        )
        self._channel = self._make_channel()

    @abc.abstractmethod
    def _make_channel(self) -> LazyChannel[ChannelT]:
        """Prepare the channel."""

    @abc.abstractmethod
    def _stream(self, cursor: StreamCursor, open_call: Callable[[StreamCursor], OpenedCall]) -> StreamT:
        """Make a stream, which starts its calls with `open_call`."""

    @property
    def address(self) -> str:
        """The server."""
        return self._address

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
    ) -> StreamT:
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

        Returns:
            A `SampleStream`; of an `AsyncClient` an `AsyncSampleStream`.

        Raises:
            InvalidArgumentError: An argument cannot be sent. What the server refuses is raised by the first `next`.
        """
        request = generate_request(
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
            output=output_options(
                fields=fields,
                image_codec=image_codec,
                mask_codec=mask_codec,
                jpeg_quality=jpeg_quality,
                jpeg_subsampling=jpeg_subsampling,
                max_message_bytes=max_message_bytes,
                max_receive_bytes=self._max_receive_bytes,
            ),
        )
        ring_bytes = optional_size("shared_memory_bytes", shared_memory_bytes)

        def open_call(cursor: StreamCursor) -> OpenedCall:
            return start_generate(self._channel.get(), cursor.resumed(request), ring_bytes, self._metadata()), None

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
    ) -> StreamT:
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

        Returns:
            A `SampleStream`; of an `AsyncClient` an `AsyncSampleStream`.

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
            output=output_options(
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
            return start_label(self._channel.get(), job.messages(cursor), self._metadata()), cursor.next_index

        return self._stream(StreamCursor.of_label(job.options, len(job.latents), pin_numerics=pin_numerics), open_call)

    def _stub(self) -> service_pb2_grpc.LabelMintStub:
        return service_pb2_grpc.LabelMintStub(self._channel.get())  # type: ignore[no-untyped-call]  # generated

    def _metadata(self) -> Metadata:
        return call_metadata(self._security)

    def _recovery(self) -> Recovery:
        return Recovery(policy=self._retry, address=self._address, contact=self._contact)
