"""How the commands reach a server: flags, and variables for where there is no command line to change, as in a probe."""

import argparse
import os
from pathlib import Path

from labelmint_client._channel import DEFAULT_ADDRESS
from labelmint_client._commands.settings import SecuritySettings
from labelmint_client._security import TOKEN_VARIABLE, Tls, token_from_environment

ADDRESS_VARIABLE = "LABELMINT_ADDRESS"
ROOT_CA_VARIABLE = "LABELMINT_TLS_ROOT_CA"
CERTIFICATE_VARIABLE = "LABELMINT_TLS_CERTIFICATE"
KEY_VARIABLE = "LABELMINT_TLS_KEY"
SERVER_NAME_VARIABLE = "LABELMINT_TLS_SERVER_NAME"


def add_reaching(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a command that calls the service.

    Args:
        parser: Of the command.
    """
    parser.add_argument(
        "--address",
        default=os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help=f"server (default: {DEFAULT_ADDRESS}; variable {ADDRESS_VARIABLE})",
    )
    add_security(parser)


def add_security(parser: argparse.ArgumentParser) -> None:
    """Add the flags for TLS and tokens alone.

    Args:
        parser: Of the command.
    """
    group = parser.add_argument_group("security")
    group.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="encrypt; the options below that begin so, and their variables, imply it",
    )
    for flag, variable, metavar, kind, text in (
        ("--tls-root-ca", ROOT_CA_VARIABLE, "PEM", Path, "authorities to trust (default: the usual ones"),
        ("--tls-certificate", CERTIFICATE_VARIABLE, "PEM", Path, "certificate to show to the server (default: none"),
        ("--tls-key", KEY_VARIABLE, "PEM", Path, "its private key (default: none"),
        ("--tls-server-name", SERVER_NAME_VARIABLE, "NAME", str, "name in the server's certificate (default: the host"),
    ):
        value = os.environ.get(variable)
        group.add_argument(
            flag,
            type=kind,
            default=kind(value) if value else None,
            metavar=metavar,
            help=f"{text}; variable {variable})",
        )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help=f"file that holds the token (default: the variable {TOKEN_VARIABLE}; a flag would show it to others)",
    )


def security_settings(parser: argparse.ArgumentParser, values: argparse.Namespace) -> SecuritySettings:
    """Read them.

    Args:
        parser: Which ends the process if they contradict each other.
        values: What it parsed.
    """
    if (values.tls_certificate is None) != (values.tls_key is None):
        parser.error(f"give --tls-certificate and --tls-key ({CERTIFICATE_VARIABLE} and {KEY_VARIABLE}) together")
    given = (values.tls_root_ca, values.tls_certificate, values.tls_server_name)
    has_tls = any(given) if values.tls is None else values.tls
    tls = Tls(
        root_ca=values.tls_root_ca,
        certificate=values.tls_certificate,
        key=values.tls_key,
        server_name=values.tls_server_name,
    )
    return SecuritySettings(
        tls=tls if has_tls else None,
        token=token_from_environment() if values.token_file is None else None,
        token_file=values.token_file,
    )
