"""Requests that a server refuses, some while most of the latents are still to be sent."""

from collections.abc import Iterator

import numpy as np
import pytest

from labelmint_client import AsyncClient, Client, InvalidArgumentError, ModelNotFoundError
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

NUM_LATENTS, NUM_TRIES = 200_000, 10
"""Many messages, and a race that was lost one time in four."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving([write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")]) as running:
        yield running


async def test_refusal_reaches_the_async_caller_while_it_still_sends(served: Serving) -> None:
    z = np.zeros((NUM_LATENTS, 8), np.float32)
    for _ in range(NUM_TRIES):
        async with AsyncClient(served.address) as client:
            with pytest.raises(ModelNotFoundError):
                await anext(client.label("none", z=z))


async def test_async_caller_gets_all_labels_of_many_messages(served: Serving) -> None:
    z = np.random.default_rng(0).standard_normal((700, 8)).astype(np.float32)
    async with AsyncClient(served.address) as client:
        indices = [sample.index async for sample in client.label("tiny", z=z)]
    assert indices == list(range(len(z)))


def test_refusal_reaches_the_caller_while_it_still_sends(served: Serving) -> None:
    z = np.zeros((NUM_LATENTS, 8), np.float32)
    with Client(served.address) as client, pytest.raises(ModelNotFoundError):
        next(client.label("none", z=z))


def test_request_that_is_too_large_says_so_and_what_to_do(served: Serving) -> None:
    most = served.settings.max_request_bytes
    with Client(served.address) as client:
        with pytest.raises(InvalidArgumentError, match=rf"has \d+ bytes, expected at most {most}: .*max_request_bytes"):
            next(client.generate("x" * most, seed=1, count=1))
        assert next(client.generate("tiny", seed=1, count=1)).index == 0


async def test_async_request_that_is_too_large_says_so(served: Serving) -> None:
    async with AsyncClient(served.address) as client:
        with pytest.raises(InvalidArgumentError, match="max_request_bytes"):
            await anext(client.generate("x" * 16 * 2**20, seed=1, count=1))


def test_request_that_is_too_large_for_its_own_client_says_so(served: Serving) -> None:
    with (
        Client(served.address, max_receive_bytes=1000) as client,
        pytest.raises(InvalidArgumentError, match=r"the request has \d+ bytes, expected at most 1000: .*max_receive"),
    ):
        client.get_model("x" * 2000)


def test_answer_that_is_too_large_says_so_and_what_to_do(served: Serving) -> None:
    with (
        Client(served.address, max_receive_bytes=16) as client,
        pytest.raises(InvalidArgumentError, match=r"has \d+ bytes, expected at most 16: raise max_receive_bytes"),
    ):
        client.get_model("tiny")
