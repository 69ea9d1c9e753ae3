"""The embedded model through a real socket: the bits of a sample follow from its address alone."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
import pytest

from labelmint.bundle import Bundle
from labelmint.scores import image_score
from labelmint_client import Client, Sample
from tests.embedded.graph import run_model_graph

SEED = 2024
COUNT = 5  # one more than a batch
FIELDS: Final = ("image", "mask", "keypoints", "uncertainty_map")

Bits = dict[int, tuple[bytes, ...]]


def bits_of(samples: list[Sample]) -> Bits:
    return {s.index: tuple(getattr(s, name).tobytes() for name in FIELDS) for s in samples}


def stream(client: Client, **request: Any) -> Bits:  # Any: arguments of `generate`
    return bits_of(list(client.generate("toonhead", seed=SEED, fields=FIELDS, **request)))


@pytest.fixture(scope="module")
def whole(served: Any) -> Bits:
    with Client(served.address) as client:
        return stream(client, end_index=COUNT)


def test_stream_has_the_bits_of_the_model_graph(embedded: Bundle, client: Client) -> None:
    expected = run_model_graph(embedded, SEED, range(COUNT))
    assert expected["finite"].all()
    samples = list(client.generate("toonhead", seed=SEED, end_index=COUNT, fields=FIELDS))
    assert [sample.index for sample in samples] == list(range(COUNT))
    for name, output in (
        ("image", "image"),
        ("mask", "label"),
        ("keypoints", "keypoints"),
        ("uncertainty_map", "uncertainty_map"),
    ):
        got = np.stack([getattr(sample, name) for sample in samples])
        assert got.dtype == expected[output].dtype
        assert got.tobytes() == expected[output].tobytes(), name
    scores = np.array([sample.uncertainty for sample in samples], np.float32)
    assert np.array_equal(scores, image_score(expected["uncertainty_map"]))


@pytest.mark.parametrize("num_shards", [2, pytest.param(5, marks=pytest.mark.thorough)])
def test_shards_together_are_the_whole(client: Client, whole: Bits, num_shards: int) -> None:
    parts: Bits = {}
    for shard in range(num_shards):
        part = stream(client, end_index=COUNT, shard_index=shard, num_shards=num_shards)
        assert {index % num_shards for index in part} == {shard}
        parts |= part
    assert parts == whole


@pytest.mark.parametrize(
    "max_message_bytes", [150_000, *(pytest.param(size, marks=pytest.mark.thorough) for size in (300_000, 16 << 20))]
)
def test_size_of_the_messages_changes_no_bit(client: Client, whole: Bits, max_message_bytes: int) -> None:
    assert stream(client, end_index=COUNT, max_message_bytes=max_message_bytes) == whole


@pytest.mark.parametrize("cut", [pytest.param(1, marks=pytest.mark.thorough), 3])
def test_interrupted_stream_goes_on_with_the_same_bits(client: Client, whole: Bits, cut: int) -> None:
    first = client.generate("toonhead", seed=SEED, end_index=COUNT, fields=FIELDS)
    samples = [next(first) for _ in range(cut)]
    first.close()
    rest = list(client.generate("toonhead", seed=SEED, start_index=cut, end_index=COUNT, fields=FIELDS))
    assert bits_of(samples) | bits_of(rest) == whole
    assert [sample.index for sample in [*samples, *rest]] == list(range(COUNT))


def test_other_load_changes_no_bit(served: Any, client: Client, whole: Bits) -> None:
    busy, failures = threading.Event(), []
    stop = threading.Event()

    def load() -> None:
        with Client(served.address) as other:
            try:
                for _ in other.generate("toonhead", seed=1, endless=True, truncation_psi=0.6):
                    busy.set()
                    if stop.is_set():
                        return
            except Exception as error:  # noqa: BLE001 - shown by the test
                failures.append(error)
                busy.set()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        assert busy.wait(60)
        assert stream(client, end_index=COUNT) == whole
    finally:
        stop.set()
        thread.join(60)
    assert not failures
