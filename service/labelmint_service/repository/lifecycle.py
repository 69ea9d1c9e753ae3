"""The life of a version: from its folder to ready, and from there to closed.

(folder) --load--> loading --engines made--> warming --first runs well--> ready --unload--> unloading --> (folder)
                      └------------- failed, with the reason, until the next try ------------┘

Versions are loaded one at a time in a thread of its own, so that the growth of the process is that of one of them, and
so that streams lose little. A load that fails changes nothing of what is served. One that does not end has failed, and
its thread is left behind.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from labelmint.bundle import Bundle, open_bundle
from labelmint.errors import LabelmintError
from labelmint_service.errors import DrainingError, LoadTimeoutError, RepositoryStateError, VersionFolderError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.catalog import ModelCatalog, Version, VersionState
from labelmint_service.models.references import Reference
from labelmint_service.models.served import ServedModel
from labelmint_service.repository.failures import brief_reason
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)
_Work = Callable[[], Coroutine[Any, Any, Exception | None]]  # Any: what a coroutine is sent, which is nothing


class LoadModel(Protocol):
    """Loads a bundle as the settings of the server say; see models.served.load_model."""

    def __call__(
        self,
        path: Path,
        *,
        memory_limit_bytes: int | None,
        on_verified: Callable[[Bundle], None],
        on_made: Callable[[], None],
    ) -> ServedModel:
        """Load it."""
        ...


def _make_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="load")


class Lifecycle:
    """Loads and unloads versions.

    Args:
        catalog: Where versions are put.
        fleet: What runs them.
        load: Loads a bundle.
        metrics: Where to count.
        timeout_s: How long a load may take.

    Attributes:
        on_settled: Called with the name of a model after a version of it became ready, or went.
    """

    def __init__(
        self, catalog: ModelCatalog, fleet: Fleet, load: LoadModel, metrics: ServiceMetrics, *, timeout_s: float
    ) -> None:
        self.on_settled: Callable[[str], None] = lambda _: None
        self._catalog = catalog
        self._fleet = fleet
        self._load = load
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._thread = _make_thread()
        self._one_at_a_time = asyncio.Lock()
        self._left_behind: set[asyncio.Future[ServedModel]] = set()
        self._tasks: dict[Reference, asyncio.Task[Exception | None]] = {}
        self._is_stopping = False

    @property
    def is_stuck(self) -> bool:
        """Whether a load does not end, so that the process cannot wait for its threads."""
        return bool(self._left_behind)

    def is_busy(self, wanted: Reference) -> bool:
        """Whether a version is being loaded or unloaded."""
        task = self._tasks.get(wanted)
        return task is not None and not task.done()

    async def load(self, wanted: Reference, path: Path, *, memory_limit_bytes: int | None) -> None:
        """Load a version that is not ready; wait for it if it is being loaded. Being cancelled does not end the load.

        Args:
            wanted: Name of model and version.
            path: Its folder.
            memory_limit_bytes: Most that the process may grow by; None for the limit of the server.

        Raises:
            RepositoryStateError: It is being unloaded.
            BundleError: The bundle is missing, incomplete or altered.
            StartError: It cannot run here, or needs too much memory.
            DrainingError: The server is going away.
        """
        version = self._catalog.version(wanted.name, wanted.version)
        if version is not None and version.state is VersionState.READY:
            return
        if version is not None and version.state is VersionState.UNLOADING:
            raise RepositoryStateError(f"{wanted} is being unloaded; load it when that has ended", field="model")
        if not self.is_busy(wanted):
            self._check_running()
            self._put(wanted, VersionState.LOADING)
        await self._work(wanted, lambda: self._bring_up(wanted, path, memory_limit_bytes))

    async def unload(self, wanted: Reference, *, limit_s: float) -> None:
        """Take a version away; wait for it if that has begun. Being cancelled does not end the unloading.

        Args:
            wanted: Name of model and version.
            limit_s: Time that its streams get to end.

        Raises:
            RepositoryStateError: It is being loaded.
        """
        version = self._catalog.version(wanted.name, wanted.version)
        if version is None:
            return
        if version.state in {VersionState.LOADING, VersionState.WARMING}:
            raise RepositoryStateError(f"{wanted} is being loaded; unload it when that has ended", field="model")
        if not self.is_busy(wanted):
            self._check_running()
            self._catalog.change(wanted.name, wanted.version, VersionState.UNLOADING)
            self.on_settled(wanted.name)
        await self._work(wanted, lambda: self._bring_down(wanted, version.model, limit_s))

    def stop(self) -> None:
        """Begin nothing any more; a load ends after the step at hand."""
        self._is_stopping = True

    async def close(self) -> None:
        """Stop, and wait for what is in work."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks.values())  # unlike gathering, being cancelled here cancels none
        self._thread.shutdown(wait=False)

    async def _work(self, wanted: Reference, begin: _Work) -> None:
        """Begin with something, or join it if it has begun. What it is and the state of the version change together."""
        if not self.is_busy(wanted):
            self._tasks[wanted] = asyncio.get_running_loop().create_task(begin())
            self._tasks[wanted].add_done_callback(lambda done: self._forget(wanted, done))
        error = await asyncio.shield(self._tasks[wanted])
        if error is not None:
            raise error

    def _forget(self, wanted: Reference, done: asyncio.Task[Exception | None]) -> None:
        if self._tasks.get(wanted) is done:  # and not what was begun right after it
            del self._tasks[wanted]

    async def _bring_up(self, wanted: Reference, path: Path, memory_limit_bytes: int | None) -> Exception | None:
        """Load, and make ready. What went wrong is the result: often nobody waits for it."""
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        made = functools.partial(loop.call_soon_threadsafe, self._note_made, wanted, this)
        loading = functools.partial(self._load_in_thread, wanted, path, memory_limit_bytes, made)
        try:
            async with self._one_at_a_time:
                model = await self._in_time(wanted, loop.run_in_executor(self._thread, loading))
            if self._is_stopping:
                await asyncio.to_thread(model.close)
                self._check_running()
        except DrainingError as error:
            self._catalog.drop(wanted.name, wanted.version)
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this version's alone, and is reported
            self._report_failure(wanted, error)
            return error
        self._fleet.deploy(model, wanted.version)
        self._catalog.put(wanted.name, Version(name=wanted.version, state=VersionState.READY, model=model))
        self._metrics.model_loads.labels(wanted.name, "ok").inc()
        log_event(
            _log,
            logging.INFO,
            "model.loaded",
            model=wanted.name,
            version=wanted.version,
            digest=model.bundle.digest,
            memory_bytes=model.memory_bytes,
            path=str(path),
        )
        self.on_settled(wanted.name)
        return None

    async def _in_time(self, wanted: Reference, loading: asyncio.Future[ServedModel]) -> ServedModel:
        """Wait for a load; leave its thread behind, and load in another one, if it takes too long.

        Raises:
            LoadTimeoutError: It does.
        """
        done, _ = await asyncio.wait({loading}, timeout=self._timeout_s)
        if not done:
            self._left_behind.add(loading)
            loading.add_done_callback(self._on_ended_late)
            self._thread.shutdown(wait=False)
            self._thread = _make_thread()
            raise LoadTimeoutError(str(wanted), self._timeout_s)
        return loading.result()

    def _on_ended_late(self, loading: asyncio.Future[ServedModel]) -> None:
        """Throw away what nobody waits for any more."""
        self._left_behind.discard(loading)
        if not loading.cancelled() and loading.exception() is None:
            asyncio.get_running_loop().run_in_executor(None, loading.result().close)

    def _load_in_thread(
        self, wanted: Reference, path: Path, memory_limit_bytes: int | None, made: Callable[[], object]
    ) -> ServedModel:
        def on_verified(bundle: Bundle) -> None:
            self._check_running()
            if bundle.name != wanted.name:
                raise VersionFolderError(
                    f"the bundle in {path} has the name {bundle.name!r}, expected {wanted.name!r}, the name of its "
                    "folder in the repository; move it, or build it with that name",
                    field="model_repository",
                )

        def on_made() -> None:
            self._check_running()
            made()

        self._check_running()
        # Sizes first: a copy that is not finished is found out without hashing what is there of it.
        on_verified(open_bundle(path, verify_files=False))
        return self._load(path, memory_limit_bytes=memory_limit_bytes, on_verified=on_verified, on_made=on_made)

    def _report_failure(self, wanted: Reference, error: Exception) -> None:
        is_ours = not isinstance(error, LabelmintError)
        reason = "an unexpected error; the server's log has it" if is_ours else str(error)
        brief = brief_reason(error)
        failed = Version(name=wanted.version, state=VersionState.FAILED, reason=reason, brief_reason=brief)
        self._catalog.put(wanted.name, failed)
        self._metrics.model_loads.labels(wanted.name, "error").inc()
        log_event(
            _log,
            logging.ERROR,
            "model.load_failed",
            error=error if is_ours else None,
            model=wanted.name,
            version=wanted.version,
            message=reason,
        )

    async def _bring_down(self, wanted: Reference, model: ServedModel | None, limit_s: float) -> Exception | None:
        """Let the streams of a version end and close it; one that failed is only forgotten."""
        try:
            if model is not None:
                log_event(
                    _log, logging.INFO, "model.unloading", model=wanted.name, version=wanted.version, limit_s=limit_s
                )
                await self._fleet.retire(model, wanted.version, limit_s=limit_s)
        except Exception as error:  # noqa: BLE001 - engines that do not close; there is nothing more to be done
            log_event(_log, logging.ERROR, "model.close_failed", error=error, model=wanted.name)
            return error
        finally:
            self._catalog.drop(wanted.name, wanted.version)
        return None

    def _note_made(self, wanted: Reference, loading: asyncio.Task[Any] | None) -> None:  # Any: whatever it ends with
        """Note that engines are made, unless their load was left behind: the version is then none of its business."""
        if self.is_busy(wanted) and self._tasks[wanted] is loading:
            self._put(wanted, VersionState.WARMING)

    def _put(self, wanted: Reference, state: VersionState) -> None:
        self._catalog.put(wanted.name, Version(name=wanted.version, state=state))

    def _check_running(self) -> None:
        if self._is_stopping:
            raise DrainingError("the server is going away; ask another one or retry after its restart")
