"""The life of a server in its process: from its start to a signal, or to an engine that is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from labelmint.errors import LabelmintError
from labelmint_service.errors import StuckStartError
from labelmint_service.models.served import ServedModel
from labelmint_service.ready_file import Readiness, ready_file
from labelmint_service.server import Ending, LabelmintServer
from labelmint_service.settings import ServiceSettings
from labelmint_service.terminal import complain


async def serve(
    settings: ServiceSettings,
    models: Sequence[ServedModel],
    announce: Callable[[Readiness], None],
) -> Ending:
    """Serve until SIGTERM or SIGINT, or until an engine is lost; then drain. A second signal ends the grace.

    Args:
        settings: Where to serve.
        models: What to serve; their engines are closed in the end.
        announce: Called once the server is ready.

    Returns:
        How it ended; unless it was clean, threads are left that may never end.

    Raises:
        StuckStartError: The server cannot start, and a thread is left that may never end.
        StartError: A port cannot be taken, the ready file cannot be written, or two models share a name.
        BundleError: A version that the settings name cannot be loaded.
    """
    server = LabelmintServer(settings, models)
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            server.hurry()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    ends = [loop.create_task(event.wait()) for event in (stopping, server.lost)]
    starting = loop.create_task(server.start())
    await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()  # which stops the server
        await asyncio.gather(starting, return_exceptions=True)
        return server.ending
    try:
        readiness = starting.result()
    except LabelmintError as error:
        if server.is_stuck:
            raise StuckStartError(str(error)) from error
        raise
    grace_s = 0.0
    try:
        with ready_file(settings.ready_file, readiness):
            announce(readiness)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        grace_s = settings.grace_s
    finally:
        for end in ends:
            end.cancel()
        await server.stop(grace_s=grace_s)
        if settings.profile:
            complain(server.profile())
    return server.ending
