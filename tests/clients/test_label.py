"""Streams of the caller's own latents."""

from __future__ import annotations

import numpy as np
import pytest

from labelmint_client import AsyncClient, Client
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import CUT, FAULTS, Fault, ScriptedServer, ScriptedServicer


@pytest.mark.parametrize("kind", FAULTS)
def test_label_broken_at_every_position_labels_each_latent_once(
    client: Client, servicer: ScriptedServicer, kind: str
) -> None:
    z = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    for position in range(6):
        servicer.label_requests.clear()
        servicer.faults = [Fault(after_messages=position, **FAULTS[kind])]
        samples = list(client.label("m", z=z, class_indices=range(9)))
        assert [sample.index for sample in samples] == list(range(9))
        np.testing.assert_array_equal(np.stack([sample.z for sample in samples]), z)
        classes = [index for request in servicer.label_requests[-1] for index in request.class_indices]
        assert classes == list(range(9))[-len(classes) :]


@pytest.mark.parametrize("classes", [[0], [3, 0], [0, 1, 2]])
def test_classes_of_latents_may_be_an_array(client: Client, servicer: ScriptedServicer, classes: list[int]) -> None:
    z = np.zeros((len(classes), 8), np.float32)
    samples = list(client.label("m", z=z, class_indices=np.array(classes)))
    assert len(samples) == len(classes)
    assert [list(request.class_indices) for request in servicer.label_requests[0]] == [classes]


def test_latents_are_those_of_the_call_whatever_becomes_of_the_array(client: Client) -> None:
    z = np.ones((4, 8), np.float32)
    stream = client.label("m", z=z)
    z[:] = 0
    assert [sample.z.min() for sample in stream] == [1, 1, 1, 1]


async def test_async_label_resumes_w_plus(server: ScriptedServer) -> None:
    servicer = server.servicer
    w_plus = np.random.default_rng(0).standard_normal((5, 3, 200_000)).astype(np.float32)
    servicer.faults = [Fault(after_messages=2, **CUT)]
    servicer.batch_size = 1
    async with AsyncClient(server.address, retry=QUICK) as client:
        stream = client.label("m", w_plus=w_plus, truncation_psi=0.5)
        rows = [sample.z.reshape(3, -1) async for sample in stream]
    np.testing.assert_array_equal(np.stack(rows), w_plus)
    assert stream.num_reconnects == 1
    first_messages = [requests[0] for requests in servicer.label_requests]
    assert [message.options.truncation_psi for message in first_messages] == [0.5, 0.5]
    assert all(not message.HasField("options") for requests in servicer.label_requests for message in requests[1:])
