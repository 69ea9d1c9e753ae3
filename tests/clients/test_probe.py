"""`labelmint health` as a container runs it: without flags, against a server with TLS or client certificates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmint_client import Client, Tls
from labelmint_client._commands.reaching import (
    ADDRESS_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    ROOT_CA_VARIABLE,
    SERVER_NAME_VARIABLE,
)
from labelmint_client.cli import main
from tests.certificates import Authority, Identity
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

NAME = "labels.example.org"


@pytest.fixture(scope="module", name="authority")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", name="caller")
def _caller(authority: Authority) -> Identity:
    return authority.identity("probe@client.example")


@pytest.fixture(scope="module", name="guarded")
def _guarded(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Serving]:
    """A server that asks for client certificates and whose own does not name the loopback interface."""
    folder, identity = tmp_path_factory.mktemp("server"), authority.identity(NAME)
    with serving(
        [write_tiny_bundle(folder / "tiny")],
        tls_certificate=identity.certificate,
        tls_key=identity.key,
        tls_client_ca=authority.root,
    ) as running:
        yield running


@pytest.fixture(name="variables")
def _variables(guarded: Serving, authority: Authority, caller: Identity) -> dict[str, str]:
    return {
        ADDRESS_VARIABLE: guarded.address,
        ROOT_CA_VARIABLE: str(authority.root),
        CERTIFICATE_VARIABLE: str(caller.certificate),
        KEY_VARIABLE: str(caller.key),
        SERVER_NAME_VARIABLE: NAME,
    }


def test_probe_of_a_container_needs_only_variables(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "labelmint_client", "health"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stdout) == (0, "the server serves\n"), done.stderr


@pytest.mark.parametrize("missing", [ROOT_CA_VARIABLE, SERVER_NAME_VARIABLE, CERTIFICATE_VARIABLE])
def test_probe_that_lacks_something_says_that_the_server_does_not_serve(
    variables: dict[str, str], missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        if name != missing and (name, missing) != (KEY_VARIABLE, CERTIFICATE_VARIABLE):
            monkeypatch.setenv(name, value)

    assert main(["health"]) == 1
    assert "does not serve: no answer" in capsys.readouterr().err


def test_flags_go_before_variables(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert main(["health", "--tls-server-name", "another.example.org"]) == 1
    assert main(["health", "--tls-root-ca", str(Authority(tmp_path / "other").root)]) == 1
    assert main(["health", "--no-tls"]) == 1
    with serving([write_tiny_bundle(tmp_path / "tiny")]) as plain:
        assert main(["health", "--no-tls", "--address", plain.address]) == 0


def test_server_name_is_an_argument_of_the_library_too(
    guarded: Serving, authority: Authority, caller: Identity
) -> None:
    tls = Tls(root_ca=authority.root, certificate=caller.certificate, key=caller.key, server_name=NAME)
    with Client(guarded.address, tls=tls) as client:
        assert [model.name for model in client.list_models()] == ["tiny"]
