"""The keeper: a repository as the settings want it, with its start and its end."""

from __future__ import annotations

from pathlib import Path

from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.repository.lifecycle import Lifecycle, LoadModel
from labelmint_service.repository.operations import ModelRepository
from labelmint_service.repository.polling import Poller
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.settings import ServiceSettings


class RepositoryKeeper:
    """Starts and ends what looks after a repository.

    Args:
        root: Its folder.
        settings: How it is kept.
        catalog: Where versions are put.
        fleet: What runs them.
        load: Loads a bundle.
        metrics: Where to count.

    Attributes:
        operations: What an operator may ask for.
    """

    def __init__(
        self,
        root: Path,
        settings: ServiceSettings,
        catalog: ModelCatalog,
        fleet: Fleet,
        load: LoadModel,
        metrics: ServiceMetrics,
    ) -> None:
        self._settings = settings
        self._lifecycle = Lifecycle(catalog, fleet, load, metrics, timeout_s=settings.load_timeout_s)
        self.operations = ModelRepository(root, catalog, self._lifecycle, unload_limit_s=settings.unload_limit_s)
        self._poller = Poller(self.operations, catalog, self._lifecycle, interval_s=settings.poll_interval_s)

    async def start(self) -> None:
        """Load what there is to begin with, and wait for it.

        Raises:
            VersionFolderError: The folder cannot be used.
            LabelmintError: A version that the settings name cannot be loaded; with polling it is reported and left.
        """
        await self.operations.look()
        if self._settings.repository_mode == "poll":
            await self._poller.start()
        for wanted in self._settings.load:
            await self.operations.load(wanted)

    async def stop(self) -> None:
        """Begin nothing any more."""
        self._lifecycle.stop()
        await self._poller.close()

    @property
    def is_stuck(self) -> bool:
        """Whether a load does not end."""
        return self._lifecycle.is_stuck

    async def close(self) -> None:
        """Wait for what is in work. Streams have to end by themselves."""
        await self._lifecycle.close()
