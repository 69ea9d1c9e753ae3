"""What a type checker knows of the clients; mypy reads these tests, and they run."""

from __future__ import annotations

import inspect
from typing import assert_type

import numpy as np
import pytest

from labelmint_client import AsyncClient, AsyncSampleStream, Client, Model, ModelSummary, Sample, SampleStream
from tests.clients.scripted_server import ScriptedServer


def test_blocking_client_gives_blocking_streams(client: Client) -> None:
    with client.generate("m", seed=1, count=1) as generated, client.label("m", z=np.zeros((1, 8))) as labelled:
        assert_type(generated, SampleStream)
        assert_type(labelled, SampleStream)
        assert isinstance(assert_type(next(generated), Sample), Sample)
        assert isinstance(assert_type(next(labelled), Sample), Sample)
    assert isinstance(assert_type(client.get_model("m"), Model), Model)
    assert len(assert_type(client.list_models(), list[ModelSummary])) == 1


async def test_async_client_gives_async_streams(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        assert_type(client, AsyncClient)
        generated, labelled = client.generate("m", seed=1, count=1), client.label("m", z=np.zeros((1, 8)))
        assert_type(generated, AsyncSampleStream)
        assert_type(labelled, AsyncSampleStream)
        first, second = await anext(generated), await anext(labelled)
        assert isinstance(assert_type(first, Sample), Sample)
        assert isinstance(assert_type(second, Sample), Sample)
        assert isinstance(assert_type(await client.get_model("m"), Model), Model)
        assert len(assert_type(await client.list_models(), list[ModelSummary])) == 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_help_tells_every_argument(kind: type[Client | AsyncClient]) -> None:
    for function in (kind.__init__, kind.generate, kind.label):
        text = inspect.getdoc(function)
        assert text is not None
        for name in inspect.signature(function).parameters:
            assert name == "self" or f"    {name}: " in text, (function, name)
