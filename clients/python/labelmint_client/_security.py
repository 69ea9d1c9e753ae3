"""How a client proves who it is and makes sure of the server: TLS files and bearer tokens.

Nothing here opens a connection, and no grpc object is made before the first call, so that a client may be forked.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from labelmint.hosts import is_loopback
from labelmint.wire import AUTHORIZATION_KEY
from labelmint_client._errors import InvalidArgumentError

TOKEN_VARIABLE = "LABELMINT_TOKEN"  # noqa: S105  # the name of a variable, no token

Metadata = tuple[tuple[str, str], ...]

_MAX_TOKEN = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """How to encrypt. `Tls()` alone trusts the roots that grpc brings along.

    Attributes:
        root_ca: PEM file of the authorities that may have signed the server's certificate; None for grpc's own list.
        certificate: PEM file of this client's certificate chain, for a server that asks for one.
        key: PEM file of its private key.
        server_name: Name that the server's certificate must have, where it is not that of the address.
    """

    root_ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Check that certificate and key come together.

        Raises:
            InvalidArgumentError: They do not.
        """
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise InvalidArgumentError(f"{missing} of tls is missing, but {given} is given; give both", field=missing)


@dataclass(frozen=True, slots=True)
class Security:
    """What the calls of a client need, checked.

    Attributes:
        credentials: Makes the credentials of a channel; gives None for plain text.
        metadata: Makes the metadata of a call; a token from a file is read again each time.
        options: Of the channel.
    """

    credentials: Callable[[], grpc.ChannelCredentials | None] = field(repr=False)
    metadata: Callable[[], Metadata] = field(repr=False)
    options: tuple[tuple[str, int | str], ...]


def token_from_environment() -> str | None:
    """Read the token of the environment variable LABELMINT_TOKEN; None if it is not set or empty.

    A client never looks there by itself: the token would then go to every server that the process talks to.
    """
    return os.environ.get(TOKEN_VARIABLE) or None


def make_security(
    address: str,
    *,
    tls: Tls | None,
    credentials: grpc.ChannelCredentials | None,
    token: str | None,
    token_file: str | os.PathLike[str] | None,
) -> Security:
    """Check and join what a client was given.

    Args:
        address: Where it goes to.
        tls: TLS by files.
        credentials: TLS by grpc's own object, instead.
        token: Bearer token.
        token_file: File that holds one, instead.

    Raises:
        InvalidArgumentError: Two of a kind were given, a file cannot be read, or a token would go over a network in
            plain text.
    """
    if tls is not None and credentials is not None:
        raise InvalidArgumentError("tls and credentials are both given, expected one; leave one out", field="tls")
    if token is not None and token_file is not None:
        raise InvalidArgumentError("token and token_file are both given, expected one; leave one out", field="token")
    is_plain = tls is None and credentials is None
    is_here = stays_on_this_machine(address)
    if (token is not None or token_file is not None) and is_plain and not is_here:
        raise InvalidArgumentError(
            f"address is {address!r}, which a token would reach in plain text over a network; give tls too, or "
            "leave the token out",
            field="token",
        )
    # A proxy, which grpc takes from the environment, does not reach this machine, and may not see what stays on it.
    options: tuple[tuple[str, int | str], ...] = (("grpc.enable_http_proxy", 0),) if is_here else ()
    make_metadata = _metadata_maker(token, token_file)
    make_metadata()  # a bad token is an error now, not at the first call
    if tls is None:
        return Security(lambda: credentials, make_metadata, options)
    parts = [
        _read(path, name)
        for name, path in (("root_ca", tls.root_ca), ("key", tls.key), ("certificate", tls.certificate))
    ]
    if tls.server_name:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    return Security(lambda: grpc.ssl_channel_credentials(*parts), make_metadata, options)


def stays_on_this_machine(address: str) -> bool:
    """Tell whether what is sent to an address can be seen on this machine only.

    Args:
        address: "host:port", or a target with a scheme of grpc.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    scheme, separator, rest = address.partition(":")
    if separator and scheme in {"dns", "ipv4", "ipv6"} and not rest.isdigit():
        # With or without an authority before the host; ipv4 and ipv6 may list several.
        targets = rest.rpartition("/")[2].split(",")
    elif "/" in address:
        return False
    else:
        targets = [address]
    return all(is_loopback(_host(target)) for target in targets)


def _host(target: str) -> str:
    host, separator, port = target.rpartition(":")
    return host if separator and port.isdigit() and (host.count(":") == 0 or host.startswith("[")) else target


def _metadata_maker(token: str | None, token_file: str | os.PathLike[str] | None) -> Callable[[], Metadata]:
    if token_file is not None:
        path = Path(token_file)
        return lambda: _bearer(_read_token(path), f"the content of token_file {path}")
    if token is None:
        return lambda: ()
    return lambda: _bearer(token, "token")


def _bearer(token: str, what: str) -> Metadata:
    # What came is not repeated: it is a secret, or was meant to be one.
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise InvalidArgumentError(
            f"{what} is no token, expected printable ASCII characters without spaces; copy what the operator gave you",
            field="token",
        )
    if len(token) > _MAX_TOKEN:
        raise InvalidArgumentError(
            f"{what} has {len(token)} characters, expected at most {_MAX_TOKEN}; copy what the operator gave you",
            field="token",
        )
    return ((AUTHORIZATION_KEY, f"Bearer {token}"),)


def _read_token(path: Path) -> str:
    data = _read(path, "token_file")
    assert data is not None
    return data.decode("utf-8", "replace").strip()


def _read(path: str | os.PathLike[str] | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"{name} {os.fspath(path)} cannot be read ({error.strerror}); name a file that this process may read",
            field=name,
        ) from error
