"""Bearer tokens: 256 random bits, of which the server knows only the hash.

A password needs a slow hash because it can be guessed. A token of 256 random bits cannot, so one SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from labelmint.wire import AUTHORIZATION_KEY
from labelmint_service.errors import UnauthenticatedError

_PREFIX = "lmt_"  # lets scanners of repositories and logs recognise a token that got there
_MAX_HEADER = 1024
_HOW = f"send the metadata '{AUTHORIZATION_KEY}: Bearer TOKEN' with a token of this server's operator"


def make_token() -> str:
    """Make a token that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Hash a token as the file of clients holds it.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def read_bearer(values: Sequence[str | bytes]) -> str:
    """Take the token out of a call's metadata. What came is never repeated in an error.

    Args:
        values: Every value of the key `authorization`.

    Raises:
        UnauthenticatedError: There is none, or more than one, or it is no bearer token.
    """
    if not values:
        raise UnauthenticatedError(f"no token came, expected one; {_HOW}", field=AUTHORIZATION_KEY)
    value = values[0]
    if len(values) > 1 or not isinstance(value, str) or len(value) > _MAX_HEADER:
        raise UnauthenticatedError(
            f"{AUTHORIZATION_KEY} came {len(values)} times or is no text of at most {_MAX_HEADER} characters; {_HOW}",
            field=AUTHORIZATION_KEY,
        )
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError(
            f"{AUTHORIZATION_KEY} is no bearer token, expected one; {_HOW}", field=AUTHORIZATION_KEY
        )
    return token.strip()
