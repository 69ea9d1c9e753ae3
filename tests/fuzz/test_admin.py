"""Hostile requests to the admin service: each is done or refused as documented; only the repository changes.

The server loads and unloads versions all the while, and neither grows nor keeps files open.

`--fuzz-cases` says how many. A case is a function of its number alone.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.message import DecodeError, Message

from labelmint.v1 import admin_pb2, admin_pb2_grpc, service_pb2
from tests.fuzz.calling import NUM_PROBES
from tests.fuzz.generating import damaged
from tests.fuzz.growth import check_memory_comes_to_rest
from tests.fuzz.judging import DOCUMENTED, MOST_TEXT, names_field
from tests.service.calls import EVERY_FIELD, collect, describe_failure, make_request
from tests.service.repositories import Repository
from tests.service.server_process import ServerProcess, server_process, wait_for_files
from tests.tiny_bundle import write_tiny_bundle

REQUESTS: dict[str, type[Message]] = {
    method.name: getattr(admin_pb2, method.input_type.name)
    for method in admin_pb2.DESCRIPTOR.services_by_name["LabelMintAdmin"].methods
}
TEXTS = (
    *("tiny", "tiny@1", "tiny@2", "tiny@stable", "tiny@default", "1", "2", "stable", "default", "", "@", "tiny@", "@1"),
    *("../tiny@1", "tiny@../1", "..", "/etc/passwd", "tiny/../tiny@1", "tiny@1/..", "../../outside", "tiny@1@2"),
    *("ü" * 40, "x" * 9_000, "\n" * 300, "%s%n", "-1", "tiny@1 ", ".labelmint", "labelmint.toml", "a\x00b"),
)
NEAR = {
    "model": ("tiny", "tiny@1", "tiny@2", "tiny@stable"),
    "alias": ("stable", "default"),
    "version": ("1", "2", ""),
    "limit_s": (0.0, 60.0),
}
"""By the name of the field: what a sound request has."""
LIMITS = (0.0, 0.01, -1.0, 1e308, float("nan"), float("inf"), 60.0)
TIMEOUT_S = 60.0
"""Times at which the server's memory is looked at."""
"""Of the server, over the second half of all cases."""


def make_case(number: int) -> tuple[str, bytes]:
    """A method and the bytes of its request."""
    rng = random.Random(f"admin {number}")
    method = rng.choice(list(REQUESTS))
    message = REQUESTS[method]()
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.9:
            any_value = LIMITS if field.name == "limit_s" else TEXTS
            setattr(message, field.name, rng.choice(NEAR[field.name] if rng.random() < 0.6 else any_value))
    payload = message.SerializeToString()
    return method, damaged(payload, rng) if rng.random() < 0.3 else payload


def hash_files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def call(channel: grpc.Channel, number: int) -> str:
    method, payload = make_case(number)
    raw = channel.unary_unary(
        f"/labelmint.v1.LabelMintAdmin/{method}", request_serializer=None, response_deserializer=None
    )
    try:
        raw(payload, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        failure = describe_failure(error)
        assert failure.code in DOCUMENTED, f"case {number}: {failure.code}: {failure.text}"
        assert failure.detail is not None, f"case {number}: no detail came with {failure.code}: {failure.text}"
        assert 0 < len(failure.text) <= MOST_TEXT, number
        assert names_field(REQUESTS[method], failure.detail.field), f"case {number}: {failure.detail.field!r}"
        return f"{method} {failure.code}"
    try:
        REQUESTS[method].FromString(payload)
    except DecodeError:
        raise AssertionError(f"case {number}: bytes that are no message were accepted") from None
    return f"{method} OK"


def fuzz(channel: grpc.Channel, process: psutil.Process, first: int, count: int) -> set[str]:
    """Call with every case; gives how calls ended."""
    outcomes: set[str] = set()
    memory: list[int] = []
    for number in range(first, first + count):
        outcomes.add(call(channel, number))
        if not (number - first) % max(1, count // NUM_PROBES):
            memory.append(process.memory_info().rss)
    check_memory_comes_to_rest(memory)
    return outcomes


def check_samples(server: ServerProcess, repository: Repository) -> None:
    wanted = make_request(model="tiny@1", output=service_pb2.OutputOptions(fields=EVERY_FIELD))
    repository.truth(1).check(collect(server.stub().Generate(wanted, timeout=TIMEOUT_S)))


@pytest.mark.timeout(14_400)
def test_admin_request_is_done_or_refused_as_documented(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    first, count = request.config.getoption("--fuzz-first"), request.config.getoption("--fuzz-cases")
    repository = Repository(tmp_path / "models", {1: write_tiny_bundle(tmp_path / "source")})
    (repository.root / "tiny").mkdir(parents=True)
    for version in ("1", "2"):
        repository.add(version, 1)
    before = hash_files(tmp_path)
    flags = ["--model-repository", str(repository.root), "--repository-mode", "explicit", "--load", "tiny@1"]
    flags += ["--admin-port", "0", "--log-level", "error"]
    with server_process(tmp_path_factory.mktemp("server"), *flags) as server:
        process = psutil.Process(server.process.pid)
        with grpc.insecure_channel(json.loads(server.ready_file.read_bytes())["admin"]) as channel:
            admin = admin_pb2_grpc.LabelMintAdminStub(channel)  # type: ignore[no-untyped-call]  # generated
            admin.LoadModel(admin_pb2.LoadModelRequest(model="tiny@1"), timeout=TIMEOUT_S)
            check_samples(server, repository)
            num_files = process.num_fds()
            outcomes = fuzz(channel, process, first, count)
            # What happened to the versions is the callers' will; the server still does what it is asked for.
            admin.LoadModel(admin_pb2.LoadModelRequest(model="tiny@1"), timeout=TIMEOUT_S)
            check_samples(server, repository)
            wait_for_files(process, num_files)
        assert server.process.poll() is None
        assert not server.log.read_text(encoding="utf-8")
    after = hash_files(tmp_path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {Path(path).parent for path in changed} <= {Path("models/tiny")}, "only the folder's aliases may change"
    if count >= 500:
        assert {f"{method} OK" for method in REQUESTS} <= outcomes
        refused = {"LoadModel NOT_FOUND", "SetAlias INVALID_ARGUMENT", "UnloadModel INVALID_ARGUMENT"}
        assert refused <= outcomes, outcomes
