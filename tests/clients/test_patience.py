"""How long a client waits for a server that is not there, and for one that is and refuses."""

from __future__ import annotations

import dataclasses
import logging
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client import AsyncClient, Client, ModelNotFoundError, RetryPolicy, ServerUnavailableError
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import CUT, Fault, ScriptedServer, ScriptedServicer

UNANSWERED = Fault(detail=None, details="connection refused")
"""What grpc says where the server does not: no detail of ours."""
DRAINING = Fault()


def test_default_patience_outlasts_a_restart_and_still_ends() -> None:
    policy = RetryPolicy()
    without_jitter = dataclasses.replace(policy, jitter=0.0)
    longest_s = sum(without_jitter.delay_s(n, random.Random()) for n in range(1, policy.connect_attempts))

    assert longest_s * (1 - policy.jitter) >= 15
    assert longest_s <= 35
    assert policy.max_connect_s >= 15


def test_server_that_is_killed_again_and_again_before_the_first_sample_is_outlived(server: ScriptedServer) -> None:
    server.servicer.faults = [Fault(**CUT)] * 8
    hurried = dataclasses.replace(RetryPolicy(), initial_backoff_s=0.01, max_backoff_s=0.01)
    with Client(server.address, retry=hurried) as client:
        stream = client.generate("m", seed=1, count=3)

        assert [sample.index for sample in stream] == [0, 1, 2]
    assert stream.num_reconnects == 8


def test_wrong_address_fails_after_connect_attempts(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [UNANSWERED] * 50
    with pytest.raises(ServerUnavailableError, match=r"no answer from .* after 3 attempts"):
        next(client.generate("m", seed=1, count=10))

    assert len(servicer.requests) == QUICK.connect_attempts


def list_models(client: Client, servicer: ScriptedServicer) -> None:
    assert client.list_models()


def read_a_sample(client: Client, servicer: ScriptedServicer) -> None:
    next(client.generate("m", seed=1, count=1))


def read_an_empty_range(client: Client, servicer: ScriptedServicer) -> None:
    assert not list(client.generate("m", seed=1, start_index=5, end_index=5))


def be_refused(client: Client, servicer: ScriptedServicer) -> None:
    servicer.unary_faults = [Fault(code=grpc.StatusCode.NOT_FOUND, details="no such model")]
    with pytest.raises(ModelNotFoundError):
        client.get_model("other")


@pytest.mark.parametrize("reach", [list_models, read_a_sample, read_an_empty_range, be_refused])
def test_server_that_was_reached_once_gets_max_attempts_from_new_calls(
    client: Client, servicer: ScriptedServicer, reach: Callable[[Client, ScriptedServicer], None]
) -> None:
    reach(client, servicer)
    servicer.requests.clear()
    servicer.faults = [UNANSWERED] * 50
    with pytest.raises(ServerUnavailableError, match="after 4 attempts"):
        next(client.generate("m", seed=1, count=10))
    assert len(servicer.requests) == QUICK.max_attempts

    servicer.num_unary_calls = 0
    servicer.unary_faults = [UNANSWERED] * 50
    with pytest.raises(ServerUnavailableError, match="after 4 attempts"):
        client.list_models()
    assert servicer.num_unary_calls == QUICK.max_attempts


async def test_async_client_remembers_that_it_reached_its_server_too(server: ScriptedServer) -> None:
    async with AsyncClient(server.address, retry=QUICK) as client:
        assert await client.list_models()
        server.servicer.faults = [UNANSWERED] * (QUICK.max_attempts - 1)

        assert [sample.index async for sample in client.generate("m", seed=1, count=1)] == [0]


def test_attempts_that_nobody_answered_and_refusals_are_counted_apart(
    client: Client, servicer: ScriptedServicer
) -> None:
    restart = [UNANSWERED] * (QUICK.connect_attempts - 1) + [DRAINING] * (QUICK.max_attempts - 1)
    servicer.faults = restart
    stream = client.generate("m", seed=1, count=1)
    assert [sample.index for sample in stream] == [0]
    assert stream.num_reconnects == len(restart)

    servicer.requests.clear()
    servicer.faults = [*restart, DRAINING]
    with pytest.raises(ServerUnavailableError, match=r"draining \(server .*, after 6 attempts\)"):
        next(client.generate("m", seed=1, count=1))


def test_server_that_never_answers_is_given_up_in_time(closed_address: str) -> None:
    policy = RetryPolicy(connect_attempts=400, max_connect_s=0.1, initial_backoff_s=0.01, max_backoff_s=0.01)
    with Client(closed_address, retry=policy) as client, pytest.raises(ServerUnavailableError) as caught:
        client.list_models()

    assert "after 400 attempts" not in str(caught.value)


def test_time_limit_is_not_for_a_server_that_was_reached(server: ScriptedServer) -> None:
    with Client(server.address, retry=dataclasses.replace(QUICK, max_connect_s=0.0)) as client:
        assert client.list_models()
        server.servicer.faults = [UNANSWERED] * (QUICK.max_attempts - 1)

        assert [sample.index for sample in client.generate("m", seed=1, count=1)] == [0]


class Starter(logging.Handler):
    """Starts a server at the first notice that a client waits for one.

    Attributes:
        address: Of the server.
        notices: What the client said.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.notices: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(2))

    def emit(self, record: logging.LogRecord) -> None:
        self.notices.append(record.getMessage())
        if len(self.notices) == 1:
            # Generated code has no types.
            service_pb2_grpc.add_LabelMintServicer_to_server(ScriptedServicer(), self._server)  # type: ignore[no-untyped-call]
            self._server.add_insecure_port(self.address)
            self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
        super().close()


@pytest.fixture(name="starter")
def _starter() -> Iterator[Starter]:
    """Of a server on a port that is its own, at which nobody listens before."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as grpc's own
        taken.bind(("127.0.0.1", 0))
        starter = Starter(f"127.0.0.1:{taken.getsockname()[1]}")
        logging.getLogger("labelmint_client").addHandler(starter)
        yield starter
        logging.getLogger("labelmint_client").removeHandler(starter)
        starter.close()


def test_client_says_once_that_it_waits_and_is_served_when_its_server_has_started(starter: Starter) -> None:
    policy = dataclasses.replace(QUICK, connect_attempts=10_000, max_connect_s=60.0)
    with Client(starter.address, retry=policy) as client:
        assert [sample.index for sample in client.generate("m", seed=1, count=3)] == [0, 1, 2]

    [notice] = starter.notices
    assert notice.startswith(f"no answer from {starter.address} yet: ")
    assert notice.endswith("; trying again")


BROKEN = Fault(
    detail=service_pb2.ErrorDetail(field="model"),
    details="model is 'm', which is not ready (1 is failed); tell the operator",
)


def test_new_call_that_is_refused_for_what_it_asks_for_is_not_repeated(
    client: Client, servicer: ScriptedServicer
) -> None:
    servicer.faults = [BROKEN]
    with pytest.raises(ServerUnavailableError, match="tell the operator"):
        next(client.generate("m", seed=1, count=10))
    assert len(servicer.requests) == 1


def test_stream_whose_model_goes_and_comes_back_goes_on(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=1), BROKEN]
    stream = client.generate("m", seed=1, count=3)
    assert [sample.index for sample in stream] == [0, 1, 2]
    assert stream.num_reconnects == 2
