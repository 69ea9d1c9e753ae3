"""The blocking client."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client._channel import LazyChannel, open_channel, process_id
from labelmint_client._checks import text
from labelmint_client._closing import Closing
from labelmint_client._cursor import StreamCursor
from labelmint_client._failed_call import FailedCall
from labelmint_client._model import Model, ModelSummary
from labelmint_client._sample_calls import SampleCalls
from labelmint_client._stream import OpenedCall
from labelmint_client._sync_stream import SampleStream


class Client(SampleCalls[grpc.Channel, SampleStream], Closing):
    """Talks to a labelmint server. Opens nothing before the first call, and may be shared by threads.

    Forked processes may share a client that was not used before. After the first call grpc's own threads run, and a
    forked child can hang in them: start processes with "spawn", fork before the first call, or set
    GRPC_ENABLE_FORK_SUPPORT=1 before Python starts.
    """

    def list_models(self) -> list[ModelSummary]:
        """List what the server has.

        Raises:
            ClientError: See the tree of errors.
        """
        response = self._unary(lambda stub: stub.ListModels, service_pb2.ListModelsRequest())
        return [ModelSummary.from_message(message) for message in response.models]

    def get_model(self, name: str) -> Model:
        """Describe a model: classes, palette, keypoints, sizes, licence and the whole manifest.

        Args:
            name: "name", "name@version" or "name@alias", here and wherever a model is named.

        Raises:
            ModelNotFoundError: The server has no such model.
            ClientError: See the tree of errors.
        """
        request = service_pb2.GetModelRequest(model=text("model", name))
        return Model.from_message(self._unary(lambda stub: stub.GetModel, request))

    def close(self) -> None:
        """Close the connection; open streams end."""
        channel = self._channel.close()
        if channel is not None:
            channel.close()

    def _make_channel(self) -> LazyChannel[grpc.Channel]:
        return LazyChannel(lambda: open_channel(self._address, self._security, self._max_receive_bytes), process_id)

    def _stream(self, cursor: StreamCursor, open_call: Callable[[StreamCursor], OpenedCall]) -> SampleStream:
        return SampleStream(cursor, self._recovery(), open_call, self._channel.renew)

    # Any: generated code has no types.
    def _unary(self, method: Callable[[service_pb2_grpc.LabelMintStub], Any], request: object) -> Any:
        recovery = self._recovery()
        while True:
            try:
                answer = method(self._stub())(request, timeout=self._timeout_s, metadata=self._metadata())
            except grpc.RpcError as error:
                time.sleep(recovery.delay_s(FailedCall(error), None))
            else:
                recovery.answered()
                return answer
