"""The quota store: what each client has used of its day, in a file that survives the process.

SQLite, because it brings what a file of our own would have to earn: a commit is there whole or not at all, and a second
server on the same file is refused instead of overwriting the counts of the first.

A kill -9 takes nothing away that a write has handed to the kernel, so for that alone no fsync would be needed. A power
cut does: synchronous=FULL syncs at each commit, and since nothing is handed out before the commit of its reservation
has returned (see quotas), neither ever gives a client more than its quota. The price is one sync a block of samples, in
a thread of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from labelmint_service.access.quotas import DayUse
from labelmint_service.errors import AccessFileError, QuotaStoreError

_SCHEMA = "CREATE TABLE IF NOT EXISTS day_use (client TEXT PRIMARY KEY, day INTEGER NOT NULL, used INTEGER NOT NULL)"
_RECORD = """
INSERT INTO day_use (client, day, used) VALUES (?, ?, ?)
ON CONFLICT (client) DO UPDATE SET day = excluded.day, used = excluded.used
"""


class QuotaStore:
    """A file of counts, held by one server at a time. Its calls block; use it from one thread at a time.

    Args:
        path: The file; it is created if it does not exist.

    Raises:
        AccessFileError: It cannot be written, is of another kind, or another server holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # The connection is handed to the thread that writes.
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            # The lock that the first transaction takes is kept until the connection or the process ends.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute(_SCHEMA)
            self._connection.execute("COMMIT")
            rows = self._connection.execute("SELECT client, day, used FROM day_use").fetchall()
            self._loaded = {str(client): DayUse(day=int(day), used=int(used)) for client, day, used in rows}
            self._identity = self._look()
        except (sqlite3.Error, ValueError, OSError) as error:
            self._connection.close()
            raise self._unusable(error) from error

    @property
    def loaded(self) -> Mapping[str, DayUse]:
        """What the file held when it was opened, by client."""
        return self._loaded

    def record(self, uses: Mapping[str, DayUse]) -> None:
        """Write counts down, all or none; they are on disk when this returns.

        Raises:
            QuotaStoreError: They are not.
        """
        try:
            if self._look() != self._identity:
                raise OSError(f"another file is at {self._path}; start the server again")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                rows = [(client, use.day, use.used) for client, use in uses.items()]
                self._connection.executemany(_RECORD, rows)
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise QuotaStoreError(
                f"quotas cannot be written down ({error}), so nothing can be handed out; retry later, the "
                "operator finds it in the server's log",
            ) from error

    def close(self) -> None:
        """Free the file."""
        self._connection.close()

    def _look(self) -> tuple[int, int]:
        """Which file is there: what is written to one that was removed is lost.

        Raises:
            OSError: None is.
        """
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def _unusable(self, error: sqlite3.Error | ValueError | OSError) -> AccessFileError:
        if "locked" in str(error):
            hint = "another server has it: give each its own"
        elif isinstance(error, sqlite3.OperationalError):
            hint = "name a file in a folder that exists and can be written"
        else:
            hint = (
                "it is none that a server wrote; name another, or move it away, which forgets what clients used today"
            )
        return AccessFileError(f"quota_file {self._path} cannot be used ({error}); {hint}", field="quota_file")
