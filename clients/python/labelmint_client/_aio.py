"""The asynchronous client."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client._aio_stream import AsyncSampleStream
from labelmint_client._channel import LazyChannel, is_task_cancelled, open_aio_channel, process_and_loop
from labelmint_client._checks import text
from labelmint_client._cursor import StreamCursor
from labelmint_client._errors import UsageError
from labelmint_client._failed_call import FailedCall
from labelmint_client._model import Model, ModelSummary
from labelmint_client._sample_calls import SampleCalls
from labelmint_client._stream import OpenedCall


class AsyncClient(SampleCalls[grpc.aio.Channel, AsyncSampleStream]):
    """Talks to a labelmint server from asyncio.

    Opens nothing before the first call, then one connection an event loop.
    """

    async def list_models(self) -> list[ModelSummary]:
        """List what the server has.

        Raises:
            ClientError: See the tree of errors.
        """
        response = await self._unary(lambda stub: stub.ListModels, service_pb2.ListModelsRequest())
        return [ModelSummary.from_message(message) for message in response.models]

    async def get_model(self, name: str) -> Model:
        """Describe a model: classes, palette, keypoints, sizes, licence and the whole manifest.

        Args:
            name: "name", "name@version" or "name@alias", here and wherever a model is named.

        Raises:
            ModelNotFoundError: The server has no such model.
            ClientError: See the tree of errors.
        """
        request = service_pb2.GetModelRequest(model=text("model", name))
        return Model.from_message(await self._unary(lambda stub: stub.GetModel, request))

    async def close(self) -> None:
        """Close the connection; open streams end."""
        channel = self._channel.close()
        if channel is not None:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _make_channel(self) -> LazyChannel[grpc.aio.Channel]:
        return LazyChannel(
            lambda: open_aio_channel(self._address, self._security, self._max_receive_bytes), process_and_loop
        )

    def _stream(self, cursor: StreamCursor, open_call: Callable[[StreamCursor], OpenedCall]) -> AsyncSampleStream:
        return AsyncSampleStream(cursor, self._recovery(), open_call)

    # Any: generated code has no types.
    async def _unary(self, method: Callable[[service_pb2_grpc.LabelMintStub], Any], request: object) -> Any:
        recovery = self._recovery()
        while True:
            try:
                answer = await method(self._stub())(request, timeout=self._timeout_s, metadata=self._metadata())
            except grpc.RpcError as error:
                await asyncio.sleep(recovery.delay_s(FailedCall(error), None))
            except asyncio.CancelledError:
                if is_task_cancelled():
                    raise
                raise UsageError("the client was closed while this call waited for its answer") from None
            else:
                recovery.answered()
                return answer
