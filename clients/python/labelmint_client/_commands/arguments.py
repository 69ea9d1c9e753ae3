"""Parses the command line of `labelmint`."""

import argparse
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from labelmint_client._channel import DEFAULT_ADDRESS
from labelmint_client._commands.generate_arguments import add_generating, add_progress, generate_settings
from labelmint_client._commands.printing import say
from labelmint_client._commands.reaching import add_reaching, add_security, security_settings
from labelmint_client._commands.settings import AdminSettings, DemoSettings, GenerateSettings, SecuritySettings
from labelmint_client._commands.values import positive, seconds, uint64

Command = Literal["models", "show", "health", "generate", "demo", "admin"]

_DEMO_SEED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """A parsed command line.

    Attributes:
        command: What to do.
        address: Server to talk to.
        security: How it is reached.
        model: Model to show or to ask for.
        timeout_s: How long an answer may take, seconds.
        wait_s: How long "health" asks again, seconds.
        as_json: Whether to print JSON.
        generate: Settings of "generate".
        demo: Settings of "demo".
        admin: Settings of "admin".
    """

    command: Command
    address: str = DEFAULT_ADDRESS
    security: SecuritySettings = field(default_factory=SecuritySettings)
    model: str = ""
    timeout_s: float = 0.0
    wait_s: float = 0.0
    as_json: bool = False
    generate: GenerateSettings | None = None
    demo: DemoSettings | None = None
    admin: AdminSettings | None = None


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Parse a command line.

    Args:
        argv: Arguments without the program's name.

    Raises:
        SystemExit: It is misspelt, or asks for help or the version.
        BrokenPipeError: Nobody reads these.
        OutputError: They cannot be written.
    """
    parser = _parser()
    values = parser.parse_args(argv)
    command: Command = values.command
    security = SecuritySettings() if command == "demo" else security_settings(parser, values)
    match command:
        case "models":
            return Arguments(command=command, address=values.address, security=security, as_json=values.json)
        case "show":
            return Arguments(
                command=command,
                address=values.address,
                security=security,
                model=values.model,
                as_json=values.json,
            )
        case "health":
            return Arguments(
                command=command,
                address=values.address,
                security=security,
                model=values.model or "",
                timeout_s=values.timeout_s,
                wait_s=values.wait_s,
            )
        case "generate":
            if values.count is None and values.end_index is None:
                parser.error("generate: give --count, or --end-index")
            return Arguments(
                command=command, address=values.address, security=security, generate=generate_settings(values)
            )
        case "demo":
            return Arguments(command=command, demo=_demo_settings(values))
        case "admin":
            return Arguments(command=command, address=values.address, security=security, admin=_admin_settings(values))


def _demo_settings(values: argparse.Namespace) -> DemoSettings:
    return DemoSettings(
        out=values.out, count=values.count, seed=values.seed, bundle=values.bundle, progress=values.progress
    )


def _admin_settings(values: argparse.Namespace) -> AdminSettings:
    return AdminSettings(
        action=values.action,
        timeout_s=values.timeout_s,
        model=getattr(values, "model", ""),
        alias=getattr(values, "alias", ""),
        version=getattr(values, "version", ""),
        limit_s=getattr(values, "limit_s", None),
        as_json=getattr(values, "json", False),
    )


class _Parser(argparse.ArgumentParser):
    """Prints help as the commands print; argparse itself says nothing of a standard output that fails."""

    def print_help(self, file: object = None) -> None:  # noqa: ARG002  # argparse's own calls leave it out
        say(self.format_help().rstrip())


class _Version(argparse.Action):
    """Prints the version and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        say(f"labelmint {importlib.metadata.version('labelmint')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="labelmint", description="Labelled samples from a labelmint server.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_models(commands)
    _add_show(commands)
    _add_health(commands)
    _add_generate(commands)
    _add_demo(commands)
    _add_admin(commands)
    return parser


# The class of add_subparsers' result has no public name.
_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _add_models(commands: _Commands) -> None:
    models = commands.add_parser("models", help="list the models of a server", allow_abbrev=False)
    add_reaching(models)
    models.add_argument("--json", action="store_true", help="print JSON")


def _add_show(commands: _Commands) -> None:
    show = commands.add_parser("show", help="describe a model: classes, keypoints, sizes, licence", allow_abbrev=False)
    add_reaching(show)
    show.add_argument("model", metavar="MODEL", help="NAME, NAME@VERSION or NAME@ALIAS")
    show.add_argument("--json", action="store_true", help="print the whole manifest as JSON")


def _add_health(commands: _Commands) -> None:
    health = commands.add_parser(
        "health", help="ask whether a server, or one of its models, serves", allow_abbrev=False
    )
    add_reaching(health)
    health.add_argument(
        "model", metavar="MODEL", nargs="?", help="NAME or NAME@VERSION (default: the server as a whole)"
    )
    health.add_argument("--timeout-s", type=seconds, default=3.0, metavar="S", help="default: 3")
    health.add_argument(
        "--wait-s",
        type=seconds,
        default=0.0,
        metavar="S",
        help="ask again until it serves, so long (default: ask once)",
    )


def _add_generate(commands: _Commands) -> None:
    generate = commands.add_parser(
        "generate",
        help="write labelled samples to a folder",
        description="Write labelled samples to a folder. Sample i of a seed is always the same sample.",
        allow_abbrev=False,
    )
    add_reaching(generate)
    add_generating(generate)


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="start a server, stream samples of the embedded model, stop it",
        description="Start a server of the embedded model, stream samples to a folder with a contact sheet, stop it.",
        allow_abbrev=False,
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="folder (default: out/demo)")
    demo.add_argument("--count", type=positive, default=256, help="number of samples (default: 256)")
    demo.add_argument("--seed", type=uint64, default=_DEMO_SEED, help=f"default: {_DEMO_SEED}")
    demo.add_argument("--bundle", type=Path, metavar="PATH", help="bundle to serve (default: the embedded one)")
    add_progress(demo)


def _add_admin(commands: _Commands) -> None:
    admin = commands.add_parser("admin", help="load, unload and swap versions of a server's models", allow_abbrev=False)
    admin.add_argument("--address", required=True, metavar="HOST:PORT", help="admin service, on a port of its own")
    add_security(admin)
    admin.add_argument(
        "--timeout-s", type=seconds, default=600.0, metavar="S", help="how long the answer may take (default: 600)"
    )
    actions = admin.add_subparsers(dest="action", required=True, metavar="ACTION")
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
