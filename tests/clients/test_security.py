"""The client against the real server with TLS and tokens, and what it refuses to send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from labelmint_client import (
    AccessError,
    AsyncClient,
    Client,
    InvalidArgumentError,
    RetryPolicy,
    ServerBusyError,
    ServerUnavailableError,
    Tls,
    token_from_environment,
)
from labelmint_client._security import TOKEN_VARIABLE, make_security, stays_on_this_machine
from labelmint_client.cli import main
from tests.certificates import Authority, Identity
from tests.client_files import ClientFile
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import ScriptedServer
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

HASTY = RetryPolicy(max_attempts=1, connect_attempts=1)


@pytest.fixture(autouse=True)
def _no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.fixture(scope="module", name="authority")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", name="shown")
def _shown(authority: Authority) -> Identity:
    """The certificate that callers show."""
    return authority.identity("caller@client.example")


@pytest.fixture(scope="module", name="clients")
def _clients(tmp_path_factory: pytest.TempPathFactory) -> ClientFile:
    limits: dict[str, dict[str, Any]] = {"one": {}, "narrow": {"samples_per_day": 20}, "blind": {"models": ["none"]}}
    return ClientFile(tmp_path_factory.mktemp("clients") / "clients.toml", **limits)


@pytest.fixture(scope="module", name="guarded")
def _guarded(tmp_path_factory: pytest.TempPathFactory, authority: Authority, clients: ClientFile) -> Iterator[Serving]:
    """A server that asks for a client certificate and a token."""
    folder = tmp_path_factory.mktemp("server")
    identity = authority.identity("localhost", "127.0.0.1")
    tls = {"tls_certificate": identity.certificate, "tls_key": identity.key, "tls_client_ca": authority.root}
    bundle = write_tiny_bundle(folder / "tiny")
    with serving([bundle], tokens=clients.path, quota_file=folder / "quotas", **tls) as running:
        yield running


@pytest.fixture(name="tls")
def _tls(authority: Authority, shown: Identity) -> Tls:
    return Tls(root_ca=authority.root, certificate=shown.certificate, key=shown.key)


@pytest.fixture(name="token_file")
def _token_file(clients: ClientFile, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(clients.tokens["one"] + "\n", encoding="utf-8")
    return path


def test_blocking_client_streams_with_certificate_and_token(guarded: Serving, clients: ClientFile, tls: Tls) -> None:
    with Client(guarded.address, tls=tls, token=clients.tokens["one"]) as client:
        assert [model.name for model in client.list_models()] == ["tiny"]
        z = [[0.5] * client.get_model("tiny").manifest.backbone.z_dim]
        assert [sample.index for sample in client.generate("tiny", seed=1, count=6)] == list(range(6))
        assert [sample.index for sample in client.label("tiny", z=z)] == [0]


async def test_asynchronous_client_streams_with_certificate_and_token(
    guarded: Serving, token_file: Path, tls: Tls
) -> None:
    async with AsyncClient(guarded.address, tls=tls, token_file=token_file) as client:
        assert [model.name for model in await client.list_models()] == ["tiny"]
        z = [[0.5] * (await client.get_model("tiny")).manifest.backbone.z_dim]
        assert [sample.index async for sample in client.generate("tiny", seed=1, count=6)] == list(range(6))
        assert [sample.index async for sample in client.label("tiny", z=z)] == [0]


def test_token_of_the_environment_is_used_where_it_is_asked_for(
    guarded: Serving, clients: ClientFile, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert token_from_environment() is None
    monkeypatch.setenv(TOKEN_VARIABLE, clients.tokens["one"])
    with Client(guarded.address, tls=tls, retry=HASTY) as silent, pytest.raises(AccessError):
        silent.list_models()
    with Client(guarded.address, tls=tls, token=token_from_environment()) as client:
        assert client.list_models()


def test_token_file_is_read_again_for_each_call(
    guarded: Serving, clients: ClientFile, tls: Tls, token_file: Path
) -> None:
    with Client(guarded.address, tls=tls, token_file=token_file) as client:
        assert client.list_models()
        token_file.write_text("lmt_wrong", encoding="utf-8")
        with pytest.raises(AccessError):
            client.list_models()
        token_file.write_text(clients.tokens["one"], encoding="utf-8")
        assert client.list_models()


def test_refusals_are_typed_and_never_repeat_the_token(guarded: Serving, clients: ClientFile, tls: Tls) -> None:
    with Client(guarded.address, tls=tls, token="lmt_nobodys") as client, pytest.raises(AccessError) as wrong:
        client.list_models()
    with (
        Client(guarded.address, tls=tls, token=clients.tokens["blind"]) as client,
        pytest.raises(AccessError) as denied,
    ):
        client.get_model("tiny")

    assert (wrong.value.code, denied.value.code) == (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    )
    assert "nobodys" not in f"{wrong.value!r} {client!r} {vars(client)!r}"


def test_spent_quota_is_an_error_with_the_address_to_go_on_with(
    guarded: Serving, clients: ClientFile, tls: Tls
) -> None:
    with Client(guarded.address, tls=tls, token=clients.tokens["narrow"]) as client:
        stream = client.generate("tiny", seed=1, count=1000)
        with pytest.raises(ServerBusyError, match="samples of the day") as caught:
            list(stream)

    assert caught.value.next_index == stream.next_index


def test_client_without_a_certificate_does_not_connect(
    guarded: Serving, clients: ClientFile, authority: Authority
) -> None:
    tls = Tls(root_ca=authority.root)
    with (
        Client(guarded.address, tls=tls, token=clients.tokens["one"], retry=HASTY) as client,
        pytest.raises(ServerUnavailableError),
    ):
        client.list_models()


def test_server_of_another_authority_is_not_trusted(
    guarded: Serving, clients: ClientFile, shown: Identity, tmp_path: Path
) -> None:
    tls = Tls(root_ca=Authority(tmp_path / "other").root, certificate=shown.certificate, key=shown.key)
    with (
        Client(guarded.address, tls=tls, token=clients.tokens["one"], retry=HASTY) as client,
        pytest.raises(ServerUnavailableError),
    ):
        client.list_models()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "address", ["192.0.2.1:50051", "server.example:50051", "dns:///server.example:50051", "[::]:1"]
)
def test_token_is_not_sent_in_plain_text_over_a_network(kind: type[Client | AsyncClient], address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="plain text") as caught:
        kind(address, token="lmt_secret")

    assert caught.value.field == "token"
    assert "secret" not in str(caught.value)
    kind(address, token="lmt_secret", tls=Tls())  # nothing is opened before the first call


@pytest.mark.parametrize("token", [None, "lmt_secret"])
@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_server_on_this_machine_is_reached_past_any_proxy(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, variable: str, token: str | None
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    with Client(server.address, token=token, retry=QUICK) as client:
        assert client.list_models()


def test_server_elsewhere_is_reached_through_the_proxy_and_its_name_is_kept() -> None:
    named = ("grpc.ssl_target_name_override", "labels.example.org")

    def options(address: str) -> tuple[tuple[str, int | str], ...]:
        tls = Tls(server_name="labels.example.org")
        return make_security(address, tls=tls, credentials=None, token=None, token_file=None).options

    assert options("192.0.2.1:50051") == (named,)
    assert options("127.0.0.1:50051") == (("grpc.enable_http_proxy", 0), named)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:50051", True),
        ("127.0.0.1:1", True),
        ("[::1]:50051", True),
        ("dns:///localhost:50051", True),
        ("dns:localhost:50051", True),
        ("dns://8.8.8.8/localhost:1", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", True),
        ("ipv4:127.0.0.1:1,192.0.2.1:2", False),
        ("ipv6:[::1]:50051", True),
        ("ipv6:[2001:db8::1]:50051", False),
        ("unix:/run/labelmint.sock", True),
        ("unix-abstract:labelmint", True),
        ("xds:///localhost:50051", False),
        ("0.0.0.0:50051", False),
        ("localhost.example.com:50051", False),
        ("dns:50051", False),
    ],
)
def test_which_addresses_stay_on_this_machine(address: str, expected: bool) -> None:
    assert stays_on_this_machine(address) is expected


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"token": "a", "token_file": "b"}, "token"),
        ({"token": ""}, "token"),
        ({"token": "two words"}, "token"),
        ({"token": "line\n"}, "token"),
        ({"token": "ä"}, "token"),
        ({"token": "x" * 1001}, "token"),
        ({"token_file": "/none/token"}, "token_file"),
        ({"tls": Tls(root_ca="/none/root.pem")}, "root_ca"),
        ({"tls": Tls(), "credentials": object()}, "tls"),
    ],
)
def test_what_cannot_be_used_is_an_error_at_once(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Client("localhost:50051", **given)

    assert caught.value.field == field


@pytest.mark.parametrize(("given", "field"), [({"key": "k"}, "certificate"), ({"certificate": "c"}, "key")])
def test_certificate_and_key_come_together(given: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Tls(**given)

    assert caught.value.field == field


def test_command_reaches_a_server_with_tls_and_tokens(
    guarded: Serving,
    authority: Authority,
    shown: Identity,
    clients: ClientFile,
    token_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    address = ["--address", guarded.address]
    tls = [
        "--tls-root-ca",
        str(authority.root),
        "--tls-certificate",
        str(shown.certificate),
        "--tls-key",
        str(shown.key),
    ]
    token = ["--token-file", str(token_file)]

    assert main(["health", *address, *tls]) == 0
    assert main(["models", *address, *tls, *token]) == 0
    assert main(["show", *address, *tls, *token, "tiny"]) == 0
    generate = ["--seed", "1", "--count", "3", "--out", str(tmp_path / "set"), "--no-progress"]
    assert main(["generate", *address, *tls, *token, *generate]) == 0
    assert main(["models", *address, *tls]) == 1
    assert "no token came" in capsys.readouterr().err
    monkeypatch.setenv(TOKEN_VARIABLE, clients.tokens["one"])
    assert main(["models", *address, *tls]) == 0


def test_command_refuses_half_a_pair(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["models", "--tls-key", "key.pem"])

    assert stop.value.code == 2
    assert "--tls-certificate" in capsys.readouterr().err
