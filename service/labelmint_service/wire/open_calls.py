"""Open calls: those of services that are not ours and ask for no token of their own, health and reflection.

Requests come as bytes, as those of our own methods do: grpc would answer one that cannot be parsed with UNKNOWN, write
its trace into the log, and never end a call that sends none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc

from labelmint.errors import LabelmintError
from labelmint_service.wire.calls import Context, leaving_cancels
from labelmint_service.wire.error_codes import code_name


async def answer_openly(context: Context, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work of a call; what it raises of ours becomes the call's status."""
    with leaving_cancels():
        try:
            await work()
        except LabelmintError as error:
            await context.abort(grpc.StatusCode[code_name(error) or "INTERNAL"], str(error))
