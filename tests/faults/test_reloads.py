"""Files that say who may call, replaced while eight readers read: tokens, certificates and their authorities."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labelmint_client import AccessError, Client, RetryPolicy, ServerUnavailableError, Tls
from tests.certificates import Authority, put
from tests.client_files import ClientFile
from tests.faults.readers import KINDS, PATIENT, WAIT_S, free_port, reading
from tests.service.server_process import server_process
from tests.serving import Serving, serving

NAMES = [f"reader-{number}" for number in range(len(KINDS))]
NUM_RELOADS = 5
AT_ONCE = RetryPolicy(max_attempts=1, connect_attempts=1)


def until(seconds: float) -> Iterator[int]:
    """Count while the time runs, a few times at least."""
    ends_s = time.monotonic() + seconds
    for number in itertools.count():
        if number >= NUM_RELOADS and time.monotonic() >= ends_s:
            return
        yield number


@pytest.mark.timeout(3_600)
def test_tokens_that_change_all_the_while_break_no_stream_of_those_that_stay(
    tiny: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    clients = ClientFile(tmp_path / "clients.toml", **{name: {} for name in NAMES})
    with serving([tiny], tokens=clients.path) as running:

        def make_client(number: int) -> Client:
            return Client(running.address, token=clients.tokens[NAMES[number]], retry=AT_ONCE)

        with reading(make_client) as readers:
            readers.wait_until_begun()
            for number in until(request.config.getoption("--fault-s")):
                if number % 3 == 1:
                    clients.replace("[[client]]\nname = ")  # half a file
                else:
                    changed = {"priority": number % 5, "max_streams": 2 + number % 3, "samples_per_second": 1e6}
                    clients.write(**dict.fromkeys(NAMES, changed), **{f"other-{number}": {}})
                with make_client(number % len(NAMES)) as client:
                    assert next(client.generate("tiny", seed=1, count=1)).index == 0
            clients.write(**{name: {} for name in NAMES})
            with make_client(0) as client:
                assert not any(readers.finish(client))


def test_token_that_ends_in_the_middle_ends_its_stream_and_no_other(tiny: Path, tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", **{name: {} for name in NAMES})
    with serving([tiny], tokens=clients.path) as running:

        def make_client(number: int) -> Client:
            return Client(running.address, token=clients.tokens[NAMES[number]], retry=PATIENT)

        with reading(make_client) as readers:
            readers.wait_until_begun()
            soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat().replace("+00:00", "Z")
            clients.write(**{name: {} for name in NAMES[2:]}, **{NAMES[1]: {"expires": soon}})
            withdrawn, expired = readers.failure(0), readers.failure(1)
            assert "withdrawn" in str(withdrawn)
            assert "expired" in str(expired)
            for error in (withdrawn, expired):
                assert isinstance(error, AccessError)
                assert error.next_index is not None
            assert readers.ended() == {0, 1}


@pytest.mark.timeout(3_600)
def test_certificates_that_change_all_the_while_break_no_stream(
    tiny: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The successor's certificates are trusted by new callers only; streams of old callers go on."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    callers = Authority(tmp_path / "callers")
    identity, caller = old.identity("127.0.0.1"), callers.identity("reader@client.example")
    tls = {"tls_certificate": identity.certificate, "tls_key": identity.key, "tls_client_ca": callers.root}

    def make_client(authority: Authority, running: Serving) -> Client:
        shown = Tls(root_ca=authority.root, certificate=caller.certificate, key=caller.key)
        return Client(running.address, tls=shown, retry=AT_ONCE)

    with serving([tiny], **tls) as running, reading(lambda _: make_client(old, running)) as readers:
        readers.wait_until_begun()
        for number in until(request.config.getoption("--fault-s")):
            signer, other = (new, old) if number % 2 else (old, new)
            put(signer.identity("127.0.0.1"), identity)
            with make_client(signer, running) as client:
                assert next(client.generate("tiny", seed=1, count=1)).index == 0
            with make_client(other, running) as client, pytest.raises(ServerUnavailableError):
                client.list_models()
        put(new.identity("127.0.0.1"), identity)
        with make_client(new, running) as client:
            assert not any(readers.finish(client))


@pytest.mark.faults
def test_readers_that_trust_both_authorities_outlive_a_restart_with_the_new_one(tiny: Path, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    identity = old.identity("127.0.0.1")
    both = tmp_path / "both.pem"
    both.write_bytes(old.root.read_bytes() + new.root.read_bytes())
    port = free_port()
    flags = ["--bundle", str(tiny), "--port", str(port), "--grace-s", "0.3"]
    flags += ["--tls-certificate", str(identity.certificate), "--tls-key", str(identity.key)]

    def make_client() -> Client:
        return Client(f"127.0.0.1:{port}", tls=Tls(root_ca=both), retry=PATIENT)

    with server_process(tmp_path, *flags) as first, reading(lambda _: make_client()) as readers:
        readers.wait_until_begun()
        put(new.identity("127.0.0.1"), identity)
        first.process.terminate()
        assert first.process.wait(WAIT_S) == 0
        with server_process(tmp_path, *flags), make_client() as client:
            assert all(readers.finish(client))
