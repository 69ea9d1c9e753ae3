"""SIGHUP: the server goes on, and its log says which settings wait for a restart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.client_files import ClientFile
from tests.service.calls import TIMEOUT_S, collect, make_request
from tests.service.server_process import server_process, wait_for_line

pty = pytest.importorskip("pty", reason="SIGHUP and terminals exist on Unix only")


def test_hangup_names_what_waits_for_a_restart_and_ends_no_stream(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", friend={})
    config = tmp_path / "serve.toml"
    told = f'bundle = ["{bundles["tiny"]}"]\ntokens = "{clients.path}"\n'
    config.write_text(f"{told}max_streams = 4\n", encoding="utf-8")
    with server_process(tmp_path, "--config", str(config), "--grace-s", "5") as server:
        token = clients.of("friend")
        endless = make_request(max_accepted=None, endless=True)
        stream = server.stub().Generate(endless, metadata=token, timeout=TIMEOUT_S)
        batches = [next(stream)]
        server.signal(signal.SIGHUP)
        wait_for_line(server, "event=settings.compared", "level=info", "what the file says is in force")
        config.write_text(f"{told}max_streams = 9\ngrace_s = 7\n", encoding="utf-8")
        server.signal(signal.SIGHUP)
        # The flag goes before the file, so that grace_s waits for nothing.
        wait_for_line(server, "event=settings.compared", "level=warning", "waiting=max_streams ", "restart the server")
        config.write_text(f"{told}max_stream = 9\n", encoding="utf-8")
        server.signal(signal.SIGHUP)
        wait_for_line(server, "event=settings.error", "max_stream (from file", "perhaps max_streams")
        clients.write(friend={"max_streams": 2})
        wait_for_line(server, "event=tokens.reloaded")
        batches += [next(stream) for _ in range(20)]
        stream.cancel()
        server.signal(signal.SIGTERM)

        assert server.wait() == 0
        indices = collect(batches).indices
        assert indices == list(range(len(indices)))


def test_hangup_of_its_terminal_stops_the_server_cleanly(bundles: dict[str, Path], tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    try:
        with server_process(tmp_path, "--bundle", str(bundles["tiny"]), stdin=terminal) as server:
            server.signal(signal.SIGHUP)

            assert server.wait() == 0
            assert "event=server.stopped" in server.log.read_text(encoding="utf-8")
    finally:
        os.close(ours)
        os.close(terminal)
