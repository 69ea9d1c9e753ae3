"""Certificates made for a test: an authority, and what it signs, as files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import trustme


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its key.

    Attributes:
        certificate: PEM file of the chain.
        key: PEM file of the key.
    """

    certificate: Path
    key: Path


class Authority:
    """Signs certificates.

    Args:
        folder: Where files go; it is created.

    Attributes:
        root: PEM file of its own certificate.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.root = folder / "root.pem"
        self._ca.cert_pem.write_to_path(self.root)

    def identity(self, *names: str, not_after: datetime | None = None) -> Identity:
        """A new certificate for hosts or addresses, which ends when the test likes."""
        issued = self._ca.issue_cert(*names, not_after=not_after)
        number = len(list(self._folder.iterdir()))
        certificate, key = self._folder / f"{number}.crt", self._folder / f"{number}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return Identity(certificate=certificate, key=key)

    def credentials(self, identity: Identity | None = None) -> grpc.ChannelCredentials:
        """What a caller needs who trusts this authority, and shows a certificate of its own if it has one."""
        if identity is None:
            return grpc.ssl_channel_credentials(self.root.read_bytes())
        return grpc.ssl_channel_credentials(
            self.root.read_bytes(), identity.key.read_bytes(), identity.certificate.read_bytes()
        )


def put(source: Identity, target: Identity) -> None:
    """Puts the files of one identity where those of another are, each at once."""
    for old, new in ((target.certificate, source.certificate), (target.key, source.key)):
        unfinished = old.with_suffix(".unfinished")
        unfinished.write_bytes(new.read_bytes())
        unfinished.replace(old)
