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


def version_messages(catalog: ModelCatalog, name: str) -> list[service_pb2.ModelVersion]:
    """Describe the versions of a model, newest first."""
    aliases = catalog.aliases(name)
    return [
        version_message(
            version.name,
            version.state,
            version.model,
            sorted(alias for alias, standing in aliases.items() if standing == version.name),
        )
        for version in catalog.versions(name)
    ]


def version_message(
    name: str, state: VersionState | None = None, model: ServedModel | None = None, aliases: Sequence[str] = ()
) -> service_pb2.ModelVersion:
    """Describe a version.

    Args:
        name: Its name.
        state: How far it is; None if it is not loaded.
        model: What serves it, if anything does.
        aliases: What stands for it.
    """
    return service_pb2.ModelVersion(
        version=name,
        state=_STATES[state],
        aliases=aliases,
        digest=model.bundle.digest if model is not None else "",
        numerics_id=model.numerics.id if model is not None else "",
    )
