"""A name that stands for several servers: streams go to all of them, and go on at another when one is gone."""

from collections.abc import Iterator

import pytest

from labelmint_client import AsyncClient, Client
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import Fault, ScriptedServer


@pytest.fixture(name="pair")
def _pair() -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    servers = (ScriptedServer(), ScriptedServer())
    yield servers
    for server in servers:
        server.close()


def target(pair: tuple[ScriptedServer, ScriptedServer]) -> str:
    """One target with both addresses, as a name with two addresses resolves to."""
    return "ipv4:" + ",".join(server.address for server in pair)


def read_until_both_were_asked(client: Client, pair: tuple[ScriptedServer, ScriptedServer]) -> None:
    """The second connection may come up later than the first."""
    for _ in range(1000):
        next(client.generate("m", seed=1, count=1))
        if all(server.servicer.requests for server in pair):
            return
    pytest.fail(f"asked: {[len(server.servicer.requests) for server in pair]}")


def test_streams_of_one_client_go_to_all_servers(pair: tuple[ScriptedServer, ScriptedServer]) -> None:
    with Client(target(pair), retry=QUICK) as client:
        read_until_both_were_asked(client, pair)
        for server in pair:
            server.servicer.requests.clear()
        for _ in range(10):
            next(client.generate("m", seed=1, count=1))
    assert [len(server.servicer.requests) for server in pair] == [5, 5]


def test_stream_of_a_server_that_stops_goes_on_at_the_other(pair: tuple[ScriptedServer, ScriptedServer]) -> None:
    with Client(target(pair), retry=QUICK) as client:
        read_until_both_were_asked(client, pair)
        for server in pair:
            server.servicer.requests.clear()
            server.servicer.faults = [Fault(after_messages=2)]
        samples = list(client.generate("m", seed=1, count=20))
    assert [sample.index for sample in samples] == list(range(20))
    assert [request.start_index for server in pair for request in server.servicer.requests[:1]] in ([0, 4], [4, 0])


async def test_async_client_balances_too(pair: tuple[ScriptedServer, ScriptedServer]) -> None:
    async with AsyncClient(target(pair), retry=QUICK) as client:
        for _ in range(1000):
            async for _sample in client.generate("m", seed=1, count=1):
                pass
            if all(server.servicer.requests for server in pair):
                return
    pytest.fail(f"asked: {[len(server.servicer.requests) for server in pair]}")
