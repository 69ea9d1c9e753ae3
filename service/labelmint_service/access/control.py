"""Access control: a token goes in, a caller comes out who may see some models and take so much."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from labelmint.wire import AUTHORIZATION_KEY
from labelmint_service.access.accounts import ClientAccount, ClientAllowance, Surroundings
from labelmint_service.access.allowances import Allowance, Unlimited
from labelmint_service.access.clients import Client
from labelmint_service.access.quota_store import QuotaStore
from labelmint_service.access.quotas import DayUse
from labelmint_service.access.roster import Roster
from labelmint_service.access.tokens import read_bearer
from labelmint_service.errors import AccessFileError, QuotaStoreError, ServiceError, UnauthenticatedError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
"""Time between looks at the file of clients; each call looks too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as far as the service cares.

    Attributes:
        name: Name of the client; empty if clients are not told apart.
        models: Models it sees; None for all.
        make_allowance: Makes the allowance of a new stream.
        is_admin: Whether it may use the admin service.
    """

    name: str
    models: frozenset[str] | None
    make_allowance: Callable[[], Allowance]
    is_admin: bool


ANYONE = Caller(name="", models=None, make_allowance=Unlimited, is_admin=True)
"""The caller where no tokens are asked for. There the admin service listens on loopback at most."""


class Access(Protocol):
    """Decides who may call."""

    async def authenticate(self, values: Sequence[str | bytes]) -> Caller:
        """Tell who calls.

        Args:
            values: Every value of the metadata key `authorization`.

        Raises:
            UnauthenticatedError: Nobody whom the server knows.
        """
        ...

    def start(self) -> None:
        """Begin, on the running event loop."""
        ...

    async def close(self) -> None:
        """End; nothing is handed out any more."""
        ...


class OpenAccess:
    """Lets everybody in."""

    async def authenticate(self, values: Sequence[str | bytes]) -> Caller:
        """Anyone."""
        del values
        return ANYONE

    def start(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class TokenAccess:
    """Lets in who has a token of the file of clients.

    Args:
        tokens: The file.
        quota_file: Where the use of a day is kept; None if no client has a quota.
        metrics: Where to count.
        needs_admin: Whether there has to be a client with the right to use the admin service when it starts.

    Raises:
        AccessFileError: A file cannot be used.
    """

    def __init__(
        self, tokens: Path, quota_file: Path | None, metrics: ServiceMetrics, *, needs_admin: bool = False
    ) -> None:
        self._metrics = metrics
        self._tokens = tokens
        check = functools.partial(_check_quota_file, has_quota_file=quota_file is not None)
        self._roster = Roster(tokens, check)
        if needs_admin and not any(client.admin for client in self._roster.clients):
            raise AccessFileError(
                f"no client of {tokens} has admin = true, but admin_port is set, so that nobody could use it; give one "
                "that right, or leave admin_port out",
                field="tokens",
            )
        self._store = QuotaStore(quota_file) if quota_file is not None else None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="quotas")
        self._accounts: dict[str, ClientAccount] = {}
        self._refreshing = asyncio.Lock()
        self._watch_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the file of clients."""
        self._apply()
        self._watch_task = asyncio.get_running_loop().create_task(self._watch())

    async def authenticate(self, values: Sequence[str | bytes]) -> Caller:
        """Tell who calls; see Access."""
        await self._refresh_if_stale()
        found = self._roster.find(read_bearer(values))
        if found is None:
            raise UnauthenticatedError(
                "the token is none of this server's; check that all of it was sent, or ask the operator for another",
                field=AUTHORIZATION_KEY,
            )
        client, digest = found
        if client.is_expired(datetime.now(UTC)):
            raise UnauthenticatedError(
                f"the token of client {client.name!r} has expired; ask the operator for another",
                field=AUTHORIZATION_KEY,
            )
        account = self._accounts[client.name]
        return Caller(
            name=client.name,
            models=client.models,
            make_allowance=functools.partial(ClientAllowance, account, digest),
            is_admin=client.admin,
        )

    async def close(self) -> None:
        """Give back what was reserved and not used, and free the quota file."""
        if self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.gather(self._watch_task, return_exceptions=True)
        if self._store is not None:
            uses = {name: use for name, account in self._accounts.items() if (use := account.use()) is not None}
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._store.record, uses)
            except QuotaStoreError as error:  # clients lose what was reserved, which is no reason not to stop
                log_event(_log, logging.ERROR, "quota.error", message=str(error))
            await asyncio.get_running_loop().run_in_executor(self._writer, self._store.close)
        self._writer.shutdown()

    async def _watch(self) -> None:
        """Notice changes also while nobody calls: streams of tokens that were withdrawn or have expired end."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._refresh_if_stale()
                for account in self._accounts.values():
                    account.notice_expiry()
            except Exception as error:  # noqa: BLE001 - a defect of ours must not end the watch
                log_event(_log, logging.ERROR, "tokens.error", error=error, message="an unexpected error")

    async def _refresh_if_stale(self) -> None:
        if not self._roster.is_stale and not self._refreshing.locked():
            return
        async with self._refreshing:
            if not self._roster.is_stale:
                return  # another call was faster
            try:
                self._roster.clients = await asyncio.to_thread(self._roster.read)
            except AccessFileError as error:
                self._metrics.note_reload("tokens", is_ok=False)
                log_event(_log, logging.ERROR, "tokens.error", message=f"{error}; the clients before stay in force")
                return
            self._apply()
            self._metrics.note_reload("tokens", is_ok=True)
            log_event(_log, logging.INFO, "tokens.reloaded", path=str(self._tokens), clients=len(self._roster.clients))

    def _apply(self) -> None:
        """Bring the accounts in line with the roster. Those of withdrawn clients stay, for what they have used."""
        clients = {client.name: client for client in self._roster.clients}
        for name, client in clients.items():
            if name not in self._accounts:
                recorded = self._store.loaded.get(name) if self._store else None
                self._accounts[name] = ClientAccount(client, recorded, self._surroundings())
        for name, account in self._accounts.items():
            account.update(clients.get(name))

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            clock_ns=time.monotonic_ns,
            wall_s=time.time,
            call_later=asyncio.get_running_loop().call_later,
            reserve=self._reserve,
            count=lambda name, count: self._metrics.client_samples.labels(name).inc(count),
        )

    def _reserve(self, client: str, use: DayUse, on_done: Callable[[ServiceError | None], None]) -> None:
        """Write down in the thread of the store; call back on the event loop."""
        assert self._store is not None, "a client has a quota and there is no file for it"
        writing = asyncio.get_running_loop().run_in_executor(self._writer, self._store.record, {client: use})

        def on_written(written: asyncio.Future[None]) -> None:
            error = written.exception()
            if error is None:
                on_done(None)
                return
            log_event(_log, logging.ERROR, "quota.error", client=client, message=str(error))
            on_done(error if isinstance(error, ServiceError) else QuotaStoreError("quotas cannot be written down"))

        writing.add_done_callback(on_written)


def _check_quota_file(clients: Sequence[Client], *, has_quota_file: bool) -> None:
    for client in clients:
        if client.samples_per_day is not None and not has_quota_file:
            raise AccessFileError(
                f"client {client.name!r} has samples_per_day, but the setting quota_file is missing, without which a "
                "restart would forget what was used; name a file, or leave samples_per_day out",
                field="quota_file",
            )
