"""TLS on real sockets: who may connect, and certificates that are replaced while streams run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from labelmint.v1 import service_pb2
from labelmint_service.access.certificates import CertificateFiles
from labelmint_service.errors import AccessFileError
from labelmint_service.metrics import ServiceMetrics
from tests.certificates import Authority, Identity, put
from tests.service.calls import TIMEOUT_S, collect, describe_failure, make_request
from tests.service.reading import read_metrics
from tests.service.scripted_engine import scripted_model
from tests.serving import Serving, serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def identity(authority: Authority) -> Identity:
    return authority.identity("localhost", "127.0.0.1")


@pytest.fixture
def encrypted(bundles: dict[str, Path], identity: Identity) -> Iterator[Serving]:
    with serving([bundles["tiny"]], tls_certificate=identity.certificate, tls_key=identity.key) as running:
        yield running


def code_of(running: Serving, credentials: grpc.ChannelCredentials | None) -> str:
    """How a call on a new connection ends."""
    try:
        running.stub(credentials).ListModels(service_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return describe_failure(error).code
    return "OK"


def test_caller_who_trusts_the_authority_is_served(encrypted: Serving, authority: Authority) -> None:
    stream = encrypted.stub(authority.credentials()).Generate(make_request(), timeout=TIMEOUT_S)

    assert collect(stream).indices == [0, 1, 2, 3, 4]


def test_caller_who_trusts_another_authority_does_not_connect(encrypted: Serving, tmp_path: Path) -> None:
    assert code_of(encrypted, Authority(tmp_path / "other").credentials()) == "UNAVAILABLE"


def test_plain_text_does_not_reach_a_server_with_tls(encrypted: Serving, authority: Authority) -> None:
    assert code_of(encrypted, None) == "UNAVAILABLE"
    assert code_of(encrypted, authority.credentials()) == "OK"


def test_client_certificate_is_asked_for_where_a_client_ca_is_set(
    bundles: dict[str, Path], authority: Authority, identity: Identity, tmp_path: Path
) -> None:
    ours, strangers = Authority(tmp_path / "clients"), Authority(tmp_path / "strangers")
    tls = {"tls_certificate": identity.certificate, "tls_key": identity.key, "tls_client_ca": ours.root}
    root = authority.root.read_bytes()

    def credentials(shown: Identity) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(root, shown.key.read_bytes(), shown.certificate.read_bytes())

    with serving([bundles["tiny"]], **tls) as running:
        codes = {
            "none": code_of(running, authority.credentials()),
            "stranger": code_of(running, credentials(strangers.identity("a@stranger.example"))),
            "known": code_of(running, credentials(ours.identity("a@client.example"))),
        }

    assert codes == {"none": "UNAVAILABLE", "stranger": "UNAVAILABLE", "known": "OK"}


def test_replaced_certificate_serves_new_connections_while_streams_go_on(
    bundles: dict[str, Path], authority: Authority, identity: Identity, tmp_path: Path
) -> None:
    successor = Authority(tmp_path / "successor")
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model], tls_certificate=identity.certificate, tls_key=identity.key) as running:
        call = running.stub(authority.credentials()).Generate(make_request(max_accepted=12), timeout=TIMEOUT_S)
        engine.let()
        first = next(call)
        put(successor.identity("localhost", "127.0.0.1"), identity)
        codes = [code_of(running, of.credentials()) for of in (successor, authority)]
        engine.let_all()
        rest = collect(call)
        metrics = read_metrics(running)

    assert codes == ["OK", "UNAVAILABLE"]
    assert metrics["labelmint_reloads_total", "tls", "ok"] == 1
    assert [*first.indices, *rest.indices] == list(range(12))


@pytest.mark.parametrize("fault", ["key of another", "half a certificate", "no certificate"])
def test_bad_replacement_is_logged_once_and_the_old_certificate_stays(
    encrypted: Serving, authority: Authority, identity: Identity, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.DEBUG)
    whole = identity.certificate.read_bytes()
    match fault:
        case "key of another":
            identity.key.write_bytes(authority.identity("localhost").key.read_bytes())
        case "half a certificate":
            identity.certificate.write_bytes(whole[: len(whole) // 2])
        case _:
            identity.certificate.unlink()
    codes = [code_of(encrypted, authority.credentials()) for _ in range(3)]
    errors = [record for record in caplog.records if record.getMessage() == "tls.error"]

    assert codes == ["OK"] * 3
    assert len(errors) == 1
    metrics = read_metrics(encrypted)
    assert (metrics["labelmint_reloads_total", "tls", "error"], metrics["labelmint_reload_failed", "tls"]) == (1, 1)
    assert identity.key.read_text().splitlines()[1] not in caplog.text


def test_pair_that_was_half_replaced_serves_once_the_other_half_is_there(
    encrypted: Serving, identity: Identity, authority: Authority, tmp_path: Path
) -> None:
    successor = Authority(tmp_path / "successor")
    new = successor.identity("localhost", "127.0.0.1")
    identity.certificate.write_bytes(new.certificate.read_bytes())
    between = code_of(encrypted, authority.credentials())
    failed = read_metrics(encrypted)["labelmint_reload_failed", "tls"]
    identity.key.write_bytes(new.key.read_bytes())

    assert (between, code_of(encrypted, successor.credentials())) == ("OK", "OK")
    assert (failed, read_metrics(encrypted)["labelmint_reload_failed", "tls"]) == (1, 0)


def test_client_authority_is_replaced_while_the_server_runs(
    bundles: dict[str, Path], authority: Authority, identity: Identity, tmp_path: Path
) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    root = authority.root.read_bytes()
    known = {name: of.identity("a@client.example") for name, of in (("first", first), ("second", second))}
    tls = {"tls_certificate": identity.certificate, "tls_key": identity.key, "tls_client_ca": first.root}

    def codes(running: Serving) -> list[str]:
        return [
            code_of(running, grpc.ssl_channel_credentials(root, one.key.read_bytes(), one.certificate.read_bytes()))
            for one in known.values()
        ]

    with serving([bundles["tiny"]], **tls) as running:
        before = codes(running)
        first.root.write_bytes(second.root.read_bytes())
        after = codes(running)

    assert (before, after) == (["OK", "UNAVAILABLE"], ["UNAVAILABLE", "OK"])


@pytest.mark.parametrize("field", ["tls_certificate", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize("content", [b"", b"no PEM", None])
def test_file_that_cannot_be_used_keeps_the_server_from_starting(
    identity: Identity, authority: Authority, field: str, content: bytes | None
) -> None:
    paths = {"tls_certificate": identity.certificate, "tls_key": identity.key, "tls_client_ca": authority.root}
    if content is None:
        paths[field].unlink()
    else:
        paths[field].write_bytes(content)
    files = CertificateFiles(identity.certificate, identity.key, authority.root, ServiceMetrics())
    with pytest.raises(AccessFileError) as caught:
        files.load()

    assert str(paths[field]) in str(caught.value)


def test_key_with_a_passphrase_is_refused_without_asking_for_it(identity: Identity) -> None:
    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    hidden = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    identity.key.write_bytes(hidden)
    with pytest.raises(AccessFileError, match="passphrase"):
        CertificateFiles(identity.certificate, identity.key, None, ServiceMetrics()).load()


def test_fingerprint_is_that_of_the_first_certificate(identity: Identity) -> None:
    certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    loaded = CertificateFiles(identity.certificate, identity.key, None, ServiceMetrics()).load()

    assert loaded.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()


def test_expiry_is_shown_and_an_expired_certificate_told_of_until_it_is_replaced(
    bundles: dict[str, Path], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    long_over = now - timedelta(days=1)
    soon = now + timedelta(days=30)
    identity = authority.identity("localhost", "127.0.0.1", not_after=long_over)
    tls = {"tls_certificate": identity.certificate, "tls_key": identity.key, "tls_client_ca": authority.root}
    roots = x509.load_pem_x509_certificates(authority.root.read_bytes())
    shown = "labelmint_certificate_expiry_timestamp_seconds"
    with serving([bundles["tiny"]], **tls) as running:
        before = read_metrics(running)
        codes = [code_of(running, authority.credentials(authority.identity("a@client.example"))) for _ in range(2)]
        put(authority.identity("localhost", "127.0.0.1", not_after=soon), identity)
        codes.append(code_of(running, authority.credentials(authority.identity("a@client.example"))))
        after = read_metrics(running)
    told = [record for record in caplog.records if record.getMessage() == "tls.expired"]

    assert codes == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
    assert before[shown, "tls_certificate"] == long_over.timestamp()
    assert after[shown, "tls_certificate"] == soon.timestamp()
    assert after[shown, "tls_client_ca"] == roots[0].not_valid_after_utc.timestamp()
    assert len(told) == 1


def test_certificate_that_expires_while_it_is_served_is_told_of_at_the_next_handshake(
    identity: Identity, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    put(authority.identity("localhost", "127.0.0.1", not_after=datetime.now(UTC) + timedelta(seconds=2)), identity)
    files = CertificateFiles(identity.certificate, identity.key, None, ServiceMetrics())
    files.load()
    files.reload()
    silent = [record.getMessage() for record in caplog.records]
    deadline_s = time.monotonic() + TIMEOUT_S
    while not caplog.records and time.monotonic() < deadline_s:
        files.reload()
    files.reload()

    assert silent == []
    assert [record.getMessage() for record in caplog.records] == ["tls.expired"]
