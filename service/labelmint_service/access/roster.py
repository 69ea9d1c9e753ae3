"""The roster: the clients in force, read again when their file changes."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from pathlib import Path

from labelmint_service.access.clients import Client, read_clients
from labelmint_service.access.tokens import hash_token
from labelmint_service.access.watching import WatchedFiles


class Roster:
    """The clients of a file.

    Args:
        path: The file.
        check: Raises AccessFileError if the server cannot do what clients are promised.

    Attributes:
        clients: Those in force; to be set to what `read` gave.

    Raises:
        AccessFileError: The file cannot be used.
    """

    def __init__(self, path: Path, check: Callable[[Sequence[Client]], None]) -> None:
        self._path = path
        self._check = check
        self._watched = WatchedFiles([path])
        self.clients = self.read()

    @property
    def is_stale(self) -> bool:
        """Whether the file has changed since it was read, well or not."""
        return self._watched.are_changed

    def read(self) -> tuple[Client, ...]:
        """Read the file again. It blocks.

        Raises:
            AccessFileError: It cannot be used.
        """
        self._watched.note(self._watched.stamp())
        clients = read_clients(self._path)
        self._check(clients)
        return clients

    def find(self, token: str) -> tuple[Client, str] | None:
        """Whose token it is.

        Every hash is compared, each in constant time, so that the time says nothing about which one nearly fitted.

        Args:
            token: As the caller sent it.

        Returns:
            The client and the hash of the token; None if it is nobody's.
        """
        digest = hash_token(token)
        found = None
        for client in self.clients:
            for known in client.token_sha256:
                if hmac.compare_digest(known, digest):
                    found = client, digest
        return found
