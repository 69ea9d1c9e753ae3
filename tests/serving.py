"""A real labelmint server in this process, on a port of its own, for tests that call it over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from labelmint.v1 import admin_pb2_grpc, service_pb2_grpc
from labelmint_service.models.served import ServedModel, load_model
from labelmint_service.ready_file import Readiness
from labelmint_service.server import LabelmintServer
from labelmint_service.settings import ServiceSettings

START_TIMEOUT_S = 120.0


@dataclass(slots=True)
class Serving:
    """A server that runs in a thread with an event loop of its own.

    Attributes:
        settings: What it was started with.
        models: What it serves.
        server: The server.
        loop: Its event loop.
        readiness: What it said when it was ready.
    """

    settings: ServiceSettings
    models: Sequence[ServedModel]
    server: LabelmintServer
    loop: asyncio.AbstractEventLoop
    readiness: Readiness
    _channels: list[grpc.Channel] = field(default_factory=list)
    _is_stopped: bool = False

    @property
    def address(self) -> str:
        """host:port."""
        return self.readiness.address

    def channel(
        self, credentials: grpc.ChannelCredentials | None = None, *, address: str | None = None
    ) -> grpc.Channel:
        """A new channel with its own connection, for messages of any size; it is closed with the server."""
        address = address or self.address
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if credentials is None:
            channel = grpc.insecure_channel(address, options=options)
        else:
            channel = grpc.secure_channel(address, credentials, options=options)
        self._channels.append(channel)
        return channel

    def stub(self, credentials: grpc.ChannelCredentials | None = None) -> service_pb2_grpc.LabelMintStub:
        """A stub on a new channel."""
        return service_pb2_grpc.LabelMintStub(self.channel(credentials))  # type: ignore[no-untyped-call]  # generated

    def admin(self, credentials: grpc.ChannelCredentials | None = None) -> admin_pb2_grpc.LabelMintAdminStub:
        """A stub of the admin service on a new channel."""
        channel = self.channel(credentials, address=self.readiness.admin)
        return admin_pb2_grpc.LabelMintAdminStub(channel)  # type: ignore[no-untyped-call]  # generated

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Drain and stop the server as SIGTERM does, and wait for it; once is enough."""
        if self._is_stopped:
            return
        self._is_stopped = True
        asyncio.run_coroutine_threadsafe(self.server.stop(grace_s=grace_s), self.loop).result(START_TIMEOUT_S)

    def close_channels(self) -> None:
        """Close what `channel` opened."""
        for channel in self._channels:
            channel.close()


@contextlib.contextmanager
def serving(bundles: Sequence[Path | ServedModel], **settings: object) -> Iterator[Serving]:
    """Serves bundles for the length of a with block.

    Args:
        bundles: Folders of bundles, or models (for example with an engine of the test's own).
        **settings: Fields of ServiceSettings; host is loopback and the ports are free ones.
    """
    models = [load_model(bundle) if isinstance(bundle, Path) else bundle for bundle in bundles]
    chosen = ServiceSettings.model_validate({"port": 0, "metrics_port": 0, "grace_s": 10.0, **settings})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="labelmint-server")
    thread.start()

    async def start() -> tuple[LabelmintServer, Readiness]:
        server = LabelmintServer(chosen, models)
        return server, await server.start()

    try:
        server, readiness = asyncio.run_coroutine_threadsafe(start(), loop).result(START_TIMEOUT_S)
        running = Serving(chosen, models, server, loop, readiness)
        try:
            yield running
        finally:
            running.close_channels()
            running.stop(grace_s=0.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
