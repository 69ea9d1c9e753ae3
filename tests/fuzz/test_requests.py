"""Hostile requests over a real socket: each gets a sound stream or a documented refusal; the server stays as it was.

`--fuzz-cases` says how many; `make fuzz` asks for many. A failure names its case.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from labelmint.v1 import service_pb2
from tests.fuzz.calling import Caller
from tests.fuzz.generating import MODELS, REQUESTS, Case, raw_case, schema_case
from tests.fuzz.growth import check_memory_comes_to_rest
from tests.fuzz.judging import DOCUMENTED, MAX_REQUEST_BYTES, names_field
from tests.service.server_process import ServerProcess, server_process, wait_for_files
from tests.tiny_bundle import write_tiny_bundle

RING_BYTES = 2**20
"""Of the server, over the second half of all cases."""
KINDS: dict[str, Callable[[int], Case]] = {"schema": schema_case, "raw": raw_case}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("bundles")
    return [
        write_tiny_bundle(root / "tiny"),
        write_tiny_bundle(root / "classy", name="classy", c_dim=3, cutoff=2, keypoints=0),
        write_tiny_bundle(root / "poisoned", name="poisoned", poison_above=1.0),
    ]


def make_ring_folder(folder: Path) -> Path:
    """Of each kind of file that a caller may name: a good one, a link, a folder, and none."""
    folder.mkdir()
    (folder / f"labelmint-{'0' * 32}").write_bytes(bytes(64 + RING_BYTES))
    (folder / f"labelmint-{'1' * 32}").symlink_to("/dev/zero")
    (folder / f"labelmint-{'2' * 32}").mkdir()
    return folder


def fuzz(server: ServerProcess, kind: str, first: int, count: int) -> Caller:
    process = psutil.Process(server.process.pid)

    def describe(case: Case) -> str:
        again = f"python -m pytest tests/fuzz/test_requests.py -k {kind} --fuzz-first {case.number} --fuzz-cases 1"
        return f"case {case.number}, alone: {again}"

    caller = Caller(server.channel, describe)
    before, num_files = caller.golden(), process.num_fds()
    memory = caller.run(map(KINDS[kind], range(first, first + count)), process, count)
    assert caller.golden() == before
    wait_for_files(process, num_files)
    check_memory_comes_to_rest(memory)
    return caller


@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("kind", KINDS)
def test_request_is_served_or_refused_as_documented(
    bundles: list[Path], tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    first, count = request.config.getoption("--fuzz-first"), request.config.getoption("--fuzz-cases")
    flags = [flag for bundle in bundles for flag in ("--bundle", str(bundle))]
    flags += ["--max-request-bytes", str(MAX_REQUEST_BYTES), "--progress-interval-s", "0.02", "--log-level", "error"]
    flags += ["--shared-memory-folder", str(make_ring_folder(tmp_path / "rings"))]
    with server_process(tmp_path, *flags) as server:
        caller = fuzz(server, kind, first, count)
        assert server.process.poll() is None
    print(dict(caller.outcomes))
    assert not server.log.read_text(encoding="utf-8")
    if count >= 500:
        assert caller.outcomes["Generate OK"] >= count / 50, "too few requests were sound"
        assert caller.outcomes["Generate INVALID_ARGUMENT"] >= count / 50, "too few requests were not"


def test_documents_name_the_statuses_that_a_caller_may_meet() -> None:
    assert {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "DATA_LOSS"} <= DOCUMENTED
    assert DOCUMENTED.isdisjoint({"INTERNAL", "UNKNOWN"})


def test_field_names_are_looked_up_in_the_contract() -> None:
    kind = service_pb2.GenerateRequest
    known = ("", "limit", "seed", "filter.min_class_areas[3].class_name", "output.fields[0]")
    assert all(names_field(kind, path) for path in known)
    assert not any(names_field(kind, path) for path in ("sed", "seed[0]", "filter.seed", "seed.x", "output.fields[x]"))


def test_cases_reach_every_field_of_every_request() -> None:
    reached: set[str] = set()

    def walk(message: object, path: str) -> None:
        for field, value in message.ListFields():  # type: ignore[attr-defined]  # a message
            reached.add(f"{path}.{field.name}")
            if field.message_type is not None:
                for child in value if field.is_repeated else [value]:
                    walk(child, f"{path}.{field.name}")

    def expected(descriptor: object, path: str) -> set[str]:
        names = set()
        for field in descriptor.fields:  # type: ignore[attr-defined]  # a descriptor
            names.add(f"{path}.{field.name}")
            if field.message_type is not None:
                names |= expected(field.message_type, f"{path}.{field.name}")
        return names

    for number in range(700):
        case = schema_case(number)
        for payload in case.payloads:
            walk(REQUESTS[case.method].FromString(payload), case.method)
    missed = {path for method, kind in REQUESTS.items() for path in expected(kind.DESCRIPTOR, method)} - reached
    assert not missed
    assert set(MODELS) == {"tiny", "classy", "poisoned"}
