"""The admin service on real sockets: off by default, on its own port, and never open to others without a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from labelmint.v1 import admin_pb2, admin_pb2_grpc
from labelmint.v1.admin_pb2 import ListRepositoryRequest, LoadModelRequest, SetAliasRequest, UnloadModelRequest
from labelmint_service.errors import AccessFileError, SettingsError
from labelmint_service.settings import load_settings
from tests.certificates import Authority
from tests.client_files import ClientFile
from tests.service.calls import TIMEOUT_S, collect, describe_failure, expect_failure, make_request
from tests.service.repositories import Repository
from tests.service.server_process import run_server
from tests.serving import Serving, serving

Metadata = tuple[tuple[str, str], ...]
REQUESTS = {
    "ListRepository": ListRepositoryRequest(),
    "LoadModel": LoadModelRequest(model="tiny@1"),
    "UnloadModel": UnloadModelRequest(model="tiny@9"),
    "SetAlias": SetAliasRequest(model="tiny", alias="stable", version="1"),
}


@pytest.fixture
def clients(tmp_path: Path) -> ClientFile:
    return ClientFile(tmp_path / "clients.toml", boss={"admin": True}, worker={}, stranger={"models": ["other"]})


@pytest.fixture
def guarded(repository: Repository, clients: ClientFile) -> Iterator[Serving]:
    with serving(
        [],
        model_repository=repository.root,
        repository_mode="explicit",
        load=("tiny",),
        admin_port=0,
        tokens=clients.path,
    ) as running:
        yield running


def outcome(stub: admin_pb2_grpc.LabelMintAdminStub, rpc: str, metadata: Metadata) -> str:
    try:
        getattr(stub, rpc)(REQUESTS[rpc], metadata=metadata, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return describe_failure(error).code
    return "OK"


def test_call_without_a_message_is_refused_and_not_kept(guarded: Serving, clients: ClientFile) -> None:
    channel = guarded.channel(address=guarded.readiness.admin)
    path = f"/{admin_pb2.DESCRIPTOR.package}.LabelMintAdmin/ListRepository"
    call = channel.stream_unary(path, request_serializer=None, response_deserializer=None)
    with pytest.raises(grpc.RpcError) as caught:
        call(iter(()), metadata=clients.of("boss"), timeout=TIMEOUT_S)

    assert describe_failure(caught.value).code == "INVALID_ARGUMENT"


def test_calls_need_a_token_with_the_right(guarded: Serving, clients: ClientFile) -> None:
    admin = guarded.admin()

    def outcomes(metadata: Metadata) -> dict[str, str]:
        return {rpc: outcome(admin, rpc, metadata) for rpc in REQUESTS}

    assert outcomes(()) == dict.fromkeys(REQUESTS, "UNAUTHENTICATED")
    assert outcomes(clients.of("worker")) == dict.fromkeys(REQUESTS, "PERMISSION_DENIED")
    assert outcomes(clients.of("boss")) == dict.fromkeys(REQUESTS, "OK") | {"UnloadModel": "NOT_FOUND"}


def test_refused_call_does_nothing(guarded: Serving, clients: ClientFile, repository: Repository) -> None:
    outcome(guarded.admin(), "SetAlias", clients.of("worker"))

    assert not (repository.root / "tiny" / "model.json").exists()


def test_right_that_is_withdrawn_is_gone_at_the_next_call(guarded: Serving, clients: ClientFile) -> None:
    admin = guarded.admin()
    before = outcome(admin, "ListRepository", clients.of("boss"))
    clients.write(boss={}, worker={})

    assert (before, outcome(admin, "ListRepository", clients.of("boss"))) == ("OK", "PERMISSION_DENIED")


def test_models_of_a_token_hold_for_every_version_and_alias(guarded: Serving, clients: ClientFile) -> None:
    stub = guarded.stub()
    codes = {
        model: expect_failure(
            stub.Generate(make_request(model=model), metadata=clients.of("stranger"), timeout=TIMEOUT_S)
        ).code
        for model in ("tiny", "tiny@1", "tiny@latest", "tiny@9")
    }

    assert set(codes.values()) == {"PERMISSION_DENIED"}
    stream = stub.Generate(make_request(model="tiny@1"), metadata=clients.of("worker"), timeout=TIMEOUT_S)
    assert collect(stream).indices == [0, 1, 2, 3, 4]


def test_port_of_the_streams_knows_no_admin_service(guarded: Serving, clients: ClientFile) -> None:
    stub = admin_pb2_grpc.LabelMintAdminStub(guarded.channel())  # type: ignore[no-untyped-call]  # generated
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel())
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    [answer] = reflection.ServerReflectionInfo(iter([request]), metadata=clients.of("boss"), timeout=TIMEOUT_S)

    assert outcome(stub, "ListRepository", clients.of("boss")) == "UNIMPLEMENTED"
    assert all("Admin" not in service.name for service in answer.list_services_response.service)


def test_there_is_no_admin_service_unless_asked_for(repository: Repository) -> None:
    with serving([], model_repository=repository.root) as running:
        assert running.readiness.admin == ""


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--tokens", "clients.toml"),
        ("--tls-certificate", "c.pem", "--tls-key", "k.pem"),
    ],
)
def test_admin_off_loopback_without_tokens_over_tls_keeps_the_server_from_starting(
    repository: Repository, flags: tuple[str, ...]
) -> None:
    given = ("--model-repository", str(repository.root), "--admin-port", "0", "--admin-host", "0.0.0.0", *flags)
    with pytest.raises(SettingsError) as caught:
        load_settings(given)

    assert caught.value.field == "admin_host"


def test_process_with_an_open_admin_service_ends_with_the_reason(repository: Repository) -> None:
    done = run_server(
        "--model-repository", str(repository.root), "--admin-port", "0", "--admin-host", "0.0.0.0", "--no-metrics"
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "admin_host is '0.0.0.0'" in done.stderr


def test_admin_off_loopback_serves_with_tokens_over_tls(
    repository: Repository, clients: ClientFile, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    identity = authority.identity("localhost", "127.0.0.1")
    with serving(
        [],
        model_repository=repository.root,
        admin_port=0,
        admin_host="0.0.0.0",
        tokens=clients.path,
        tls_certificate=identity.certificate,
        tls_key=identity.key,
    ) as running:
        port = running.readiness.admin.rpartition(":")[2]
        channel = running.channel(authority.credentials(), address=f"127.0.0.1:{port}")
        stub = admin_pb2_grpc.LabelMintAdminStub(channel)  # type: ignore[no-untyped-call]  # generated
        plain = running.channel(address=f"127.0.0.1:{port}")
        open_stub = admin_pb2_grpc.LabelMintAdminStub(plain)  # type: ignore[no-untyped-call]  # generated

        assert outcome(stub, "ListRepository", ()) == "UNAUTHENTICATED"
        assert outcome(stub, "ListRepository", clients.of("boss")) == "OK"
        assert outcome(open_stub, "ListRepository", clients.of("boss")) == "UNAVAILABLE"


def test_file_of_clients_without_an_admin_keeps_the_server_from_starting(
    repository: Repository, clients: ClientFile
) -> None:
    clients.write(worker={})
    with (
        pytest.raises(AccessFileError, match="admin = true"),
        serving([], model_repository=repository.root, admin_port=0, tokens=clients.path),
    ):
        pass


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--admin-port", "0"), "admin_port"),
        (("--load", "tiny"), "load"),
        (("--model-repository", "m", "--load", "tiny"), "load"),
        (("--model-repository", "m", "--bundle", "b"), "bundle"),
        (("--model-repository", "m", "--repository-mode", "explicit", "--load", "../x"), "load"),
        (("--devices", "0"), "devices"),
        (("--provider", "cuda", "--devices", "-1"), "devices"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(flags: tuple[str, ...], field: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)

    assert caught.value.field == field


def test_devices_and_replicas_make_an_engine_each() -> None:
    both = load_settings(["--provider", "cuda", "--devices", "0,1", "--replicas", "2"])

    assert both.engine_choice.devices == (0, 0, 1, 1)
    assert load_settings([]).engine_choice.devices == (None,)
    assert load_settings(["--replicas", "3"]).engine_choice.devices == (None,) * 3


def test_limit_that_is_no_time_is_refused(guarded: Serving, clients: ClientFile) -> None:
    admin = guarded.admin()
    for limit_s in (-1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(grpc.RpcError) as caught:
            admin.UnloadModel(
                UnloadModelRequest(model="tiny@1", limit_s=limit_s), metadata=clients.of("boss"), timeout=TIMEOUT_S
            )
        failure = describe_failure(caught.value)

        assert (failure.code, failure.detail and failure.detail.field) == ("INVALID_ARGUMENT", "limit_s")


def test_repository_lists_what_it_costs(guarded: Serving, clients: ClientFile, repository: Repository) -> None:
    repository.add("2", 1)
    answer = guarded.admin().ListRepository(ListRepositoryRequest(), metadata=clients.of("boss"), timeout=TIMEOUT_S)
    [model] = answer.models
    newest, loaded = model.versions

    assert (model.name, newest.version.version, loaded.version.version) == ("tiny", "2", "1")
    assert newest == admin_pb2.RepositoryVersion(version=newest.version, in_folder=True)
    assert loaded.version.digest == repository.digest(1)
    assert loaded.in_folder
    assert (loaded.num_replicas, loaded.num_streams) == (1, 0)
