"""Parses the command line of `labelmint`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from labelmint_client._channel import DEFAULT_ADDRESS
from labelmint_client._commands.administering import AdminSettings, add_admin_actions, admin_settings
from labelmint_client._commands.reaching import add_reaching, add_security, security_settings
from labelmint_client._commands.settings import (
    DemoSettings,
    GenerateSettings,
    SecuritySettings,
    SelectionSettings,
    WireSettings,
)
from labelmint_client._commands.values import class_area, positive, seconds, uint32, uint64

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
        SystemExit: It is misspelt, or asks for help.
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
                command=command, address=values.address, security=security, generate=_generate_settings(values)
            )
        case "demo":
            return Arguments(command=command, demo=_demo_settings(values))
        case "admin":
            return Arguments(command=command, address=values.address, security=security, admin=admin_settings(values))


def _generate_settings(values: argparse.Namespace) -> GenerateSettings:
    selection = SelectionSettings(
        seed=values.seed,
        count=values.count,
        start_index=values.start_index,
        end_index=values.end_index,
        shard_index=values.shard_index,
        num_shards=values.num_shards,
        truncation_psi=values.truncation_psi,
        class_index=values.class_index,
        max_uncertainty_quantile=values.max_uncertainty_quantile,
        max_uncertainty=values.max_uncertainty,
        min_class_areas=dict(values.min_class_area or ()),
        max_scanned=values.max_scanned,
    )
    wire = WireSettings(
        image_codec=values.image_codec,
        mask_codec=values.mask_codec,
        jpeg_quality=values.jpeg_quality,
        jpeg_subsampling=values.jpeg_subsampling,
        max_message_bytes=values.max_message_bytes,
        pin_numerics=values.pin_numerics,
    )
    return GenerateSettings(
        model=values.model,
        out=values.out,
        formats=tuple(dict.fromkeys(values.format or ["png"])),
        selection=selection,
        wire=wire,
        uncertainty_maps=values.uncertainty_maps,
        contact_sheet=values.contact_sheet,
        resume=values.resume,
        overwrite=values.overwrite,
        progress=values.progress,
    )


def _demo_settings(values: argparse.Namespace) -> DemoSettings:
    return DemoSettings(
        out=values.out, count=values.count, seed=values.seed, bundle=values.bundle, progress=values.progress
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labelmint", description="Labelled samples from a labelmint server.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_models(commands)
    _add_show(commands)
    _add_health(commands)
    _add_generate(commands)
    _add_demo(commands)
    _add_admin(commands)
    return parser


# The class of add_subparsers' result has no public name.
_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
    generate.add_argument("--model", help="NAME, NAME@VERSION or NAME@ALIAS (default: the only model of the server)")
    generate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    generate.add_argument(
        "--format",
        action="append",
        choices=("png", "coco"),
        help="png: palette masks and keypoints.json; coco: annotations.json; may be given twice (default: png)",
    )
    there = generate.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="go on with the data set in the folder, if there is one")
    there.add_argument("--overwrite", action="store_true", help="replace the data set in the folder, if there is one")
    generate.add_argument("--uncertainty-maps", action="store_true", help="store the maps too, as .npy files")
    generate.add_argument("--contact-sheet", action="store_true", help="draw contact_sheet.png")
    _add_progress(generate)
    _add_selection(generate)
    _add_filters(generate)
    _add_wire(generate)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which samples")
    group.add_argument("--seed", type=uint64, required=True, help="any whole number below 2^64")
    group.add_argument("--count", type=positive, help="number of samples")
    group.add_argument("--start-index", type=uint64, default=0, metavar="I", help="first address (default: 0)")
    group.add_argument("--end-index", type=uint64, metavar="I", help="exclusive end of the addresses")
    group.add_argument("--shard-index", type=uint64, default=0, metavar="I", help="this shard (default: 0)")
    group.add_argument("--num-shards", type=positive, default=1, metavar="N", help="of so many (default: 1)")
    group.add_argument(
        "--truncation-psi", type=float, metavar="PSI", help="0: all alike, 1: most varied (default: the model's)"
    )
    group.add_argument("--class-index", type=uint32, metavar="C", help="class of a conditional model (default: drawn)")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--max-uncertainty-quantile", type=float, metavar="Q", help="keep the surest part, for example 0.9"
    )
    group.add_argument("--max-uncertainty", type=float, metavar="NATS", help="keep image scores up to this")
    group.add_argument(
        "--min-class-area",
        type=class_area,
        action="append",
        metavar="CLASS=FRACTION",
        help="keep samples in which the class covers at least this fraction; may be repeated",
    )
    group.add_argument("--max-scanned", type=positive, metavar="N", help="give up after so many indices")


def _add_wire(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how samples travel")
    group.add_argument("--image-codec", choices=("raw", "jpeg", "png"), default="raw", help="default: raw")
    group.add_argument("--mask-codec", choices=("raw", "zstd", "png"), default="raw", help="default: raw")
    group.add_argument("--jpeg-quality", type=uint32, metavar="Q", help="1 to 100 (default: the server's, 95)")
    group.add_argument("--jpeg-subsampling", choices=("444", "422", "420"), default="444", help="default: 444")
    group.add_argument("--max-message-bytes", type=positive, metavar="N", help="largest message (default: 4 MiB)")
    group.add_argument(
        "--pin-numerics",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse to mix samples of engines that differ in the last bits",
    )


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
    _add_progress(demo)


def _add_admin(commands: _Commands) -> None:
    admin = commands.add_parser("admin", help="load, unload and swap versions of a server's models", allow_abbrev=False)
    admin.add_argument("--address", required=True, metavar="HOST:PORT", help="admin service, on a port of its own")
    add_security(admin)
    add_admin_actions(admin, seconds)


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=True, help="show a progress bar (default: yes)"
    )
