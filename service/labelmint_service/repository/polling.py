"""Polling: the server serves what lies in the folder, looked at now and then.

New and complete is loaded, gone is unloaded, failed is tried again when it has changed, and now and then. A look that
fails, or finds nothing at all where there was something, changes nothing: a volume that is not mounted looks like that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from labelmint_service.errors import VersionFolderError
from labelmint_service.models.catalog import ModelCatalog, VersionState
from labelmint_service.models.references import Reference
from labelmint_service.repository.folders import ModelFolder, Stamp
from labelmint_service.repository.lifecycle import Lifecycle
from labelmint_service.repository.operations import ModelRepository
from labelmint_service.structured_logs import log_event

RETRY_S = 300.0
"""Time after which a version that failed is tried again although nothing of it has changed."""
_log = logging.getLogger(__name__)


class Poller:
    """Keeps what is served in line with the folder.

    Args:
        repository: The folder.
        catalog: What is served.
        lifecycle: Loads and unloads.
        interval_s: Time between looks.
    """

    def __init__(
        self, repository: ModelRepository, catalog: ModelCatalog, lifecycle: Lifecycle, *, interval_s: float
    ) -> None:
        self._repository = repository
        self._catalog = catalog
        self._lifecycle = lifecycle
        self._interval_s = interval_s
        self._tried: dict[Reference, tuple[Stamp, float]] = {}
        self._reported: set[Reference] = set()
        self._problem = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look for the first time, wait until what is there is ready or has failed, and go on looking.

        Raises:
            VersionFolderError: The folder cannot be listed.
        """
        self._begin_all(await self._repository.look())
        await asyncio.gather(*self._tasks)
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more; what was begun goes on."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - a defect of ours must not end the polling
                log_event(_log, logging.ERROR, "repository.error", error=error, message="an unexpected error")

    async def _look(self) -> None:
        problem = ""
        try:
            listing = await self._repository.look()
            if not listing and self._catalog.names:
                problem = "the model repository is empty; what is served stays, remove all but one model to unload them"
            else:
                self._begin_all(listing)
        except VersionFolderError as error:
            problem = f"{error}; what is served stays"
        if problem and problem != self._problem:
            log_event(_log, logging.ERROR, "repository.error", message=problem)
        self._problem = problem

    def _begin_all(self, listing: dict[str, ModelFolder]) -> None:
        there = {
            Reference(name, version): found.stamp
            for name, folder in listing.items()
            for version, found in folder.versions.items()
        }
        for wanted, stamp in there.items():
            if not self._lifecycle.is_busy(wanted) and self._is_due(wanted, stamp):
                self._tried[wanted] = stamp, time.monotonic()
                self._begin(self._repository.load_version(wanted))
        for name in self._catalog.names:
            for version in self._catalog.versions(name):
                gone = Reference(name, version.name)
                if gone not in there and not self._lifecycle.is_busy(gone) and self._may_go(gone):
                    self._tried.pop(gone, None)
                    self._begin(self._repository.unload(str(gone)))

    def _is_due(self, wanted: Reference, stamp: Stamp) -> bool:
        version = self._catalog.version(wanted.name, wanted.version)
        tried = self._tried.get(wanted)
        if version is None or tried is None:
            return version is None or version.state is VersionState.FAILED
        has_changed = stamp != tried[0]
        if version.state is VersionState.READY:
            self._report_altered(wanted, has_changed=has_changed)
            return False
        return has_changed or time.monotonic() - tried[1] > RETRY_S

    def _may_go(self, gone: Reference) -> bool:
        """Whether nothing but its folder keeps a version; an alias that cannot move yet keeps it too."""
        return not self._catalog.held_by(gone.name, gone.version)

    def _report_altered(self, wanted: Reference, *, has_changed: bool) -> None:
        if has_changed and wanted not in self._reported:
            self._reported.add(wanted)
            log_event(
                _log,
                logging.WARNING,
                "model.altered",
                model=wanted.name,
                version=wanted.version,
                message="files of a served version have changed, which changes nothing of what is served; put another "
                "bundle into a folder of its own",
            )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:  # Any: what a coroutine is sent, which is nothing
        async def finish() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - it was reported where it arose, and concerns this version alone
                log_event(_log, logging.DEBUG, "repository.deferred", message=str(error))

        task = asyncio.get_running_loop().create_task(finish())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
