"""Versions of a model as messages of the wire."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from labelmint.v1 import service_pb2
from labelmint_service.models.catalog import ModelCatalog, VersionState
from labelmint_service.models.served import ServedModel

_STATES = MappingProxyType(
    {
        None: service_pb2.VERSION_STATE_UNSPECIFIED,
        VersionState.LOADING: service_pb2.VERSION_STATE_LOADING,
        VersionState.WARMING: service_pb2.VERSION_STATE_WARMING,
        VersionState.READY: service_pb2.VERSION_STATE_READY,
        VersionState.UNLOADING: service_pb2.VERSION_STATE_UNLOADING,
        VersionState.FAILED: service_pb2.VERSION_STATE_FAILED,
    }
)


def summary_message(catalog: ModelCatalog, name: str) -> service_pb2.ModelSummary:
    """Describe a model in short, by the version that its name alone asks for."""
    summary = service_pb2.ModelSummary(name=name, versions=version_messages(catalog, name))
    default = catalog.default(name)
    if default is not None:
        summary.version = default.bundle.manifest.version
        summary.digest = default.bundle.digest
        summary.numerics_id = default.numerics.id
        summary.description = default.bundle.manifest.description
    return summary


def version_messages(catalog: ModelCatalog, name: str) -> list[service_pb2.ModelVersion]:
    """Describe the versions of a model, newest first."""
    aliases = catalog.aliases(name)
    return [
        version_message(
            version.name,
            version.state,
            version.model,
            sorted(alias for alias, standing in aliases.items() if standing == version.name),
            version.brief_reason,
        )
        for version in catalog.versions(name)
    ]


def version_message(
    name: str,
    state: VersionState | None = None,
    model: ServedModel | None = None,
    aliases: Sequence[str] = (),
    reason: str = "",
) -> service_pb2.ModelVersion:
    """Describe a version.

    Args:
        name: Its name.
        state: How far it is; None if it is not loaded.
        model: What serves it, if anything does.
        aliases: What stands for it.
        reason: Why it failed, in words for every caller.
    """
    return service_pb2.ModelVersion(
        version=name,
        state=_STATES[state],
        aliases=aliases,
        digest=model.bundle.digest if model is not None else "",
        numerics_id=model.numerics.id if model is not None else "",
        reason=reason,
    )
