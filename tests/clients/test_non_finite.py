"""Samples that no server can make: the client says where to go on after them, and a data set goes on there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from labelmint.addresses import latents
from labelmint.v1 import service_pb2
from labelmint_client import Client, ServerFaultError
from labelmint_client._commands.local_server import LocalServer
from labelmint_client.cli import main
from tests.clients.scripted_server import Fault, ScriptedServicer
from tests.tiny_bundle import write_tiny_bundle

SEED = 7


def lost(next_index: int, *, after_messages: int) -> Fault:
    detail = service_pb2.ErrorDetail(next_index=next_index)
    return Fault(
        after_messages=after_messages, code=grpc.StatusCode.DATA_LOSS, details="sample is non-finite", detail=detail
    )


@pytest.fixture(scope="module", name="address")
def _address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server whose samples with z[0] > 1 come out non-finite."""
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "poisoned", name="poisoned", poison_above=1.0)
    server = LocalServer(["--bundle", str(bundle)], start_timeout_s=120, stop_timeout_s=60)
    try:
        yield server.start()
    finally:
        assert server.stop() == 0


@pytest.fixture(scope="module", name="is_bad")
def _is_bad() -> list[bool]:
    """Whether the server cannot make a sample, by address."""
    flags: list[bool] = (latents(SEED, np.arange(2000, dtype=np.uint64), 8)[:, 0] > 1.0).tolist()
    return flags


@pytest.fixture(scope="module", name="start")
def _start(is_bad: list[bool]) -> int:
    """An address whose sample is sound, before two that are not."""
    return next(index for index in range(1900) if is_bad[index : index + 3] == [False, True, True])


def test_error_keeps_the_address_after_the_lost_sample(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [lost(5, after_messages=2)]
    stream = client.generate("m", seed=1, count=10)
    with pytest.raises(ServerFaultError) as caught:
        list(stream)

    assert (caught.value.next_index, stream.next_index) == (5, 4)


def test_error_never_goes_back_behind_what_came(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [lost(1, after_messages=2)]
    with pytest.raises(ServerFaultError) as caught:
        list(client.generate("m", seed=1, count=10))

    assert caught.value.next_index == 4


def test_row_after_the_lost_one_counts_from_the_first_call(client: Client, servicer: ScriptedServicer) -> None:
    """Rows 0 to 3 come in the first call; the second counts anew, brings two more and loses its third."""
    servicer.faults = [Fault(after_messages=2), lost(3, after_messages=1)]
    stream = client.label("m", z=np.zeros((9, 8), dtype=np.float32))
    with pytest.raises(ServerFaultError) as caught:
        list(stream)

    assert (caught.value.next_index, stream.next_index) == (7, 6)


def test_starting_again_at_the_errors_address_passes_every_lost_sample(
    address: str, is_bad: list[bool], start: int
) -> None:
    end = start + 30
    came: list[int] = []
    index, num_lost = start, 0
    with Client(address) as client:
        while index < end:
            try:
                for sample in client.generate("poisoned", seed=SEED, start_index=index, end_index=end):
                    came.append(sample.index)  # noqa: PERF401  # what came before the error counts
                index = end
            except ServerFaultError as error:
                assert error.next_index is not None
                assert error.next_index > index
                index, num_lost = error.next_index, num_lost + 1

    assert came == [index for index in range(start, end) if not is_bad[index]]
    assert num_lost == sum(is_bad[start:end])


def test_resumed_data_set_leaves_lost_samples_out_and_names_them(
    address: str, is_bad: list[bool], start: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    arguments = ["generate", "--address", address, "--seed", str(SEED), "--start-index", str(start), "--count", "8"]
    arguments += ["--format", "png", "--format", "coco", "--no-progress", "--out", str(out)]
    sound = [index for index in range(start, start + 100) if not is_bad[index]][:8]
    lost_ones = [index for index in range(start, sound[-1]) if is_bad[index]]
    assert main(arguments) == 1
    assert "--resume goes on" in capsys.readouterr().err
    statuses = [main([*arguments, "--resume"]) for _ in lost_ones]
    description = json.loads((out / "dataset.json").read_bytes())

    assert statuses == [1] * (len(lost_ones) - 1) + [0]
    assert sorted(int(path.stem) for path in (out / "images").iterdir()) == sound
    assert [one["index"] for one in json.loads((out / "keypoints.json").read_bytes())["samples"]] == sound
    assert description["left_out"] == lost_ones
    assert (description["num_samples"], description["num_rejected"]) == (8, 0)


def test_lost_first_sample_leaves_no_data_set(address: str, start: int, tmp_path: Path) -> None:
    arguments = ["generate", "--address", address, "--seed", str(SEED), "--start-index", str(start + 1), "--count", "2"]

    assert main([*arguments, "--out", str(tmp_path / "set")]) == 1
    assert not (tmp_path / "set").exists()
