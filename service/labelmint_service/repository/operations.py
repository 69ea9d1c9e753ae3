"""What an operator asks of the repository: load, unload, move an alias, tell what there is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from labelmint_service.errors import ModelNotFoundError, RepositoryStateError, RequestError, VersionFolderError
from labelmint_service.models.catalog import ModelCatalog, VersionState
from labelmint_service.models.references import DEFAULT, LATEST, VERSION_PATTERN, Reference, read_reference, tell_some
from labelmint_service.repository.folders import ModelFolder, scan
from labelmint_service.repository.lifecycle import Lifecycle
from labelmint_service.repository.model_file import ModelFile, read_model_file, write_model_file
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)
_SHOWN = 64


class ModelRepository:
    """The repository as operators see it. For the event loop.

    Args:
        root: Its folder.
        catalog: What is served.
        lifecycle: Loads and unloads.
        unload_limit_s: Time that streams get to end when their version is unloaded.

    Attributes:
        listing: What lay in the folder when it was last looked at, by name.
    """

    def __init__(self, root: Path, catalog: ModelCatalog, lifecycle: Lifecycle, *, unload_limit_s: float) -> None:
        self.listing: dict[str, ModelFolder] = {}
        self._root = root
        self._catalog = catalog
        self._lifecycle = lifecycle
        self._unload_limit_s = unload_limit_s
        self._looking = asyncio.Lock()
        self._wanted: dict[str, dict[str, str]] = {}
        self._problems: dict[str, str] = {}
        lifecycle.on_settled = self._point

    async def look(self) -> dict[str, ModelFolder]:
        """Look at the folder, and let aliases stand for what it says.

        Returns:
            Models by name.

        Raises:
            VersionFolderError: It cannot be listed; everything stays as it is.
        """
        async with self._looking:
            self.listing = await asyncio.to_thread(scan, self._root)
            self._take_aliases()
            return self.listing

    async def load(self, text: str) -> Reference:
        """Load a version and wait until it is ready.

        Args:
            text: Reference; without a version the default, or the newest there is.

        Returns:
            Which version it was.

        Raises:
            RequestError: The text is no reference.
            ModelNotFoundError: There is no such folder.
            BundleError: The bundle is missing, incomplete or altered.
            StartError: It cannot run here, or needs too much memory.
            RepositoryStateError: It is being unloaded.
        """
        wanted = _read(text)
        folder = (await self.look()).get(wanted.name)
        if folder is None:
            raise self._not_found(text, self.listing)
        chosen = self._choose(folder, wanted)
        await self.load_version(chosen)
        return chosen

    async def load_version(self, wanted: Reference) -> None:
        """Load a version that was there at the last look.

        Raises:
            LabelmintError: As `load`.
        """
        folder = self.listing.get(wanted.name)
        if folder is None or wanted.version not in folder.versions:
            raise self._not_found(str(wanted), [])
        if folder.file is None:  # it may state a limit of memory
            raise VersionFolderError(folder.problem, field="model_repository")
        path, limit_bytes = folder.versions[wanted.version].path, folder.file.memory_limit_bytes
        await self._lifecycle.load(wanted, path, memory_limit_bytes=limit_bytes)

    async def unload(self, text: str, *, limit_s: float | None = None) -> None:
        """Unload a version and wait until its engines are closed.

        Args:
            text: Reference with a version.
            limit_s: Time that its streams get to end; None for the setting of the server.

        Raises:
            RequestError: The text names no version.
            ModelNotFoundError: No such version is loaded.
            RepositoryStateError: An alias stands for it, or it is being loaded.
        """
        wanted = _read(text)
        if not wanted.version:
            raise RequestError(
                f"model is {text!r}, expected NAME@VERSION; say which version has to go, none is chosen for you",
                field="model",
            )
        if self._catalog.version(wanted.name, wanted.version) is None:
            loaded = [f"{wanted.name}@{version.name}" for version in self._catalog.versions(wanted.name)]
            raise self._not_found(text, loaded)
        holders = self._catalog.held_by(wanted.name, wanted.version)
        if holders:
            raise RepositoryStateError(
                f"alias {tell_some(holders)} of model {wanted.name!r} stands for version {wanted.version!r}; move it "
                "to another version first",
                field="model",
            )
        await self._lifecycle.unload(wanted, limit_s=self._unload_limit_s if limit_s is None else limit_s)

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias stand for a version that is ready, and write that down.

        Args:
            name: Name of the model.
            alias: The alias.
            version: The version; empty to take the alias away.

        Raises:
            RequestError: The alias is none.
            ModelNotFoundError: There is no such model, or no such alias to take away.
            RepositoryStateError: The version is not ready, or model.json cannot be written.
            VersionFolderError: model.json cannot be read.
        """
        alias = _read(f"{name}@{alias}").version
        folder = (await self.look()).get(name)
        if folder is None:
            raise self._not_found(name, self.listing)
        if alias == LATEST or alias in folder.versions:
            raise RequestError(
                f"alias is {alias!r}, which is {'always the newest version' if alias == LATEST else 'a version'}; "
                "choose another name",
                field="alias",
            )
        async with self._looking:
            before = await asyncio.to_thread(read_model_file, folder.path)
            aliases = dict(before.aliases)
            if version:
                self._check_ready(name, version)
                aliases[alias] = version
            elif aliases.pop(alias, None) is None:
                raise ModelNotFoundError(f"model {name!r} has no alias {alias!r} to take away", field="alias")
            content = ModelFile(aliases=aliases, memory_limit_bytes=before.memory_limit_bytes)
            await asyncio.to_thread(write_model_file, folder.path, content)
            self._wanted[name] = aliases
            self._point(name)
        log_event(_log, logging.INFO, "model.alias", model=name, alias=alias, version=version or None)

    def _check_ready(self, name: str, version: str) -> None:
        found = self._catalog.version(name, version)
        if found is None or found.state is not VersionState.READY:
            raise RepositoryStateError(
                f"version is {version[:_SHOWN]!r}, which is {'not loaded' if found is None else found.state.value}, "
                "expected one that is ready; load it first",
                field="version",
            )

    def _take_aliases(self) -> None:
        """Read what models' files say; a file that cannot be used leaves what it said before in force."""
        for name, folder in self.listing.items():
            problem = folder.problem
            if folder.file is not None:
                self._wanted[name] = dict(folder.file.aliases)
                problem = _dangling(folder, folder.file.aliases)
            if problem and self._problems.get(name) != problem:
                log_event(_log, logging.ERROR, "repository.error", model=name, message=problem)
            self._problems[name] = problem
        for name in set(self._wanted) - set(self.listing):
            del self._wanted[name]
        for name in self._catalog.names:
            self._point(name)

    def _point(self, name: str) -> None:
        self._catalog.point(name, self._wanted.get(name, {}))

    def _choose(self, folder: ModelFolder, wanted: Reference) -> Reference:
        aliases = self._wanted.get(wanted.name, {})
        newest = next(iter(folder.versions), "")
        version = wanted.version if wanted.version in folder.versions else aliases.get(wanted.version or DEFAULT, "")
        if not version and wanted.version in {"", DEFAULT, LATEST}:
            version = newest
        if version not in folder.versions:
            raise self._not_found(str(wanted), [f"{wanted.name}@{one}" for one in (*folder.versions, *aliases)])
        return Reference(wanted.name, version)

    def _not_found(self, text: str, known: Iterable[str]) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"model is {text[:_SHOWN]!r}, expected one of {tell_some(known) or 'none, there is nothing'}; the folder "
            f"is {self._root}",
            field="model",
        )


def _dangling(folder: ModelFolder, aliases: Mapping[str, str]) -> str:
    """What is wrong with aliases that nobody can be served by; empty if nothing is."""
    lost = {alias: version for alias, version in aliases.items() if version not in folder.versions}
    if not lost:
        return ""
    told = tell_some(f"{alias} for {version}" for alias, version in lost.items())
    return (
        f"aliases stand for versions that are not there ({told}), expected of {tell_some(folder.versions) or 'none'}; "
        "put the version into the folder, or give the alias another"
    )


def _read(text: str) -> Reference:
    wanted = read_reference(text)
    if wanted is None:
        raise RequestError(
            f"{text[: 2 * _SHOWN]!r} names no model, expected NAME, NAME@VERSION or NAME@ALIAS, version and alias of "
            f"the form {VERSION_PATTERN}",
            field="model",
        )
    return wanted
