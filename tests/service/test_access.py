"""Tokens on real sockets: who may call and what it sees, also after the file of clients has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from labelmint.v1 import service_pb2
from labelmint.v1.service_pb2 import GetModelRequest, LabelOptions, LabelRequest, ListModelsRequest
from labelmint_service.access.tokens import hash_token
from labelmint_service.errors import AccessFileError
from tests.client_files import ClientFile, bearer
from tests.frames import DATA, END_STREAM, GENERATE, RawConnection, frame, message, request_headers
from tests.service.calls import TIMEOUT_S, collect, describe_failure, expect_failure, make_request
from tests.service.reading import read_metrics
from tests.service.scripted_engine import scripted_model
from tests.serving import Serving, serving

Metadata = tuple[tuple[str, str], ...]
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(params=["clients.toml", "clients.json"])
def clients(request: pytest.FixtureRequest, tmp_path: Path) -> ClientFile:
    return ClientFile(tmp_path / request.param, all={}, tiny={"models": ["tiny"]}, late={"expires": LONG_AGO})


@pytest.fixture
def guarded(bundles: dict[str, Path], clients: ClientFile) -> Iterator[Serving]:
    with serving([bundles["tiny"], bundles["classy"]], tokens=clients.path) as running:
        yield running


def code_of(running: Serving, metadata: Metadata) -> str:
    """How a call ends."""
    try:
        running.stub().ListModels(ListModelsRequest(), metadata=metadata, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return describe_failure(error).code
    return "OK"


CALLS: dict[str, Callable[[Any, Metadata], Any]] = {  # Any: generated stubs have no types
    "ListModels": lambda stub, metadata: stub.ListModels(ListModelsRequest(), metadata=metadata, timeout=TIMEOUT_S),
    "GetModel": lambda stub, metadata: stub.GetModel(
        GetModelRequest(model="tiny"), metadata=metadata, timeout=TIMEOUT_S
    ),
    "Generate": lambda stub, metadata: list(stub.Generate(make_request(), metadata=metadata, timeout=TIMEOUT_S)),
    "Label": lambda stub, metadata: list(
        stub.Label(iter([LabelRequest(options=LabelOptions(model="tiny"))]), metadata=metadata, timeout=TIMEOUT_S)
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_call_needs_a_token(guarded: Serving, clients: ClientFile, call: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[call](guarded.stub(), ())
    failure = describe_failure(caught.value)

    assert (failure.code, failure.detail.field if failure.detail else None) == ("UNAUTHENTICATED", "authorization")
    CALLS[call](guarded.stub(), clients.of("all"))


def test_what_is_no_valid_token_is_refused(guarded: Serving, clients: ClientFile) -> None:
    token = clients.tokens["all"]
    attempts: dict[str, Metadata] = {
        "absent": (),
        "wrong": bearer(token[:-1] + ("a" if token[-1] != "a" else "b")),
        "its hash": bearer(hash_token(token)),
        "shortened": bearer(token[:-1]),
        "expired": clients.of("late"),
        "other scheme": (("authorization", f"Basic {token}"),),
        "no scheme": (("authorization", token),),
        "twice": (*bearer(token), *bearer(token)),
        "huge": bearer("x" * 2000),
    }

    assert {name: code_of(guarded, metadata) for name, metadata in attempts.items()} == dict.fromkeys(
        attempts, "UNAUTHENTICATED"
    )
    assert code_of(guarded, (("authorization", f"bearer  {token}"),)) == "OK"


def test_expired_token_is_told_from_a_wrong_one(guarded: Serving, clients: ClientFile) -> None:
    late = expect_failure(guarded.stub().Generate(make_request(), metadata=clients.of("late"), timeout=TIMEOUT_S))
    wrong = expect_failure(guarded.stub().Generate(make_request(), metadata=bearer("lmt_x"), timeout=TIMEOUT_S))

    assert "'late' has expired" in late.text
    assert "none of this server's" in wrong.text


def test_list_shows_the_models_that_a_token_opens(guarded: Serving, clients: ClientFile) -> None:
    names = {
        name: [
            model.name
            for model in guarded.stub()
            .ListModels(ListModelsRequest(), metadata=clients.of(name), timeout=TIMEOUT_S)
            .models
        ]
        for name in ("all", "tiny")
    }

    assert names == {"all": ["tiny", "classy"], "tiny": ["tiny"]}


def test_model_that_a_token_does_not_open_is_denied(guarded: Serving, clients: ClientFile) -> None:
    stub, metadata = guarded.stub(), clients.of("tiny")
    label = iter([LabelRequest(options=LabelOptions(model="classy"))])
    failures = [
        expect_failure(stub.Generate(make_request(model="classy"), metadata=metadata, timeout=TIMEOUT_S)),
        expect_failure(stub.Label(label, metadata=metadata, timeout=TIMEOUT_S)),
    ]
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(GetModelRequest(model="classy"), metadata=metadata, timeout=TIMEOUT_S)
    failures.append(describe_failure(caught.value))

    assert [failure.code for failure in failures] == ["PERMISSION_DENIED"] * 3
    assert [failure.detail.field for failure in failures if failure.detail] == ["model", "options.model", "model"]


def test_unknown_model_does_not_tell_of_models_behind_other_tokens(guarded: Serving, clients: ClientFile) -> None:
    request = make_request(model="none")
    failure = expect_failure(guarded.stub().Generate(request, metadata=clients.of("tiny"), timeout=TIMEOUT_S))

    assert failure.code == "NOT_FOUND"
    assert "classy" not in failure.text


def test_health_needs_no_token_and_reflection_does(guarded: Serving, clients: ClientFile) -> None:
    health = health_pb2_grpc.HealthStub(guarded.channel())
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel())

    def reflect(metadata: Metadata) -> str:
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        try:
            [answer] = reflection.ServerReflectionInfo(requests, metadata=metadata, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return describe_failure(error).code
        return str(answer.list_services_response.service[0].name)

    status = health.Check(health_pb2.HealthCheckRequest(service="tiny"), timeout=TIMEOUT_S).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert reflect(()) == "UNAUTHENTICATED"
    assert read_metrics(guarded)["labelmint_requests_total", "UNAUTHENTICATED", "other"] == 1
    assert "." in reflect(clients.of("all"))


def test_unknown_method_needs_a_token_too(guarded: Serving, clients: ClientFile) -> None:
    def call(metadata: Metadata) -> str:
        method = guarded.channel().unary_unary("/other.Service/Call", lambda text: text, lambda data: data)
        with pytest.raises(grpc.RpcError) as caught:
            method(b"", metadata=metadata, timeout=TIMEOUT_S)
        return describe_failure(caught.value).code

    assert (call(()), call(clients.of("all"))) == ("UNAUTHENTICATED", "UNIMPLEMENTED")


def test_changed_file_counts_from_the_next_call_on(guarded: Serving, clients: ClientFile) -> None:
    before = {name: code_of(guarded, clients.of(name)) for name in ("all", "tiny", "late")}
    clients.write(tiny={}, late={}, new={})
    after = {name: code_of(guarded, clients.of(name)) for name in ("all", "tiny", "late", "new")}

    assert read_metrics(guarded)["labelmint_reloads_total", "tokens", "ok"] == 1
    assert before == {"all": "OK", "tiny": "OK", "late": "UNAUTHENTICATED"}
    assert after == {"all": "UNAUTHENTICATED", "tiny": "OK", "late": "OK", "new": "OK"}


def test_old_and_new_token_are_valid_together_while_one_replaces_the_other(
    guarded: Serving, clients: ClientFile
) -> None:
    old = clients.tokens["all"]
    clients.write(all={"token_sha256": [hash_token(old), hash_token("lmt_new")]})

    assert [code_of(guarded, bearer(token)) for token in (old, "lmt_new")] == ["OK", "OK"]


@pytest.mark.parametrize("content", ["[[client]]\nname = ", "[]", "{}", "\x00", ""])
def test_bad_file_is_logged_once_and_the_clients_before_stay(
    guarded: Serving, clients: ClientFile, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    clients.replace(content)
    codes = [code_of(guarded, clients.of("all")) for _ in range(3)]
    errors = [record for record in caplog.records if record.getMessage() == "tokens.error"]

    assert codes == ["OK"] * 3
    assert len(errors) == 1
    assert read_metrics(guarded)["labelmint_reloads_total", "tokens", "error"] == 1


def test_vanished_file_leaves_the_clients_before(guarded: Serving, clients: ClientFile) -> None:
    clients.path.unlink()

    assert code_of(guarded, clients.of("all")) == "OK"
    clients.write(new={})
    assert (code_of(guarded, clients.of("all")), code_of(guarded, clients.of("new"))) == ("UNAUTHENTICATED", "OK")


def test_stream_of_a_withdrawn_token_ends_though_nobody_calls(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", good={}, bad={})
    with serving([bundles["tiny"]], tokens=clients.path) as running:
        request = make_request(max_accepted=None, endless=True)
        call = running.stub().Generate(request, metadata=clients.of("bad"), timeout=TIMEOUT_S)
        next(call)
        clients.write(good={})
        failure = expect_failure(call)

    assert failure.code == "UNAUTHENTICATED"
    assert "withdrawn" in failure.text
    assert failure.detail is not None
    assert failure.detail.next_index > 0


def test_stream_of_a_token_that_was_replaced_ends(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={})
    with serving([bundles["tiny"]], tokens=clients.path) as running:
        request = make_request(max_accepted=None, endless=True)
        call = running.stub().Generate(request, metadata=clients.of("one"), timeout=TIMEOUT_S)
        next(call)
        clients.write(one={"token_sha256": hash_token("lmt_new")})
        failure = expect_failure(call)
        code = code_of(running, bearer("lmt_new"))

    assert (failure.code, code) == ("UNAUTHENTICATED", "OK")


def test_stream_goes_on_when_the_file_changes_for_others(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={}, other={})
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model], tokens=clients.path) as running:
        call = running.stub().Generate(make_request(max_accepted=12), metadata=clients.of("one"), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        clients.write(one={"priority": 3})
        other = code_of(running, clients.of("other"))
        engine.let_all()
        samples = collect(call)

    assert (other, samples.indices) == ("UNAUTHENTICATED", list(range(12)))


def test_no_token_is_ever_logged(
    bundles: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="hpack")  # the test's own
    caplog.set_level(logging.DEBUG)
    clients = ClientFile(tmp_path / "clients.toml", good={}, late={"expires": LONG_AGO})
    wrong = "lmt_this-is-nobodys-token"
    with serving([bundles["tiny"]], tokens=clients.path) as running:
        for metadata in (clients.of("good"), clients.of("late"), bearer(wrong), (("authorization", wrong),)):
            for call in CALLS.values():
                try:
                    call(running.stub(), metadata)
                except grpc.RpcError as error:
                    assert clients.tokens["late"] not in str(error)
            with pytest.raises(grpc.RpcError):
                running.channel().unary_unary("/other.Service/Call", bytes, bytes)(
                    b"", metadata=metadata, timeout=TIMEOUT_S
                )
        for token in (clients.tokens["good"], wrong):
            for key in ("authorization", "other"):
                pair = (key, f"Bearer {token}\xff".encode("latin1"))  # which no library sends
                with RawConnection(running.address) as connection:
                    headers = connection.headers(1, [*request_headers(GENERATE), pair])
                    connection.send(headers, frame(DATA, END_STREAM, 1, message(make_request().SerializeToString())))
                    assert connection.ending(1) == "grpc-status 16"
        clients.replace(f"{clients.tokens['good']}\n")  # a token where the file should be
        code_of(running, bearer(wrong))
        clients.replace(f'[[client]]\nname = "x"\ntoken_sha256 = "{clients.tokens["good"]}"\n')  # or its hash
        code_of(running, bearer(wrong))
    captured = capfd.readouterr()
    text = caplog.text + captured.out + captured.err + str([record.__dict__ for record in caplog.records])

    assert "call.begin" in text, "nothing was logged at debug level"
    assert "tokens.error" in text
    for secret in (*clients.tokens.values(), wrong):
        assert secret not in text
        assert secret.removeprefix("lmt_") not in text


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"name": "no spaces"}, "client[0].name"),
        ({"token_sha256": "lmt_secret-token"}, "client[0].token_sha256[0]"),
        ({"token_sha256": []}, "client[0].token_sha256"),
        ({"max_streams": 0}, "client[0].max_streams"),
        ({"max_streams": "4"}, "client[0].max_streams"),
        ({"samples_per_second": 0}, "client[0].samples_per_second"),
        ({"samples_per_day": -1}, "client[0].samples_per_day"),
        ({"priority": 1.5}, "client[0].priority"),
        ({"expires": "2030-01-01T00:00:00"}, "client[0].expires"),
        ({"max_stream": 1}, "client[0].max_stream"),
        ({"models": ["tiny", ""]}, "client[0].models"),
        ({"samples_per_day": 100}, "quota_file"),
    ],
)
def test_bad_entry_keeps_the_server_from_starting(
    bundles: dict[str, Path], tmp_path: Path, entry: dict[str, object], place: str
) -> None:
    clients = ClientFile(tmp_path / "clients.json", one=entry)
    with pytest.raises(AccessFileError) as caught, serving([bundles["tiny"]], tokens=clients.path):
        pass

    assert place in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("field", ["name", "token_sha256"])
def test_what_must_be_unique_is_refused_twice(bundles: dict[str, Path], tmp_path: Path, field: str) -> None:
    entry = {"name": "one"} if field == "name" else {"token_sha256": hash_token("lmt_x")}
    clients = ClientFile(tmp_path / "clients.toml", one=entry, two=entry)
    with pytest.raises(AccessFileError, match=f"{field} .* twice"), serving([bundles["tiny"]], tokens=clients.path):
        pass


def test_call_without_tokens_in_force_ignores_a_token(served: Serving) -> None:
    stub = served.stub()
    response = stub.ListModels(ListModelsRequest(), metadata=bearer("lmt_any"), timeout=TIMEOUT_S)

    assert isinstance(response, service_pb2.ListModelsResponse)
