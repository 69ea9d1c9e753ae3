"""Certificates: the TLS files of the server, read again when they change and checked before they are used."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from labelmint_service.access.watching import WatchedFiles
from labelmint_service.errors import AccessFileError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What TLS needs.

    Attributes:
        chain: The server's certificate, then those that lead to its root, PEM.
        key: Its private key, PEM.
        client_ca: Roots that client certificates must lead to, PEM; None if none are asked for.
        fingerprint: SHA-256 of the server's certificate, hexadecimal, as browsers and openssl show it.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    fingerprint: str


class CertificateFiles:
    """The files of the certificate, its key and the roots of clients.

    Args:
        certificate: PEM file of the chain.
        key: PEM file of the private key, without a passphrase.
        client_ca: PEM file of the roots of clients; None to ask for no client certificates.
        metrics: Where to count.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None, metrics: ServiceMetrics) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._metrics = metrics
        self._watched = WatchedFiles([path for path in (certificate, key, client_ca) if path is not None])
        self._lock = threading.Lock()
        self._expiries: dict[str, datetime] = {}

    def load(self) -> Certificates:
        """Read the files.

        Raises:
            AccessFileError: One cannot be read, is no PEM, or certificate and key do not belong together.
        """
        self._watched.note(self._watched.stamp())
        chain = _read(self._certificate, "tls_certificate")
        key = _read(self._key, "tls_key")
        client_ca = None if self._client_ca is None else _read(self._client_ca, "tls_client_ca")
        self._check_pair()
        if (chain, key) != (_read(self._certificate, "tls_certificate"), _read(self._key, "tls_key")):
            raise AccessFileError(
                f"{self._certificate} and {self._key} changed while they were read; let both rest, then start again",
                field="tls_certificate",
            )
        served = _parse(chain, self._certificate, "tls_certificate")
        roots = None if client_ca is None else _parse(client_ca, self._client_ca, "tls_client_ca")
        self._note_expiries(served, roots)
        return Certificates(
            chain=chain,
            key=key,
            client_ca=client_ca,
            fingerprint=served[0].fingerprint(hashes.SHA256()).hex(),
        )

    def reload(self) -> Certificates | None:
        """Read the files again if they have changed. For any thread; called before each TLS handshake.

        Returns:
            What to use from now on; None to go on with what there was, because nothing changed or the files are no
            good, which is logged once for each state of the files.
        """
        with self._lock:
            if not self._watched.are_changed:
                self._tell_expired()
                return None
            try:
                certificates = self.load()
            except AccessFileError as error:
                self._metrics.note_reload("tls", is_ok=False)
                log_event(_log, logging.ERROR, "tls.error", message=f"{error}; the old certificate stays in force")
                return None
        self._metrics.note_reload("tls", is_ok=True)
        log_event(_log, logging.INFO, "tls.reloaded", certificate_sha256=certificates.fingerprint)
        return certificates

    def _note_expiries(self, served: list[x509.Certificate], roots: list[x509.Certificate] | None) -> None:
        """Show when what is in force expires: a chain with its first link, the roots of clients with the last one."""
        self._expiries = {"tls_certificate": min(certificate.not_valid_after_utc for certificate in served)}
        if roots is not None:
            self._expiries["tls_client_ca"] = max(root.not_valid_after_utc for root in roots)
        for name, expiry in self._expiries.items():
            self._metrics.certificate_expiry.labels(name).set(expiry.timestamp())
        self._tell_expired()

    def _tell_expired(self) -> None:
        """Log, once for each state of the files, what has expired: gRPC goes on with it without a word."""
        for name, expiry in list(self._expiries.items()):
            if datetime.now(UTC) > expiry:
                del self._expiries[name]
                log_event(
                    _log,
                    logging.ERROR,
                    "tls.expired",
                    setting=name,
                    message=f"{name} expired at {expiry.isoformat()}: no client connects until its file is replaced, "
                    "which needs no restart",
                )

    def _check_pair(self) -> None:
        def no_passphrase() -> str:
            raise ValueError("it has a passphrase")  # else OpenSSL would ask for it on the terminal

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key, no_passphrase)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise AccessFileError(
                f"tls_certificate {self._certificate} and tls_key {self._key} cannot be used ({error}); give a PEM "
                "certificate and the PEM key that it was made for, without a passphrase",
                field="tls_certificate",
            ) from None


def _parse(pem: bytes, path: Path | None, field_name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise AccessFileError(
            f"{field_name} {path} cannot be used ({error}); give PEM certificates", field=field_name
        ) from None


def _read(path: Path, field_name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessFileError(
            f"{field_name} {path} cannot be read ({error.strerror}); name a PEM file that this process may read",
            field=field_name,
        ) from error
