"""RAW arrays through shared memory: the same bits, bounded waiting, and callers that do not keep to the layout."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from labelmint.batches import read_batch
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client import AsyncClient, Client, InvalidArgumentError, ProtocolError, Sample
from labelmint_client._shared_ring import FOLDER, SharedRing
from labelmint_service.messages.assembly import Assembler
from labelmint_service.messages.shared_ring import SharedRing as ServerRing
from labelmint_service.models.served import load_model
from labelmint_service.requests.outputs import parse_output
from labelmint_service.scheduling.rows import Delivery
from tests.service.calls import Failure, expect_failure
from tests.serving import Serving, serving

HEAD_BYTES = 64
RING_BYTES = 1 << 16
Field = Literal["image", "mask", "keypoints", "uncertainty_map", "z"]
ALL_FIELDS: tuple[Field, ...] = (
    "image",
    "mask",
    "keypoints",
    "uncertainty_map",
    "z",
)


@pytest.fixture(scope="module")
def sharing(bundles: dict[str, Path]) -> Iterator[Serving]:
    with serving([bundles["tiny"]], shared_memory_folder=FOLDER) as running:
        yield running


class Ring:
    """A caller's file, written by hand from the text of service.proto."""

    def __init__(self, num_bytes: int = RING_BYTES) -> None:
        self.name = f"labelmint-{secrets.token_hex(16)}"
        self.path = FOLDER / self.name
        self.num_bytes = num_bytes
        self.file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.ftruncate(self.file, HEAD_BYTES + num_bytes)
        self.memory = mmap.mmap(self.file, HEAD_BYTES + num_bytes)

    def release(self, end: int) -> None:
        self.memory[:8] = end.to_bytes(8, "little")

    def request(self, count: int) -> service_pb2.GenerateRequest:
        request = service_pb2.GenerateRequest(model="tiny", seed=1, max_accepted=count)
        request.output.shared_memory.name, request.output.shared_memory.num_bytes = self.name, self.num_bytes
        return request

    def close(self) -> None:
        self.path.unlink(missing_ok=True)
        self.memory.close()
        os.close(self.file)


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    yield made
    made.close()


def assert_same(samples: list[Sample], others: list[Sample]) -> None:
    assert len(samples) == len(others)
    for one, other in zip(samples, others, strict=True):
        assert (one.index, one.uncertainty) == (other.index, other.uncertainty)
        for field in ALL_FIELDS:
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def refused_field(failure: Failure) -> str:
    assert failure.detail is not None
    return failure.detail.field


def files() -> set[str]:
    return {path.name for path in FOLDER.glob("labelmint-*")}


def test_samples_are_those_of_the_messages_and_no_file_stays(sharing: Serving) -> None:
    before = files()
    with Client(sharing.address) as client:
        for options in ({}, {"max_uncertainty_quantile": 0.5}, {"max_message_bytes": 65536}):
            plain = list(client.generate("tiny", seed=3, count=60, fields=ALL_FIELDS, **options))
            # So small that the ring goes round many times.
            shared = list(
                client.generate("tiny", seed=3, count=60, fields=ALL_FIELDS, shared_memory_bytes=10_000, **options)
            )
            assert_same(shared, plain)
    assert files() == before


async def test_asynchronous_client_shares_memory_too(sharing: Serving) -> None:
    async with AsyncClient(sharing.address) as client:
        plain = [sample async for sample in client.generate("tiny", seed=4, count=30, fields=ALL_FIELDS)]
        shared = [
            sample
            async for sample in client.generate(
                "tiny", seed=4, count=30, fields=ALL_FIELDS, shared_memory_bytes=RING_BYTES
            )
        ]
    assert_same(shared, plain)


def test_encoded_pictures_travel_in_messages_beside_shared_masks(sharing: Serving) -> None:
    with Client(sharing.address) as client:
        plain = list(client.generate("tiny", seed=5, count=9, image_codec="png"))
        shared = list(client.generate("tiny", seed=5, count=9, image_codec="png", shared_memory_bytes=RING_BYTES))
    for one, other in zip(shared, plain, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)


def test_layout_is_the_one_that_the_contract_states(sharing: Serving, ring: Ring) -> None:
    [plain] = sharing.stub().Generate(service_pb2.GenerateRequest(model="tiny", seed=1, max_accepted=4))
    [message] = sharing.stub().Generate(ring.request(4))
    expected = read_batch(plain.SerializeToString()).array("image_raw")
    assert expected is not None
    assert message.image_raw.data == b""
    first = HEAD_BYTES + message.image_raw.shared_offset
    assert ring.memory[first : first + expected.nbytes] == expected.tobytes()
    assert message.shared_end >= expected.nbytes
    assert message.keypoints.data, "small arrays stay in the message"


def test_server_waits_for_a_reader_that_releases_nothing_and_serves_others(sharing: Serving, ring: Ring) -> None:
    ends: list[int] = []

    def read(call: Iterable[service_pb2.SampleBatch]) -> None:
        for message in call:
            ends.append(message.shared_end)
            if ends[-1] > RING_BYTES * 7 // 8:
                others = service_pb2.GenerateRequest(model="tiny", seed=2, max_accepted=20)
                assert sum(len(other.indices) for other in sharing.stub().Generate(others)) == 20

    with pytest.raises(grpc.RpcError) as caught:
        read(sharing.stub().Generate(ring.request(ring.num_bytes // 256), timeout=5.0))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert RING_BYTES * 7 // 8 < ends[-1] <= RING_BYTES


class Clock:
    """Stands in the place of the module time; it moves when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def spend(self, duration_ns: int) -> None:
        self.now_ns += duration_ns


async def test_waiting_for_a_reader_is_no_time_of_encoding(
    bundles: dict[str, Path], ring: Ring, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    class SlowReader(ServerRing):
        async def wait_for(self, num_bytes: int, largest: int) -> None:
            clock.spend(10_000_000)
            await super().wait_for(num_bytes, largest)

    def encode_images(images: npt.NDArray[np.uint8], _: object) -> list[bytes]:
        clock.spend(500)
        return [b""] * len(images)

    for module in ("assembly", "batching"):
        monkeypatch.setattr(f"labelmint_service.messages.{module}.time", clock)
    monkeypatch.setattr("labelmint_service.messages.assembly.encode_images", encode_images)
    model = load_model(bundles["tiny"])
    request = ring.request(4)
    request.output.image_codec = service_pb2.CODEC_PNG
    plan = parse_output(request.output, model.bundle.manifest, max_message_bytes=1 << 20, prefix="output")
    shared = SlowReader(request.output.shared_memory, FOLDER, field="output.shared_memory")
    assembler = Assembler(model, plan, None, pool=pool, num_threads=1, ring=shared)
    inputs = model.probe.inputs
    delivery = Delivery(
        indices=tuple(range(inputs.num_rows)),
        inputs=inputs,
        outputs=model.engine.run(inputs),
        waited_ns=0,
        queue_ns=0,
        compute_ns=0,
    )
    verdict = await assembler.judge(delivery)
    replies = await assembler.build(delivery, verdict, range(2), num_scanned=2, num_unreported=0)
    assembler.close()
    model.close()

    batches = [service_pb2.SampleBatch.FromString(reply.data) for reply in replies]
    assert [batch.times.encode_ns for batch in batches] == [500]
    assert batches[0].mask_raw.HasField("shared_offset")
    assert assembler.waited_ns == 10_000_000


def test_released_memory_is_used_again(sharing: Serving, ring: Ring) -> None:
    last = 0
    for message in sharing.stub().Generate(ring.request(ring.num_bytes // 256)):
        last = message.shared_end
        ring.release(last)
    assert last > 2 * RING_BYTES


@pytest.mark.parametrize("lie", [RING_BYTES * 100, 2**64 - 1])
def test_reader_that_claims_more_than_was_written_is_refused(sharing: Serving, ring: Ring, lie: int) -> None:
    ring.release(lie)
    failure = expect_failure(sharing.stub().Generate(ring.request(10)))
    assert failure.code == "INVALID_ARGUMENT"
    assert refused_field(failure) == "output.shared_memory"


def test_file_that_is_truncated_meanwhile_harms_nobody_else(sharing: Serving, ring: Ring) -> None:
    call = sharing.stub().Generate(ring.request(300))
    next(iter(call))
    os.ftruncate(ring.file, 0)
    call.cancel()
    with Client(sharing.address) as client:
        assert len(list(client.generate("tiny", seed=1, count=20))) == 20


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "labelmint-", "/dev/shm/labelmint-" + "0" * 32, "labelmint-" + "0" * 31 + "A", "x" * 9999],
)
def test_other_names_are_refused(sharing: Serving, ring: Ring, name: str) -> None:
    request = ring.request(1)
    request.output.shared_memory.name = name
    failure = expect_failure(sharing.stub().Generate(request))
    assert (failure.code, refused_field(failure)) == ("INVALID_ARGUMENT", "output.shared_memory.name")


def test_link_folder_and_absent_file_are_refused(sharing: Serving, ring: Ring) -> None:
    for make in (
        lambda path: path.symlink_to(ring.path),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: None,
    ):
        other = FOLDER / f"labelmint-{secrets.token_hex(16)}"
        make(other)
        request = ring.request(1)
        request.output.shared_memory.name = other.name
        try:
            failure = expect_failure(sharing.stub().Generate(request))
        finally:
            if other.is_dir():
                other.rmdir()
            else:
                other.unlink(missing_ok=True)
        assert failure.code == "INVALID_ARGUMENT"
        assert refused_field(failure).startswith("output.shared_memory.")


@pytest.mark.parametrize("num_bytes", [0, 63, 4096 + 1, RING_BYTES + 64, 2**63])
def test_size_that_is_not_the_files_is_refused(sharing: Serving, ring: Ring, num_bytes: int) -> None:
    request = ring.request(1)
    request.output.shared_memory.num_bytes = num_bytes
    failure = expect_failure(sharing.stub().Generate(request))
    assert refused_field(failure) == "output.shared_memory.num_bytes"


def test_ring_too_small_for_a_batch_is_refused_with_the_size_it_takes(sharing: Serving) -> None:
    with Client(sharing.address) as client, pytest.raises(InvalidArgumentError, match="expected at least") as caught:
        list(client.generate("tiny", seed=1, count=8, shared_memory_bytes=640))
    assert caught.value.field == "output.shared_memory.num_bytes"


def test_server_shares_no_memory_unless_it_is_told_to(stub: service_pb2_grpc.LabelMintStub, ring: Ring) -> None:
    failure = expect_failure(stub.Generate(ring.request(1)))
    assert failure.code == "INVALID_ARGUMENT"
    assert "shared_memory_folder" in failure.text


def test_client_refuses_places_outside_its_ring() -> None:
    ring = SharedRing(640)
    tensor = service_pb2.Tensor(dtype=service_pb2.DTYPE_UINT8, shape=[1, 64], shared_offset=640 - 63)
    with pytest.raises(ProtocolError, match="lies at 577 of a ring of 640 bytes"):
        ring.read(service_pb2.SampleBatch(mask_raw=tensor).SerializeToString())


def test_client_without_such_memory_says_so(sharing: Serving) -> None:
    with Client(sharing.address) as client, pytest.raises(InvalidArgumentError, match="ask for less"):
        next(client.generate("tiny", seed=1, count=1, shared_memory_bytes=2**40))
