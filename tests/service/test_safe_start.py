"""Settings that would expose tokens or serve the wrong bundle keep the server from starting; what is risky is said."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path

import pytest

from labelmint.bundle import open_bundle
from labelmint.errors import DigestMismatchError
from labelmint_service.access.clients import read_clients
from labelmint_service.access.tokens import hash_token
from labelmint_service.cli import main
from labelmint_service.errors import SettingsError
from labelmint_service.loading import load_models
from labelmint_service.settings import load_settings
from tests.certificates import Authority
from tests.service.calls import TIMEOUT_S, make_request
from tests.service.server_process import run_server, server_process
from tests.serving import serving

TLS = ("--tls-certificate", "c.pem", "--tls-key", "k.pem")


def test_tokens_in_plain_text_off_loopback_keep_the_server_from_starting() -> None:
    done = run_server("--tokens", "clients.toml", "--host", "0.0.0.0")

    assert (done.returncode, done.stdout) == (2, "")
    assert "tokens is set and host is '0.0.0.0'" in done.stderr


@pytest.mark.parametrize("flags", [("--host", "localhost"), ("--host", "::1"), ("--host", "0.0.0.0", *TLS)])
def test_tokens_are_fine_on_loopback_or_with_tls(flags: tuple[str, ...]) -> None:
    assert load_settings(["--tokens", "clients.toml", *flags]).tokens == Path("clients.toml")


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (TLS[:2], "tls_key"),
        (TLS[2:], "tls_certificate"),
        (("--tls-client-ca", "ca.pem"), "tls_client_ca"),
        (("--quota-file", "quotas"), "quota_file"),
        (("--bundle", "a", "--bundle", "b", "--expect-digest", "0" * 64), "expect_digest"),
        (("--expect-digest", "short"), "expect_digest"),
        (("--expect-digest", "0" * 64, "--no-verify-files"), "expect_digest"),
        (("--tokens", "clients.toml", "--host", "192.0.2.1"), "tokens"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(flags: tuple[str, ...], field: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)

    assert caught.value.field == field
    assert field in str(caught.value)


def test_bundle_of_another_digest_keeps_the_server_from_starting_with_both_named(bundles: dict[str, Path]) -> None:
    digest = open_bundle(bundles["tiny"]).digest
    done = run_server("--bundle", str(bundles["tiny"]), "--expect-digest", "0" * 64)

    assert (done.returncode, done.stdout) == (2, "")
    assert digest in done.stderr
    assert "0" * 64 in done.stderr


def test_bundles_of_the_expected_digests_are_served(bundles: dict[str, Path], tmp_path: Path) -> None:
    digests = {name: open_bundle(bundles[name]).digest for name in ("tiny", "classy")}
    flags = [flag for name in digests for flag in ("--bundle", str(bundles[name]))]
    flags += [flag for digest in digests.values() for flag in ("--expect-digest", digest)]
    with server_process(tmp_path, *flags) as server:
        served = {
            name: {batch.digest for batch in server.stub().Generate(make_request(model=name), timeout=TIMEOUT_S)}
            for name in digests
        }

    assert served == {name: {digest} for name, digest in digests.items()}


def test_digests_belong_to_bundles_in_their_order(bundles: dict[str, Path]) -> None:
    names = ("tiny", "classy")
    flags = [flag for name in names for flag in ("--bundle", str(bundles[name]))]
    flags += [flag for name in reversed(names) for flag in ("--expect-digest", open_bundle(bundles[name]).digest)]
    with pytest.raises(DigestMismatchError, match=re.escape(str(bundles["tiny"]))):
        load_models(load_settings(flags))


@pytest.mark.parametrize(
    ("host", "is_encrypted", "warnings"), [("127.0.0.1", False, 0), ("0.0.0.0", False, 1), ("0.0.0.0", True, 0)]
)
def test_plain_text_off_loopback_is_warned_of_once(
    bundles: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    host: str,
    is_encrypted: bool,
    warnings: int,
) -> None:
    caplog.set_level(logging.INFO)
    identity = Authority(tmp_path / "authority").identity("localhost")
    tls = {"tls_certificate": identity.certificate, "tls_key": identity.key} if is_encrypted else {}
    with serving([bundles["tiny"]], host=host, **tls):
        pass

    assert [record.getMessage() for record in caplog.records].count("server.plaintext") == warnings


def test_new_token_is_printed_once_with_the_entry_that_knows_only_its_hash(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokens = []
    for _ in range(2):
        assert main(["new-token", "training"]) == 0
        text = capsys.readouterr().out
        [token] = [word for word in text.split() if word.startswith("lmt_")]
        path = tmp_path / "clients.toml"
        path.write_text(text[text.index("[[client]]") :], encoding="utf-8")
        [client] = read_clients(path)
        assert (client.name, client.token_sha256) == ("training", (hash_token(token),))
        assert len(token) >= 43, "fewer than 256 bits"
        assert tomllib.loads(path.read_text(encoding="utf-8"))
        tokens.append(token)

    assert tokens[0] != tokens[1]


@pytest.mark.parametrize("argv", [["new-token"], ["new-token", 'a"b'], ["new-token", "a", "b"]])
def test_new_token_refuses_a_bad_name(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)

    assert stop.value.code == 2
    assert "lmt_" not in capsys.readouterr().out
