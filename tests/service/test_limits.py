"""Limits of clients on real sockets: streams, samples a second, samples a day, and what a caller learns of them."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from labelmint.v1 import service_pb2
from labelmint_service.access.quota_store import QuotaStore
from labelmint_service.access.quotas import DAY_S, DayUse, block_size
from labelmint_service.errors import AccessFileError, QuotaStoreError
from tests.client_files import ClientFile
from tests.service.calls import TIMEOUT_S, Failure, collect, describe_failure, make_request
from tests.service.reading import read_metrics
from tests.service.scripted_engine import scripted_model
from tests.service.server_process import server_process
from tests.serving import Serving, serving

BATCH_SIZE = 4
ENDLESS = make_request(max_accepted=None, endless=True)


def today() -> int:
    return int(time.time() // DAY_S)


def drain(call: Iterable[service_pb2.SampleBatch]) -> tuple[list[int], Failure, error_details_pb2.RetryInfo, str]:
    """Reads a stream that a limit must end: its indices, how it failed, when to retry, which limit it was."""
    indices: list[int] = []
    with pytest.raises(grpc.RpcError) as caught:
        indices.extend(index for batch in call for index in batch.indices)
    failure = describe_failure(caught.value)
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it is a Call too, which the stubs rule out
    assert status is not None, "no rich details came"
    retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    assert [detail.Unpack(message) for detail, message in zip(status.details, (retry, quota), strict=True)] == [
        True
    ] * 2
    [violation] = quota.violations
    return indices, failure, retry, f"{violation.subject} {violation.description.partition(':')[0]}"


def generate(
    running: Serving, clients: ClientFile, name: str, request: service_pb2.GenerateRequest = ENDLESS
) -> Iterable[service_pb2.SampleBatch]:
    call: Iterable[service_pb2.SampleBatch] = running.stub().Generate(
        request, metadata=clients.of(name), timeout=TIMEOUT_S
    )
    return call


def test_stream_above_max_streams_of_its_client_is_refused_with_a_retry_hint(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"max_streams": 2}, other={"max_streams": 1})
    with serving([bundles["tiny"]], tokens=clients.path) as running:
        streams = [running.stub().Generate(ENDLESS, metadata=clients.of("one"), timeout=TIMEOUT_S) for _ in range(2)]
        for stream in streams:
            next(stream)
        _, failure, retry, violated = drain(generate(running, clients, "one"))
        next(running.stub().Generate(ENDLESS, metadata=clients.of("other"), timeout=TIMEOUT_S))
        metrics = read_metrics(running)

    assert metrics["labelmint_streams_refused_total", "client max_streams", "tiny"] == 1
    assert failure.code == "RESOURCE_EXHAUSTED"
    assert failure.detail is not None
    assert violated == "client:one max_streams"
    assert retry.retry_delay.ToMilliseconds() >= 1000


def test_stream_that_ended_makes_room_for_the_next(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"max_streams": 1})
    with serving([bundles["tiny"]], tokens=clients.path) as running:
        for _ in range(3):
            assert collect(generate(running, clients, "one", make_request())).indices == [0, 1, 2, 3, 4]
        metrics = read_metrics(running)

    assert metrics["labelmint_client_samples_total", "one"] == 3 * 5
    assert metrics["labelmint_streams_refused_total", "client max_streams", "tiny"] == 0


def test_server_wide_stream_limit_has_a_retry_hint_too(bundles: dict[str, Path]) -> None:
    with serving([bundles["tiny"]], max_streams=1) as running:
        call = running.stub().Generate(ENDLESS, timeout=TIMEOUT_S)
        next(call)
        with pytest.raises(grpc.RpcError) as caught:
            next(running.stub().Generate(ENDLESS, timeout=TIMEOUT_S))
        call.cancel()
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it is a Call too, which the stubs rule out

    assert status is not None
    [detail] = status.details
    assert detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)


def test_rate_slows_a_stream_and_ends_none(bundles: dict[str, Path], tmp_path: Path) -> None:
    rate, count = 20, 32
    clients = ClientFile(tmp_path / "clients.toml", slow={"samples_per_second": rate}, free={})
    with serving([bundles["tiny"]], tokens=clients.path) as running:
        began_s = time.monotonic()
        slow = collect(generate(running, clients, "slow", make_request(max_accepted=count)))
        took_s = time.monotonic() - began_s

    assert slow.indices == list(range(count))
    assert took_s >= (count - rate) / rate, "what one second saves comes at once, the rest at the rate"


def test_rate_is_shared_by_the_streams_of_a_client(bundles: dict[str, Path], tmp_path: Path) -> None:
    rate, count = 20, 16
    clients = ClientFile(tmp_path / "clients.toml", slow={"samples_per_second": rate})
    with serving([bundles["tiny"], bundles["classy"]], tokens=clients.path) as running:
        began_s = time.monotonic()
        requests = [make_request(model=model, max_accepted=count) for model in ("tiny", "classy", "tiny")]
        calls = [generate(running, clients, "slow", request) for request in requests]
        results = [collect(call).indices for call in calls]
        took_s = time.monotonic() - began_s

    assert results == [list(range(count))] * 3
    assert took_s >= (3 * count - rate) / rate


def test_quota_ends_the_stream_with_resume_point_and_the_time_until_midnight(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 30}, other={"samples_per_day": 30})
    settings = {"tokens": clients.path, "quota_file": tmp_path / "quotas"}
    day = today()
    with serving([bundles["tiny"]], **settings) as running:
        indices, failure, retry, violated = drain(generate(running, clients, "one"))
        left_s = (day + 1) * DAY_S - time.time()
        again, _, _, _ = drain(generate(running, clients, "one"))
        other = collect(generate(running, clients, "other", make_request()))
        metrics = read_metrics(running)
    if today() != day:
        pytest.skip("the day turned during the test")

    assert (indices, again, other.indices) == (list(range(30)), [], [0, 1, 2, 3, 4])
    assert [metrics["labelmint_client_samples_total", name] for name in ("one", "other")] == [30, 5]
    assert metrics["labelmint_streams_refused_total", "client samples_per_day", "tiny"] == 1
    assert failure.code == "RESOURCE_EXHAUSTED"
    assert failure.detail is not None
    assert failure.detail.next_index == 30
    assert violated == "client:one samples_per_day"
    assert left_s <= retry.retry_delay.ToMilliseconds() / 1000 < left_s + 60


def test_quota_that_is_just_enough_ends_no_stream(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 30})
    with serving([bundles["tiny"]], tokens=clients.path, quota_file=tmp_path / "quotas") as running:
        assert collect(generate(running, clients, "one", make_request(max_accepted=30))).indices == list(range(30))


def test_quota_is_shared_by_the_streams_of_a_client(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 50})
    with serving([bundles["tiny"]], tokens=clients.path, quota_file=tmp_path / "quotas") as running:
        calls = [generate(running, clients, "one") for _ in range(3)]
        day = today()
        results = [drain(call)[0] for call in calls]
    if today() != day:
        pytest.skip("the day turned during the test")

    assert sum(len(indices) for indices in results) == 50


def test_raised_quota_counts_for_the_next_stream(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 20})
    day = today()
    with serving([bundles["tiny"]], tokens=clients.path, quota_file=tmp_path / "quotas") as running:
        first, failure, _, _ = drain(generate(running, clients, "one"))
        clients.write(one={"samples_per_day": 45})
        assert failure.detail is not None
        request = make_request(max_accepted=None, endless=True, start_index=failure.detail.next_index)
        second, _, _, _ = drain(generate(running, clients, "one", request))
    if today() != day:
        pytest.skip("the day turned during the test")

    assert first + second == list(range(45))


def test_quota_survives_a_clean_restart_to_the_sample(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 100})
    settings = {"tokens": clients.path, "quota_file": tmp_path / "quotas"}
    day = today()
    with serving([bundles["tiny"]], **settings) as running:
        collect(generate(running, clients, "one", make_request(max_accepted=37)))
    with serving([bundles["tiny"]], **settings) as running:
        rest, _, _, _ = drain(generate(running, clients, "one"))
    if today() != day:
        pytest.skip("the day turned during the test")

    assert len(rest) == 63


def test_quota_after_kills_gives_never_more_and_at_most_a_block_a_kill_less(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    quota, num_kills = 90, 3
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": quota})
    flags = ("--bundle", str(bundles["tiny"]), "--tokens", str(clients.path), "--quota-file", str(tmp_path / "quotas"))
    day, received = today(), 0
    for _ in range(num_kills):
        with server_process(tmp_path, *flags) as server:
            call = server.stub().Generate(ENDLESS, metadata=clients.of("one"), timeout=TIMEOUT_S)
            received += sum(len(batch.indices) for batch in itertools.islice(call, 2))
            server.process.kill()
            try:
                received += sum(len(batch.indices) for batch in call)
            except grpc.RpcError as error:
                assert describe_failure(error).code == "UNAVAILABLE"
            server.wait()
    with server_process(tmp_path, *flags) as server:
        call = server.stub().Generate(ENDLESS, metadata=clients.of("one"), timeout=TIMEOUT_S)
        received += len(drain(call)[0])
    if today() != day:
        pytest.skip("the day turned during the test")

    in_work = 3 * BATCH_SIZE  # handed out and cut off
    assert quota - num_kills * (block_size(quota) + in_work) <= received <= quota


def test_quota_file_of_another_server_keeps_this_one_from_starting(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 20})
    settings = {"tokens": clients.path, "quota_file": tmp_path / "quotas"}
    with (
        serving([bundles["tiny"]], **settings),
        pytest.raises(AccessFileError, match="another server has it"),
        serving([bundles["tiny"]], **settings),
    ):
        pass


def write_odd_row(path: Path) -> None:
    QuotaStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO day_use VALUES ('one', 'today', 5)")
        connection.commit()


@pytest.mark.parametrize(
    ("spoil", "hint"),
    [
        (lambda path: path.write_bytes(b"no database, but long enough to be taken for one" * 100), "move it away"),
        (write_odd_row, "move it away"),
        (lambda path: path.mkdir(), "name a file in a folder that exists"),
    ],
    ids=["no database", "odd row", "folder"],
)
def test_quota_file_that_cannot_be_used_keeps_the_server_from_starting(
    tmp_path: Path, spoil: Callable[[Path], object], hint: str
) -> None:
    path = tmp_path / "quotas"
    spoil(path)
    with pytest.raises(AccessFileError, match=hint) as caught:
        QuotaStore(path)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_quota_file_that_was_removed_is_not_written_into_nothing(tmp_path: Path, is_replaced: bool) -> None:
    path = tmp_path / "quotas"
    store = QuotaStore(path)
    path.rename(tmp_path / "away")
    if is_replaced:
        QuotaStore(path).close()
    with pytest.raises(QuotaStoreError):
        store.record({"one": DayUse(day=3, used=5)})
    store.close()


def test_quota_that_cannot_be_written_down_hands_nothing_out(
    bundles: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"samples_per_day": 10_000})
    with serving([bundles["tiny"]], tokens=clients.path, quota_file=tmp_path / "quotas") as running:
        collect(generate(running, clients, "one", make_request()))
        store = running.server._access._store  # type: ignore[attr-defined]  # the disk that fails, from inside
        store._connection.execute("PRAGMA query_only = ON")
        received, code = 0, ""
        try:
            for batch in generate(running, clients, "one"):
                received += len(batch.indices)
        except grpc.RpcError as error:
            code = describe_failure(error).code
        store._connection.execute("PRAGMA query_only = OFF")
        after = collect(generate(running, clients, "one", make_request()))

    assert code == "UNAVAILABLE"
    assert received <= block_size(10_000)
    assert [record for record in caplog.records if record.getMessage() == "quota.error"]
    assert after.indices == [0, 1, 2, 3, 4]


def test_store_gives_back_what_was_recorded(tmp_path: Path) -> None:
    store = QuotaStore(tmp_path / "quotas")
    store.record({"one": DayUse(day=3, used=5), "other": DayUse(day=3, used=6)})
    store.record({"one": DayUse(day=4, used=1)})
    store.close()
    again = QuotaStore(tmp_path / "quotas")

    assert again.loaded == {"one": DayUse(day=4, used=1), "other": DayUse(day=3, used=6)}
    again.close()


def test_priority_of_the_client_reaches_its_streams(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={"priority": 7})
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model], tokens=clients.path) as running:
        call = running.stub().Generate(make_request(), metadata=clients.of("one"), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        [stream] = running.server._fleet.scheduler_of(model)._streams
        engine.let_all()
        collect(call)

    assert (stream.client, stream.priority) == ("one", 7)
