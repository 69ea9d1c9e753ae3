"""`labelmint-serve new-token NAME`: makes a token and its entry for the file of clients."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from labelmint_service.access.clients import NAME_PATTERN
from labelmint_service.access.tokens import hash_token, make_token

COMMAND = "new-token"


def print_new_token(argv: Sequence[str]) -> int:
    """Print a new token, once, and what the server is to know of it.

    Args:
        argv: Command line after "new-token".

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog=f"labelmint-serve {COMMAND}",
        description="Make a random token. It is printed here and nowhere else; the server is told its hash only.",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", type=_name, help="name of the client, for logs and metrics")
    name = parser.parse_args(argv).name
    token = make_token()
    print("Token, for the client alone; it is not shown again:\n")
    print(f"    {token}\n")
    print("Entry for the file that the setting `tokens` names:\n")
    print(f'    [[client]]\n    name = "{name}"\n    token_sha256 = "{hash_token(token)}"')
    return 0


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected up to 64 of A-Z a-z 0-9 . _ @ -, beginning with a letter or digit"
        )
    return text
