"""The command `labelmint` in the process of the tests."""

from __future__ import annotations

import pytest

from labelmint_client.cli import main


class Run:
    """Runs the command against a server.

    Attributes:
        address: Of the server.
        out: What the last run printed.
        err: What it complained of.
    """

    def __init__(self, address: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.address = address
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def __call__(self, command: str, *arguments: object) -> int:
        try:
            status = main([command, "--address", self.address, *map(str, arguments)])
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            status = stop.code
        self.out, self.err = self._capsys.readouterr()
        return status
