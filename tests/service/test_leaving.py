"""Callers who leave a stream that they do not read: no error of the server, and known by where they came from."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path

import pytest

from tests.frames import DATA, END_STREAM, GENERATE, RST_STREAM, RawConnection, frame, message, request_headers
from tests.service.calls import TIMEOUT_S, make_request
from tests.service.server_process import server_process

NUM_CALLERS = 24
ENDLESS = make_request(max_accepted=None, endless=True).SerializeToString()


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "close"])
def test_callers_who_stop_reading_and_leave_are_cancelled(
    bundles: dict[str, Path], tmp_path: Path, resets: bool
) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"])) as server:
        connections = [RawConnection(server.address) for _ in range(NUM_CALLERS)]
        for connection in connections:
            call = frame(DATA, END_STREAM, 1, message(ENDLESS))
            connection.send(connection.headers(1, request_headers(GENERATE)), call)
        time.sleep(1.0)  # until writing to them stands still, which nothing tells
        for connection in connections:
            if resets:
                connection.send(frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))
            connection.socket.close()
        until_s = time.monotonic() + TIMEOUT_S
        while (log := server.log.read_text(encoding="utf-8")).count("event=call.end") < NUM_CALLERS:
            assert time.monotonic() < until_s
            time.sleep(0.02)
    ends = [line for line in log.splitlines() if "event=call.end" in line]

    assert {re.search(r"code=(\S+)", line)[1] for line in ends} == {"CANCELLED"}  # type: ignore[index]  # each has one
    assert all(re.search(r"peer=\S*127.0.0.1", line) for line in ends)
    assert "level=error" not in log
