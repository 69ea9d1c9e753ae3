"""Channels: opened when first used, and once per process.

A channel that a parent opened is of no use in a forked child, and touching it there can hang or crash. So nothing is
opened before the first call, and a child opens its own; the inherited one is kept untouched until the child ends. That
is enough if the parent had not called yet; else grpc must have been loaded with GRPC_ENABLE_FORK_SUPPORT=1.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import grpc

from labelmint.wire import MAX_FRAME_BYTES
from labelmint_client._checks import text
from labelmint_client._errors import InvalidArgumentError, UsageError
from labelmint_client._security import Security

_ChannelT = TypeVar("_ChannelT")

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_MAX_RECEIVE_BYTES = 64 << 20
MAX_RECEIVE_BYTES = 2**31 - 1
"""What grpc takes as a limit."""
DEFAULT_TIMEOUT_S = 30.0
_LOOKAHEAD_BYTES = 16 << 20
"""What may be on its way to a reader while it reads a message; more than its messages and it gains nothing."""

# What other processes or event loops opened: neither closed nor collected here.
_abandoned: list[object] = []


def abandon(opened: object) -> None:
    """Keep what another owner opened from being closed or collected here.

    Args:
        opened: A channel or a call.
    """
    _abandoned.append(opened)


def open_channel(address: str, security: Security, max_receive_bytes: int = DEFAULT_MAX_RECEIVE_BYTES) -> grpc.Channel:
    """Open a channel.

    Args:
        address: Checked.
        security: TLS, or none.
        max_receive_bytes: Largest message to accept.
    """
    options, credentials = _options(security, max_receive_bytes), security.credentials()
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def open_aio_channel(address: str, security: Security, max_receive_bytes: int) -> grpc.aio.Channel:
    """Open a channel of the running event loop; see `open_channel`."""
    options, credentials = _options(security, max_receive_bytes), security.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _options(security: Security, max_receive_bytes: int) -> list[tuple[str, int | str]]:
    return [
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_send_message_length", max_receive_bytes),
        ("grpc.http2.max_frame_size", MAX_FRAME_BYTES),
        ("grpc.http2.lookahead_bytes", _LOOKAHEAD_BYTES),
        # A dead peer is noticed within 40 s, also while no message comes. The server permits pings this often.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # grpcio 1.85 never starts the timer of the line above; without this one a dead peer is noticed after 90 s.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # grpc's own wait before it dials again grows to two minutes: RetryPolicy decides instead.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Each client has its own connection.
        ("grpc.use_local_subchannel_pool", 1),
        # Where a name stands for several servers, calls go to all of them in turn, and past those that are gone.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        *security.options,
    ]


def check_address(address: object) -> str:
    """Refuse what grpc would only fail on later and darkly.

    Args:
        address: "host:port", or a target with a scheme that grpc knows, such as "dns:///host:port" or "unix:/path".

    Raises:
        InvalidArgumentError: It is no such text.
    """
    expected = f'expected "host:port", for example "{DEFAULT_ADDRESS}"'
    if not isinstance(address, str) or not address.strip() or address.startswith(("http:", "https:", "grpc:")):
        raise InvalidArgumentError(f"address is {address!r}, {expected}", field="address")
    text("address", address)
    if "/" in address or address.startswith("unix"):
        return address
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InvalidArgumentError(f"address is {address!r}, {expected}", field="address")
    return address


class LazyChannel(Generic[_ChannelT]):
    """A channel for the process, and event loop, that asks for it.

    Args:
        open_channel: Makes a channel.
        owner: Names who may use it: the process, or process and event loop.
    """

    def __init__(self, open_channel: Callable[[], _ChannelT], owner: Callable[[], object]) -> None:
        self._open_channel = open_channel
        self._owner = owner
        self._opened: tuple[object, _ChannelT] | None = None
        self._closed = False
        # Two threads that call first at the same time would open one each, of which one is never closed.
        self._lock = threading.Lock()

    def get(self) -> _ChannelT:
        """Return this owner's channel, opening it if need be.

        Raises:
            UsageError: The client was closed.
        """
        owner = self._owner()
        with self._lock:
            if self._closed:
                raise UsageError("this client is closed; create another")
            if self._opened is None or self._opened[0] != owner:
                _put_away(self._opened)
                self._opened = (owner, self._open_channel())
            return self._opened[1]

    def renew(self) -> None:
        """Open another channel for the next call; grpc closes the present one with the last of its calls."""
        with self._lock:
            self._opened = None

    def close(self) -> _ChannelT | None:
        """Refuse further use.

        Returns:
            The channel for the caller to close, if this owner opened one.
        """
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is None or opened[0] == self._owner():
            return None if opened is None else opened[1]
        _put_away(opened)
        return None


def _put_away(opened: tuple[object, object] | None) -> None:
    """Let go of what another owner opened: what may still be in use is kept from being collected here."""
    if opened is not None and not _is_over(opened[0]):
        abandon(opened)


def _is_over(owner: object) -> bool:
    match owner:
        case (int() as process, asyncio.AbstractEventLoop() as loop):
            return process == os.getpid() and loop.is_closed()
    return False


def process_id() -> int:
    """Name the owner of a blocking channel."""
    return os.getpid()


def is_task_cancelled() -> bool:
    """Tell whether the running task is being cancelled: grpc raises the same error where its call or channel was."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def process_and_loop() -> tuple[int, asyncio.AbstractEventLoop]:
    """Name the owner of an asynchronous channel."""
    return os.getpid(), asyncio.get_running_loop()
