"""`labelmint admin`: the model repository of a server, from a shell."""

import json
from dataclasses import asdict

from labelmint_client._admin import AdminClient, RepositoryVersion
from labelmint_client._commands.settings import AdminSettings
from labelmint_client._commands.tables import table

_COLUMNS = ("model", "version", "state", "aliases", "streams", "replicas", "memory", "reason")


def administer(client: AdminClient, settings: AdminSettings) -> str:
    """Do what was asked for.

    Returns:
        What to print.

    Raises:
        ClientError: The server refuses, or does not answer.
    """
    match settings.action:
        case "list":
            return _listing(client.list_repository(), as_json=settings.as_json)
        case "load":
            loaded = client.load(settings.model)
            memory = f"{loaded.memory_bytes / 2**20:.0f} MiB"
            return f"{loaded.model}@{loaded.version.version} is {loaded.version.state}, {memory}"
        case "unload":
            client.unload(settings.model, limit_s=settings.limit_s)
            return f"{settings.model} is unloaded"
        case "set-alias":
            client.set_alias(settings.model, settings.alias, settings.version)
            return f"{settings.model}@{settings.alias} stands for version {settings.version}"
        case "remove-alias":
            client.set_alias(settings.model, settings.alias, None)
            return f"{settings.model}@{settings.alias} is taken away"


def _listing(versions: list[RepositoryVersion], *, as_json: bool) -> str:
    if as_json:
        return json.dumps([asdict(version) for version in versions], indent=2, ensure_ascii=False)
    return table(_COLUMNS, [_row(version) for version in versions])


def _row(version: RepositoryVersion) -> dict[str, str]:
    memory = f"{version.memory_bytes / 2**20:.0f} MiB" if version.memory_bytes else ""
    return {
        "model": version.model,
        "version": version.version.version,
        "state": version.version.state,
        "aliases": ",".join(version.version.aliases),
        "streams": str(version.num_streams),
        "replicas": str(version.num_replicas),
        "memory": memory,
        "reason": version.reason,
    }
