from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from labelmint.v1 import service_pb2
from labelmint_client import (
    AsyncClient,
    Client,
    ModelChangedError,
    ModelNotFoundError,
    NumericsMismatchError,
    ProtocolError,
    Sample,
    SampleStream,
    ScanLimitError,
    ServerUnavailableError,
)
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import (
    CUT,
    DIGEST,
    FAULTS,
    NUMERICS,
    UINT64_MAX,
    Fault,
    ScriptedServer,
    ScriptedServicer,
    arrays_of,
    message_of,
)


def check_contents(samples: list[Sample]) -> None:
    for sample in samples:
        expected = arrays_of(sample.index)
        for name in ("image", "mask", "keypoints", "uncertainty_map", "z"):
            np.testing.assert_array_equal(getattr(sample, name), expected[name])
        assert sample.uncertainty == float(expected["uncertainty"])


@pytest.mark.parametrize("kind", FAULTS)
def test_stream_broken_at_every_position_brings_each_sample_once(
    client: Client, servicer: ScriptedServicer, kind: str
) -> None:
    for position in range(6):
        servicer.requests.clear()
        servicer.faults = [Fault(after_messages=position, **FAULTS[kind])]
        stream = client.generate("m", seed=1, count=10, start_index=100)
        samples = list(stream)
        assert [sample.index for sample in samples] == list(range(100, 110))
        assert stream.num_reconnects == 1 or position == 5
        check_contents(samples)


@pytest.mark.parametrize("kind", FAULTS)
async def test_async_stream_broken_at_every_position_brings_each_sample_once(server: ScriptedServer, kind: str) -> None:
    async with AsyncClient(server.address, retry=QUICK) as client:
        for position in range(6):
            server.servicer.requests.clear()
            server.servicer.faults = [Fault(after_messages=position, **FAULTS[kind])]
            stream = client.generate("m", seed=1, count=10, start_index=100)
            samples = [sample async for sample in stream]
            assert [sample.index for sample in samples] == list(range(100, 110))
            assert stream.num_reconnects == 1 or position == 5
            check_contents(samples)


def test_stream_that_breaks_after_each_message_outlives_max_attempts(
    client: Client, servicer: ScriptedServicer
) -> None:
    servicer.faults = [Fault(after_messages=1) for _ in range(3 * QUICK.max_attempts)]
    stream = client.generate("m", seed=1, count=6 * QUICK.max_attempts)
    assert [sample.index for sample in stream] == list(range(6 * QUICK.max_attempts))
    assert stream.num_reconnects == 3 * QUICK.max_attempts - 1


def test_resumed_request_asks_for_the_rest_only(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=2)]
    servicer.rejects = lambda index: index % 2 == 0
    stream = client.generate("m", seed=9, count=7, start_index=10, end_index=90, max_scanned=60, max_uncertainty=0.5)
    assert [sample.index for sample in stream] == [11, 13, 15, 17, 19, 21, 23]
    first, second = servicer.requests
    assert (first.start_index, first.max_accepted, first.max_scanned) == (10, 7, 60)
    assert (second.start_index, second.max_accepted, second.max_scanned) == (18, 3, 52)
    assert (first.numerics_id, second.numerics_id) == ("", NUMERICS)
    assert (second.digest, second.end_index, second.seed) == (DIGEST, 90, 9)
    assert second.filter == first.filter


def test_shards_of_a_broken_stream_cover_the_addresses_once(client: Client, servicer: ScriptedServicer) -> None:
    seen: list[int] = []
    for shard in range(3):
        servicer.requests.clear()
        servicer.faults = [Fault(after_messages=1), Fault(after_messages=1, **CUT)]
        stream = client.generate("m", seed=1, start_index=5, end_index=26, shard_index=shard, num_shards=3)
        seen += [sample.index for sample in stream]
    assert sorted(seen) == list(range(5, 26))


def test_break_after_the_last_sample_is_no_fault(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=2), Fault()]
    stream = client.generate("m", seed=1, count=4)
    assert [sample.index for sample in stream] == [0, 1, 2, 3]
    assert (len(servicer.requests), stream.num_reconnects) == (1, 0)


def test_empty_range_ends_without_a_sample_and_without_another_call(client: Client, servicer: ScriptedServicer) -> None:
    stream = client.generate("m", seed=1, start_index=5, end_index=5)
    assert list(stream) == []
    assert list(stream) == []
    assert len(servicer.requests) == 1


def test_refusal_of_an_empty_range_is_raised(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=0, code=grpc.StatusCode.NOT_FOUND, details="no such model")]
    with pytest.raises(ModelNotFoundError, match="no such model"):
        list(client.generate("m", seed=1, start_index=5, end_index=5))


async def test_async_refusal_of_an_empty_range_is_raised(server: ScriptedServer) -> None:
    server.servicer.faults = [Fault(after_messages=0, code=grpc.StatusCode.NOT_FOUND, details="no such model")]
    async with AsyncClient(server.address, retry=QUICK) as client:
        with pytest.raises(ModelNotFoundError, match="no such model"):
            await anext(client.generate("m", seed=1, start_index=5, end_index=5))


def test_stream_to_the_last_uint64_index_ends_there(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=1, **CUT)]
    stream = client.generate("m", seed=1, start_index=UINT64_MAX - 4, endless=True)
    assert [sample.index for sample in stream] == list(range(UINT64_MAX - 4, UINT64_MAX + 1))
    assert stream.exhausted


def test_progress_follows_what_the_reader_took(client: Client, servicer: ScriptedServicer) -> None:
    servicer.batch_size = 4
    servicer.rejects = lambda index: index in {2, 3}
    stream = client.generate("m", seed=1, count=6, max_uncertainty=1)
    positions = [(sample.index, stream.next_index, stream.num_samples) for sample in stream]
    assert positions == [(0, 1, 1), (1, 4, 2), (4, 5, 3), (5, 6, 4), (6, 7, 5), (7, 8, 6)]
    assert (stream.num_scanned, stream.num_rejected) == (8, 2)
    assert (stream.numerics_id, stream.exhausted) == (NUMERICS, False)


def test_attempts_without_progress_are_bounded(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=1), *([Fault()] * 50)]
    stream = client.generate("m", seed=1, count=10)
    with pytest.raises(ServerUnavailableError, match=r"draining \(server .*, after 4 attempts\)") as caught:
        list(stream)
    assert (caught.value.next_index, stream.next_index) == (2, 2)
    assert len(servicer.requests) == QUICK.max_attempts


def test_message_that_moves_nothing_counts_as_no_progress(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=1)] * 50
    servicer.rejects = lambda index: True

    def standstill(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        batch.next_index = 0
        return batch

    servicer.rewrite = standstill
    with pytest.raises(ServerUnavailableError):
        next(client.generate("m", seed=1, count=10, max_uncertainty=0.1))
    assert len(servicer.requests) == QUICK.max_attempts


def test_reading_again_after_an_error_goes_on_at_the_same_address(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=1), *([Fault()] * (QUICK.max_attempts - 1))]
    stream = client.generate("m", seed=1, count=6)
    first = [next(stream), next(stream)]
    with pytest.raises(ServerUnavailableError):
        next(stream)
    assert [sample.index for sample in [*first, *stream]] == list(range(6))


def test_other_engine_after_a_reconnect_is_refused_with_the_way_out(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=2)]
    servicer.numerics_of_call = lambda call: f"numerics-{call}"
    stream = client.generate("m", seed=1, count=10)
    with pytest.raises(NumericsMismatchError, match=r"start_index=4 and count=6 .*pin_numerics=False") as caught:
        list(stream)
    assert (caught.value.field, caught.value.request_id, caught.value.next_index) == ("numerics_id", "r7", 4)


def test_other_engine_is_refused_also_where_the_server_ignores_the_pin(
    client: Client, servicer: ScriptedServicer
) -> None:
    def other_engine(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        batch.numerics_id = f"numerics-{number}"
        return batch

    servicer.rewrite = other_engine
    with pytest.raises(NumericsMismatchError, match="numerics-1"):
        list(client.generate("m", seed=1, count=10))


def test_unpinned_stream_goes_on_with_another_engine(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=2)]
    servicer.numerics_of_call = lambda call: f"numerics-{call}"
    stream = client.generate("m", seed=1, count=10, pin_numerics=False)
    assert [sample.index for sample in stream] == list(range(10))
    assert stream.numerics_id == "numerics-1"


def test_other_bundle_after_a_reconnect_is_refused_even_unpinned(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=2)]
    servicer.digest_of_call = lambda call: str(call) * 64
    with pytest.raises(ModelChangedError, match="start_index=4"):
        list(client.generate("m", seed=1, count=10, pin_numerics=False))


def test_scan_limit_holds_across_reconnects(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [Fault(after_messages=1)] * 9
    servicer.rejects = lambda index: True
    with pytest.raises(ScanLimitError, match="8 indices were scanned and 0 samples passed") as caught:
        next(client.generate("m", seed=1, count=1, max_scanned=8, max_uncertainty=0.1))
    assert caught.value.next_index == 8
    assert [request.max_scanned for request in servicer.requests] == [8, 4]


def _duplicate(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
    if number == 1:
        batch.indices[0] -= 1
    return batch


def _gap(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
    if number == 1:
        batch.indices[1] += 1
        batch.next_index += 1
    return batch


def _leap(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
    batch.next_index += 3
    return batch


def _step_back(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
    batch.next_index -= 1
    return batch


def _early_end(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch | None:
    return None if number == 2 else batch


@pytest.mark.parametrize("rewrite", [_duplicate, _gap, _leap, _step_back, _early_end])
def test_server_that_breaks_the_address_rule_is_caught(
    client: Client, servicer: ScriptedServicer, rewrite: Any
) -> None:
    servicer.rewrite = rewrite
    with pytest.raises(ProtocolError):
        list(client.generate("m", seed=1, count=10))


def test_server_that_sends_too_many_is_caught(client: Client, servicer: ScriptedServicer) -> None:
    servicer.rewrite = lambda call, number, batch: batch if number else _longer(batch)
    with pytest.raises(ProtocolError, match="2 samples where 1 were due"):
        list(client.generate("m", seed=1, count=1))


def _longer(batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
    return message_of([0, 1], 2)


def test_foreign_shard_is_caught(client: Client, servicer: ScriptedServicer) -> None:
    def foreign(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        batch.indices[0] += 1
        return batch

    servicer.rewrite = foreign
    with pytest.raises(ProtocolError, match="shard 1 of 4"):
        list(client.generate("m", seed=1, count=3, shard_index=1, num_shards=4, max_uncertainty=1))


def test_closing_a_stream_cancels_its_call(client: Client, servicer: ScriptedServicer) -> None:
    with client.generate("m", seed=1, endless=True) as stream:
        assert next(stream).index == 0
    assert servicer.cancelled.wait(20)
    assert not list(stream)


def test_leaving_a_loop_early_cancels_the_call(client: Client, servicer: ScriptedServicer) -> None:
    def first_index(stream: SampleStream) -> int:
        return next(sample.index for sample in stream)

    assert first_index(client.generate("m", seed=1, endless=True)) == 0
    assert servicer.cancelled.wait(20)


def test_nothing_is_sent_before_the_first_sample_is_read(client: Client, servicer: ScriptedServicer) -> None:
    client.generate("m", seed=1, endless=True)
    assert not servicer.requests
