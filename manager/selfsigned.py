"""The certificate of a server that nobody gave one: made at the start, for this process alone, never on disk.

In: a folder that may hold ``tls.crt`` and ``tls.key``. Out: an ``ssl.SSLContext``. Scrapers that verify need the
files; the others are content with encryption, as controller-runtime's metrics server offers it.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from manager.errors import ConfigError

DEFAULT_DIR = Path(tempfile.gettempdir()) / "k8s-metrics-server" / "serving-certs"
_DAYS = 365


def serving_context(folder: Path | None = None) -> ssl.SSLContext:
    """TLS with the certificate of the folder; without one there, with a new self-signed one.

    Args:
        folder: None looks in the usual place, and is content with nothing there.

    Raises:
        ConfigError: a folder was named and its files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    place = folder or DEFAULT_DIR
    cert, key = place / "tls.crt", place / "tls.key"
    if folder is None and not (cert.exists() and key.exists()):
        _load(context, make_pair())
        return context
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificate of {place} (tls.crt, tls.key) cannot be used: {error}") from error
    return context


def make_pair() -> bytes:
    """A certificate for this host and localhost, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{host}-metrics"[:64])])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName(host)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return cert.public_bytes(Encoding.PEM) + private


def _load(context: ssl.SSLContext, pair: bytes) -> None:
    """OpenSSL's interface wants a file; this one lives in memory and has no name."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pair)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
