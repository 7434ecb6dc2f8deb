"""Who is asking: bearer tokens, client certificates, service account tokens.

In: the Authorization header and the certificate of a connection. Out: an identity (name, uid, groups), or
401. Tokens live in one file of lines ``token,user,uid,"group1,group2"``, readable by its owner alone; the
first start makes one with an administrator. Service account tokens are signed here (ES256) and end with the
account they name. At this stage every identity may do everything, but nobody is nobody: anonymous requests
get nothing beyond health and version.
"""

from __future__ import annotations

import base64
import csv
import datetime as dt
import hashlib
import io
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from kaito.local.apiserver.errors import ApiServerError, StatusError
from kaito.local.pki import write_private

__all__ = ["Authenticator", "Identity", "ServiceAccountTokens", "load_tokens", "unauthorized"]

ISSUER = "https://kubernetes.default.svc.cluster.local"
_AUTHENTICATED = "system:authenticated"
_SIZE = 32  # bytes of one ES256 number


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated client."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def user_info(self) -> dict[str, Any]:
        """The ``UserInfo`` of reviews and admission."""
        info: dict[str, Any] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


def unauthorized() -> StatusError:
    """401, without a word about why."""
    return StatusError(401, "Unauthorized", "Unauthorized", headers={"WWW-Authenticate": "Bearer"})


def load_tokens(path: Path) -> dict[str, Identity]:
    """Read a token file; make one with a random administrator token where there is none.

    Raises:
        ApiServerError: the file cannot be read or has a malformed line.
    """
    if not path.exists():
        line = f'{secrets.token_urlsafe(32)},admin,admin,"system:masters"\n'
        write_private(path, line.encode())
    tokens: dict[str, Identity] = {}
    try:
        text = path.read_text()
    except OSError as error:
        raise ApiServerError(
            f"cannot read the token file {path}: {error.strerror}; fix its permissions"
        ) from error
    for number, row in enumerate(csv.reader(io.StringIO(text), skipinitialspace=True), 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3 or not row[0] or not row[1]:
            raise ApiServerError(
                f"line {number} of the token file {path} is not 'token,user,uid,\"group1,group2\"'; "
                "correct or remove it"
            )
        groups = tuple(group.strip() for group in row[3].split(",") if group.strip()) if len(row) > 3 else ()
        tokens[_digest(row[0])] = Identity(row[1], row[2], (*groups, _AUTHENTICATED))
    return tokens


def first_token(path: Path) -> str:
    """The first token of the file: the administrator's, for the kubeconfig."""
    for row in csv.reader(io.StringIO(path.read_text()), skipinitialspace=True):
        if row and not row[0].startswith("#"):
            return row[0]
    raise ApiServerError(f"the token file {path} is empty; remove it, and a new one is made at the next start")


def _digest(token: str) -> str:
    # A dict of digests: comparing secrets by look-up then leaks nothing about them through timing.
    return hashlib.sha256(token.encode()).hexdigest()


class ServiceAccountTokens:
    """Signs and checks service account tokens."""

    def __init__(self, key_file: Path, clock: Callable[[], dt.datetime]) -> None:
        """Load the signing key, or make one.

        Raises:
            ApiServerError: the file holds no usable key.
        """
        self._clock = clock
        if not key_file.exists():
            fresh = ec.generate_private_key(ec.SECP256R1())
            pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_private(key_file, pem)
        try:
            key = load_pem_private_key(key_file.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise ApiServerError(f"{key_file} is no private key ({error}); remove it and start again") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ApiServerError(f"{key_file} is no elliptic curve key; remove it and start again")
        self._key = key

    def issue(
        self,
        namespace: str,
        name: str,
        uid: str,
        *,
        audiences: list[str],
        seconds: int,
        bound: dict[str, Any] | None,
    ) -> tuple[str, dt.datetime]:
        """A token and when it ends."""
        now = self._clock()
        expires = now + dt.timedelta(seconds=seconds)
        private: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        if bound and bound.get("kind") and bound.get("name"):
            private[str(bound["kind"]).lower()] = {"name": bound["name"], "uid": bound.get("uid", "")}
        claims = {
            "aud": audiences or [ISSUER],
            "exp": int(expires.timestamp()),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "iss": ISSUER,
            "jti": secrets.token_hex(16),
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "kubernetes.io": private,
        }
        signed = f"{_b64(orjson.dumps({'alg': 'ES256', 'typ': 'JWT'}))}.{_b64(orjson.dumps(claims))}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(_SIZE, "big") + s.to_bytes(_SIZE, "big")
        return f"{signed}.{_b64(signature)}", expires

    def check(self, token: str) -> dict[str, Any] | None:
        """The claims of a token of ours that is valid now; None for anything else."""
        try:
            signed, _, signature = token.rpartition(".")
            raw = _unb64(signature)
            if len(raw) != 2 * _SIZE:
                return None
            numbers = int.from_bytes(raw[:_SIZE], "big"), int.from_bytes(raw[_SIZE:], "big")
            public = self._key.public_key()
            public.verify(encode_dss_signature(*numbers), signed.encode(), ec.ECDSA(hashes.SHA256()))
            claims: dict[str, Any] = orjson.loads(_unb64(signed.partition(".")[2]))
        except (ValueError, InvalidSignature):
            return None
        now = self._clock().timestamp()
        return claims if claims.get("nbf", 0) <= now < claims.get("exp", 0) else None


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Authenticator:
    """Finds the identity behind a request."""

    def __init__(
        self,
        tokens: Mapping[str, Identity],
        accounts: ServiceAccountTokens,
        account_uid: Callable[[str, str], str | None],
    ) -> None:
        """``account_uid`` looks up the uid of a service account that exists now."""
        self._tokens = tokens
        self._accounts = accounts
        self._account_uid = account_uid

    def identify(self, authorization: str, certificate: Mapping[str, Any] | None) -> Identity:
        """The identity of a request.

        Raises:
            StatusError: 401.
        """
        if authorization:
            scheme, _, token = authorization.partition(" ")
            found = self.token(token.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise unauthorized()
            return found
        if certificate:
            subject = [pair for part in certificate.get("subject", ()) for pair in part]
            names = [value for key, value in subject if key == "commonName"]
            groups = tuple(value for key, value in subject if key == "organizationName")
            if names:
                return Identity(names[0], "", (*groups, _AUTHENTICATED))
        raise unauthorized()

    def token(self, token: str) -> Identity | None:
        """The identity of a bearer token, or None."""
        known = self._tokens.get(_digest(token))
        if known is not None:
            return known
        if token.count(".") != 2:
            return None
        claims = self._accounts.check(token)
        if claims is None or ISSUER not in claims.get("aud", ()):
            return None
        private = claims.get("kubernetes.io") or {}
        namespace = str(private.get("namespace") or "")
        account = private.get("serviceaccount") or {}
        uid = self._account_uid(namespace, str(account.get("name") or ""))
        if uid is None or uid != account.get("uid"):
            return None  # the account is gone, or another one has taken its name
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", _AUTHENTICATED)
        return Identity(str(claims["sub"]), uid, groups)
