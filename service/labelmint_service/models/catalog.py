"""The catalog: which models and versions there are, how they do, and which of them a reference means.

It holds names, not work: `fleet` has what runs. All changes and look-ups happen on the event loop, so that a reference
means one version or another, and never something between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from labelmint_service.errors import (
    ModelForbiddenError,
    ModelNotFoundError,
    ModelNotReadyError,
    RequestError,
    StartError,
)
from labelmint_service.models.references import (
    DEFAULT,
    LATEST,
    Reference,
    read_reference,
    tell_some,
    version_order,
)
from labelmint_service.models.served import ServedModel

_SHOWN = 64


class VersionState(Enum):
    """How far a version is."""

    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of a model.

    Attributes:
        name: Name of the version.
        state: How far it is.
        model: What serves it; None until it is ready.
        reason: Why it failed, for operators.
        brief_reason: Why it failed, for every caller.
    """

    name: str
    state: VersionState
    model: ServedModel | None = None
    reason: str = ""
    brief_reason: str = ""

    def __str__(self) -> str:
        told = f"{self.name} is {self.state.value}"
        return f"{told}: {self.brief_reason}" if self.brief_reason else told


@dataclass(slots=True)
class _Entry:
    """A model.

    Attributes:
        versions: By name.
        aliases: Version by alias; None for one whose version is not ready.
        meant: Version by alias, as it was asked for, ready or not.
    """

    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[str, str | None] = field(default_factory=dict)
    meant: dict[str, str] = field(default_factory=dict)

    def ready(self) -> dict[str, ServedModel]:
        """Versions that serve, newest first."""
        newest_first = sorted(self.versions.values(), key=lambda version: version_order(version.name), reverse=True)
        return {
            version.name: version.model
            for version in newest_first
            if version.state is VersionState.READY and version.model is not None
        }

    def standing_for(self, alias: str) -> str | None:
        """The version that an alias stands for at present; None if it is not ready.

        Raises:
            KeyError: There is no such alias.
        """
        if alias in self.aliases:
            return self.aliases[alias]
        if alias in {DEFAULT, LATEST}:
            return next(iter(self.ready()), None)
        raise KeyError(alias)


class ModelCatalog:
    """Models by name, each with its versions and aliases.

    Args:
        models: Models of one version each.

    Attributes:
        on_change: Called after each change.

    Raises:
        StartError: Two models share a name.
    """

    def __init__(self, models: Iterable[ServedModel] = ()) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._entries: dict[str, _Entry] = {}
        self._hidden: frozenset[str] = frozenset()
        for model in models:
            if model.name in self._entries:
                raise StartError(
                    f"two bundles, the second in {model.bundle.root}, both have the name {model.name!r}, expected "
                    "names of their own; serve one of them, or both as versions of a model_repository",
                    field="bundle",
                )
            version = Version(name=model.bundle.manifest.version, state=VersionState.READY, model=model)
            self._entries[model.name] = _Entry(versions={version.name: version})

    def limited_to(self, names: frozenset[str] | None) -> ModelCatalog:
        """The catalog as somebody sees it who may use some of the models only.

        Args:
            names: Names of these models, of which not all need be served; None for all there are.
        """
        if names is None:
            return self
        limited = ModelCatalog()
        limited._entries = {name: entry for name, entry in self._entries.items() if name in names}
        limited._hidden = frozenset(self._entries) - names
        return limited

    def __iter__(self) -> Iterator[ServedModel]:
        """The default version of each model that has one."""
        yield from (default for name in self._entries if (default := self.default(name)) is not None)

    @property
    def names(self) -> list[str]:
        """Names of all models, those without a ready version too."""
        return list(self._entries)

    def default(self, name: str) -> ServedModel | None:
        """What the name of a model alone asks for; None if that is not ready."""
        entry = self._entries[name]
        standing = entry.standing_for(DEFAULT)
        return None if standing is None else entry.ready()[standing]

    def versions(self, name: str) -> list[Version]:
        """Versions of a model, newest first; none if there is no such model."""
        entry = self._entries.get(name, _Entry())
        return sorted(entry.versions.values(), key=lambda version: version_order(version.name), reverse=True)

    def version(self, name: str, version: str) -> Version | None:
        """A version of a model, if there is one of that name."""
        return self._entries.get(name, _Entry()).versions.get(version)

    def aliases(self, name: str) -> dict[str, str]:
        """Version by alias, of aliases whose version is ready; `default` and `latest` among them."""
        entry = self._entries.get(name, _Entry())
        standing = {alias: entry.standing_for(alias) for alias in (*entry.aliases, DEFAULT, LATEST)}
        return {alias: version for alias, version in standing.items() if version is not None}

    def held_by(self, name: str, version: str) -> list[str]:
        """Aliases that an operator has set and that stand for a version at present."""
        entry = self._entries.get(name, _Entry())
        return [alias for alias, standing in entry.aliases.items() if standing == version]

    def put(self, name: str, version: Version) -> None:
        """Add a version, or replace what was known of it."""
        self._entries.setdefault(name, _Entry()).versions[version.name] = version
        self.on_change()

    def change(self, name: str, version: str, state: VersionState) -> None:
        """Give a version another state."""
        self.put(name, replace(self._entries[name].versions[version], state=state))

    def drop(self, name: str, version: str) -> None:
        """Forget a version, and the model with its last one."""
        entry = self._entries[name]
        del entry.versions[version]
        if not entry.versions:
            del self._entries[name]
        self.on_change()

    def point(self, name: str, aliases: Mapping[str, str]) -> None:
        """Say which versions aliases are to stand for. Each moves once its version is ready, all at the same time.

        Until then one stands for the version that it stood for, if that is still ready.

        Args:
            name: Name of a model; nothing happens if there is none.
            aliases: Version by alias; others are taken away.
        """
        entry = self._entries.get(name)
        if entry is None:
            return
        ready = entry.ready()

        def standing(alias: str, wanted: str) -> str | None:
            before = entry.aliases.get(alias)
            return wanted if wanted in ready else before if before in ready else None

        entry.aliases = {alias: standing(alias, wanted) for alias, wanted in aliases.items()}
        entry.meant = dict(aliases)
        self.on_change()

    def find(self, text: str, *, field: str) -> list[ServedModel]:
        """What a reference means.

        Args:
            text: As the request has it.
            field: Request field it came in.

        Returns:
            The model, and if the reference names no version in particular, the other ready ones after it, newest first:
            one of them may be what the request pins.

        Raises:
            RequestError: The reference is empty.
            ModelForbiddenError: The model is served, but not to whom this catalog is for.
            ModelNotFoundError: There is no such model or version.
            ModelNotReadyError: There is, but it is not ready.
        """
        if not text:
            raise RequestError(f"{field} is empty, expected one of {self._served}; name the model", field=field)
        wanted = read_reference(text) or Reference(text, "")
        if wanted.name in self._hidden:
            raise ModelForbiddenError(
                f"{field} is {text[:_SHOWN]!r}, which your token does not open, expected one of {self._served}; "
                "choose one of these or ask the operator for access",
                field=field,
            )
        entry = self._entries.get(wanted.name)
        if entry is None:
            raise ModelNotFoundError(
                f"{field} is {text[:_SHOWN]!r}, expected one of {self._served}; choose a served model",
                field=field,
            )
        return self._ready(entry, wanted, field)

    @property
    def _served(self) -> str:
        """What an error says is served."""
        return tell_some(sorted(self._entries)) or "none"

    def _ready(self, entry: _Entry, wanted: Reference, field: str) -> list[ServedModel]:
        ready = entry.ready()
        if wanted.version in entry.versions:  # an empty reference is no version: see VERSION_PATTERN
            version, others = wanted.version, []
        else:
            try:
                standing = entry.standing_for(wanted.version or DEFAULT)
            except KeyError:
                known = tell_some([*entry.versions, *entry.aliases, LATEST])
                raise ModelNotFoundError(
                    f"{field} is {str(wanted)!r}, but model {wanted.name!r} has no such version or alias, expected one "
                    f"of {known}; choose one of these",
                    field=field,
                ) from None
            version = standing or ""
            others = [model for name, model in ready.items() if name != version]
        if version not in ready:
            name = version or entry.meant.get(wanted.version or DEFAULT, "")
            absent = [one for one in self.versions(wanted.name) if one.name not in ready]
            meant = [one for one in absent if name in {one.name, ""}]
            reasons = tell_some(meant, separator="; ") or f"{name} is not there"
            is_coming = any(one.state in {VersionState.LOADING, VersionState.WARMING} for one in meant)
            instead = tell_some(f"{wanted.name}@{name}" for name in ready) or "another model"
            raise ModelNotReadyError(
                f"{field} is {str(wanted)!r}, which is not ready ({reasons}); "
                f"{'ask again later' if is_coming else 'tell the operator'}, or ask for {instead}",
                field=field,
                is_coming=is_coming,
            )
        return [ready[version], *others]
