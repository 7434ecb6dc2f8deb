"""Certificates and keys as PEM: making them and judging them; no I/O, no clock of its own.

In: names, times, PEM bytes. Out: PEM bytes, or facts about them. Keys are ECDSA P-256: every TLS library of the
last decade takes them, one is made in a fraction of a millisecond and a handshake costs the event loop about a
tenth of RSA-2048's, and both sides of the connection, API server and webhook, are programs that we know. What is
read from outside may be anything: it is judged, never trusted, and a key is never part of a repr or a message.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    cert: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of one certificate."""

    pem: bytes = field(repr=False)
    parsed: x509.Certificate = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The start of its SHA-256, in hex: for logs and comparison."""
        return self.parsed.fingerprint(hashes.SHA256()).hex()[:16]

    @property
    def not_before(self) -> dt.datetime:
        """Start of its validity."""
        return self.parsed.not_valid_before_utc

    @property
    def not_after(self) -> dt.datetime:
        """End of its validity."""
        return self.parsed.not_valid_after_utc

    def valid(self, now: dt.datetime) -> bool:
        """Whether it is within its time."""
        return self.not_before <= now < self.not_after

    def covers(self, names: Sequence[str]) -> bool:
        """Whether it is made out to all these names."""
        try:
            found = set(self.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except (x509.ExtensionNotFound, ValueError):
            found = set()
        return {general_name(name) for name in names} <= found

    def issued_by(self, authority: Certificate) -> bool:
        """Whether the authority's key has signed it."""
        try:
            self.parsed.verify_directly_issued_by(authority.parsed)
        except Exception:  # wrong name, wrong signature, unknown algorithm: all mean no
            return False
        return True

    def fits(self, key: bytes) -> bool:
        """Whether the PEM key is this certificate's."""
        try:
            return load_key(key).public_key() == self.parsed.public_key()
        except ValueError:
            return False


def certificates(pem: bytes) -> list[Certificate]:
    """All certificates of a PEM text that can be read, in their order; rubbish between them is passed over."""
    found = []
    for block in _BLOCK.findall(pem):
        try:
            found.append(Certificate(block + b"\n", x509.load_pem_x509_certificate(block)))
        except ValueError:
            continue
    return found


def load_key(pem: bytes) -> PrivateKeyTypes:
    """Read an unencrypted PEM key.

    Raises:
        ValueError: it is none; the message never shows it.
    """
    try:
        return load_pem_private_key(pem, password=None)
    except Exception:  # the causes differ by version, and one could quote its input
        raise ValueError("not an unencrypted private key in PEM") from None


def make_authority(name: str, *, not_before: dt.datetime, not_after: dt.datetime) -> Pair:
    """A new certificate authority. Its name is unique, so that no verifier takes one of two for the other."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:40]} {serial:x}"[:64])])
    cert = (
        _builder(subject, subject, key.public_key(), serial, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(cert.public_bytes(Encoding.PEM), key_pem(key))


def make_serving(
    authority: Pair, names: Sequence[str], *, not_before: dt.datetime, not_after: dt.datetime
) -> Pair:
    """A server certificate for these names (host names and addresses), signed by the authority.

    Raises:
        ValueError: the authority's key is unusable.
    """
    issuer = x509.load_pem_x509_certificate(authority.cert)
    signer = load_key(authority.key)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is no ECDSA key")  # noqa: TRY004 - of what was read, not of the call
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    cert = (
        _builder(subject, issuer.subject, key.public_key(), x509.random_serial_number(), not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Pair(cert.public_bytes(Encoding.PEM), key_pem(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    serial: int,
    not_before: dt.datetime,
    not_after: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def usage(*, sign_certificates: bool) -> x509.KeyUsage:
    """What a key may be used for: an authority's signs certificates, any other signs handshakes."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def general_name(name: str) -> x509.GeneralName:
    """An IP address where it is one, else a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
