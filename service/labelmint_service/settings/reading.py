"""Reading settings: flags over environment over file over defaults, and errors that say where a value came from."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from labelmint_service.errors import SettingsError
from labelmint_service.settings.service import ENV_PREFIX, ServiceSettings


def load_settings(argv: Sequence[str]) -> ServiceSettings:
    """Read flags, environment and file.

    Args:
        argv: Command line without the program's name.

    Raises:
        SettingsError: A value is out of range, a key or variable is unknown, or the file cannot be read.
        SystemExit: Help was asked for, or a flag is unknown.
    """
    flags = vars(_make_parser().parse_args(argv))
    config = flags.pop("config", None) or os.environ.get(f"{ENV_PREFIX}CONFIG")
    values: dict[str, Any] = {}  # Any: unchecked input of every type
    origins: dict[str, str] = {}
    for given, origin in (
        (_read_file(Path(config)) if config else {}, f"file {config}"),
        (_read_environment(), "environment"),
        (flags, "flag"),
    ):
        values.update(given)
        origins.update(dict.fromkeys(given, origin))
    try:
        return ServiceSettings(**values)
    except ValidationError as error:
        raise _settings_error(error, origins) from error


def _read_environment() -> dict[str, Any]:  # Any: unchecked input
    known = {f"{ENV_PREFIX}{name.upper()}" for name in ServiceSettings.model_fields} | {f"{ENV_PREFIX}CONFIG"}
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            raise SettingsError(
                f"environment variable {name} is set, expected one of the settings{_nearest(name, known)}; "
                "unset it or correct its name",
                field=name,
            )
    return EnvSettingsSource(ServiceSettings)()


def _read_file(path: Path) -> dict[str, Any]:  # Any: unchecked input
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:  # UnicodeDecodeError, JSONDecodeError, TOMLDecodeError are ValueErrors
        raise SettingsError(
            f"configuration file {path} cannot be read ({error}); give a TOML file, or JSON with the suffix .json",
            field="config",
        ) from error
    if not isinstance(content, dict):
        raise SettingsError(f"configuration file {path} holds no table of settings; see --help", field="config")
    return content


def _settings_error(error: ValidationError, origins: Mapping[str, str]) -> SettingsError:
    lines = []
    for problem in error.errors():
        if not problem["loc"]:  # of several settings together
            lines.append(problem["msg"])
            continue
        name = str(problem["loc"][0])
        origin = origins.get(name, "defaults")
        if problem["type"] == "extra_forbidden":
            nearest = _nearest(name, ServiceSettings.model_fields)
            lines.append(f"{name} (from {origin}) is no setting{nearest}; remove it or correct its name")
        else:
            lines.append(f"{name} is {problem['input']!r} (from {origin}): {problem['msg']}; see --help")
    first = error.errors()[0]
    return SettingsError("\n".join(lines), field=str(first["loc"][0] if first["loc"] else first["type"]))


def _nearest(name: str, known: Collection[str]) -> str:
    matches = difflib.get_close_matches(name, sorted(known), n=1)
    return f", perhaps {matches[0]}" if matches else ""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labelmint-serve",
        description="Serve labelled samples of one or more bundles over gRPC.",
        epilog=f"Flags go before environment variables, those before the file, that before the defaults. "
        f"Example: labelmint-serve --port 0 --bundle ./my-bundle; {ENV_PREFIX}PORT=8500 labelmint-serve. "
        "`labelmint-serve new-token NAME` makes a token and its entry for the file of tokens.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"labelmint {metadata.version('labelmint')}",
        help="print the version and end",
    )
    parser.add_argument(
        "--config",
        metavar="PATH",
        help=f"TOML or JSON file with settings, keys as the flags with underscores (variable {ENV_PREFIX}CONFIG)",
    )
    for name, field in ServiceSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = ServiceSettings.model_fields[name].default
        shown = "the embedded toonhead" if name == "bundle" else "none" if default in {None, ()} else default
        text = f"{field.description} (default: {shown}; variable {ENV_PREFIX}{name.upper()})".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif get_origin(field.annotation) is tuple:
            metavar = {"bundle": "PATH", "load": "MODEL", "devices": "N"}.get(name, "DIGEST")
            parser.add_argument(flag, action="append", metavar=metavar, help=text)
        else:
            parser.add_argument(flag, metavar=_metavar(field.annotation), help=text)
    return parser


def _metavar(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    kinds = {annotation, *get_args(annotation)}  # a kind, or a kind or None
    if kinds & {int, float}:
        return "N"
    return "TEXT" if str in kinds else "PATH"
