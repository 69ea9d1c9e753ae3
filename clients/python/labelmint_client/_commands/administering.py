"""`labelmint admin`: the model repository of a server, from a shell."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from labelmint_client._admin import AdminClient, RepositoryVersion
from labelmint_client._commands.tables import table

Action = Literal["list", "load", "unload", "set-alias", "remove-alias"]

_COLUMNS = ("model", "version", "state", "aliases", "streams", "replicas", "memory", "reason")


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminSettings:
    """What `labelmint admin` does.

    Attributes:
        action: What to do.
        model: NAME, NAME@VERSION or NAME@ALIAS.
        alias: The alias to move.
        version: What it is to stand for.
        limit_s: Time that streams get; None for the setting of the server.
        timeout_s: How long the answer may take, seconds.
        as_json: Whether to print JSON.
    """

    action: Action
    timeout_s: float
    model: str = ""
    alias: str = ""
    version: str = ""
    limit_s: float | None = None
    as_json: bool = False


def add_admin_actions(parser: argparse.ArgumentParser, seconds: Callable[[str], float]) -> None:
    """Describe the actions.

    Args:
        parser: Of `labelmint admin`.
        seconds: Reads a time.
    """
    parser.add_argument(
        "--timeout-s", type=seconds, default=600.0, metavar="S", help="how long the answer may take (default: 600)"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what lies in the repository, and what is loaded", allow_abbrev=False)
    listing.add_argument("--json", action="store_true", help="print JSON")
    load = actions.add_parser("load", help="load a version and wait until it is ready", allow_abbrev=False)
    load.add_argument("model", metavar="NAME[@VERSION]", help="without a version the default, or the newest")
    unload = actions.add_parser("unload", help="unload a version and wait for its last stream", allow_abbrev=False)
    unload.add_argument("model", metavar="NAME@VERSION")
    unload.add_argument("--limit-s", type=seconds, metavar="S", help="time that streams get (default: the server's)")
    put = actions.add_parser("set-alias", help="let an alias stand for a version", allow_abbrev=False)
    put.add_argument("model", metavar="NAME")
    put.add_argument("alias", metavar="ALIAS", help='"default" is what the name alone asks for')
    put.add_argument("version", metavar="VERSION")
    remove = actions.add_parser("remove-alias", help="take an alias away", allow_abbrev=False)
    remove.add_argument("model", metavar="NAME")
    remove.add_argument("alias", metavar="ALIAS")


def admin_settings(values: argparse.Namespace) -> AdminSettings:
    """Take the settings out of a parsed command line."""
    return AdminSettings(
        action=values.action,
        timeout_s=values.timeout_s,
        model=getattr(values, "model", ""),
        alias=getattr(values, "alias", ""),
        version=getattr(values, "version", ""),
        limit_s=getattr(values, "limit_s", None),
        as_json=getattr(values, "json", False),
    )


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
