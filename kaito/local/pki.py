"""Certificates of the embedded cluster: one private CA, a server certificate, client certificates.

In: a folder. Out: PEM files in it, made on the first start and reused afterwards. Keys are ECDSA P-256 (made
in a millisecond, where RSA takes a tenth of a second), readable by the owner alone. The CA's key never
leaves the folder. A server certificate is renewed when fewer than 30 days are left or when it lacks a name
that is asked for; the CA lasts ten years.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from manager.certs.pems import general_name, key_pem, usage

__all__ = ["Authority", "KeyPair", "PkiError", "write_private"]

_CA_DAYS = 3650
_LEAF_DAYS = 365
_RENEW_DAYS = 30


class PkiError(Exception):
    """The folder holds something that is no usable certificate or key; the message says what to do."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files of one certificate and its key."""

    certificate: Path
    key: Path


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in one step: a reader sees the old or the new content."""
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    scratch.replace(path)


class Authority:
    """The certificate authority that lives in a folder."""

    def __init__(self, folder: Path, *, now: dt.datetime | None = None) -> None:
        """Load the authority of the folder, or make one.

        Raises:
            PkiError: files are there and cannot be used.
        """
        self.folder = folder
        self._now = now or dt.datetime.now(dt.UTC)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.certificate = folder / "ca.crt"
        key = folder / "ca.key"
        if not (self.certificate.exists() and key.exists()):
            self._make(key)
        try:
            self._cert = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            self._key = _matching_key(key.read_bytes(), self._cert)
        except (ValueError, TypeError) as error:
            raise PkiError(
                f"the certificate authority in {folder} cannot be used ({error}); "
                "remove that folder and start again"
            ) from error

    @property
    def ca_pem(self) -> bytes:
        """The CA certificate, for clients."""
        return self.certificate.read_bytes()

    def _make(self, key_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kaito-local-ca")])
        cert = (
            self._builder(name, name, key.public_key(), _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(key_path, key_pem(key))
        write_private(self.certificate, cert.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - dt.timedelta(hours=1))
            .not_valid_after(self._now + dt.timedelta(days=days))
        )

    def server(self, file_name: str, names: Sequence[str]) -> KeyPair:
        """A certificate for a server reached under ``names`` (host names and addresses)."""
        return self._leaf(file_name, file_name, (), names, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, file_name: str, user: str, groups: Iterable[str] = ()) -> KeyPair:
        """A certificate that authenticates as ``user`` with ``groups``."""
        return self._leaf(file_name, user, tuple(groups), (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def _leaf(
        self,
        file_name: str,
        common_name: str,
        organizations: tuple[str, ...],
        names: Sequence[str],
        purpose: x509.ObjectIdentifier,
    ) -> KeyPair:
        pair = KeyPair(self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key")
        wanted = {general_name(name) for name in names}
        if self._usable(pair, wanted):
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
            + [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        )
        builder = (
            self._builder(subject, self._cert.subject, key.public_key(), _LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if wanted:
            builder = builder.add_extension(x509.SubjectAlternativeName(sorted(wanted, key=str)), critical=False)
        write_private(pair.key, key_pem(key))
        write_private(pair.certificate, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return pair

    def _usable(self, pair: KeyPair, wanted: set[x509.GeneralName]) -> bool:
        try:
            cert = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
            key = load_pem_private_key(pair.key.read_bytes(), password=None)
            cert.verify_directly_issued_by(self._cert)
        except Exception:  # absent, damaged or of another CA: all mean "make a new one"
            return False
        if key.public_key() != cert.public_key():
            return False
        if cert.not_valid_after_utc < self._now + dt.timedelta(days=_RENEW_DAYS):
            return False
        try:
            names = set(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            names = set()
        return wanted <= names


def _matching_key(pem: bytes, cert: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
        raise ValueError("certificate and key do not belong together")
    return key
