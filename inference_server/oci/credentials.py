"""Pull secrets: which user and password a registry gets.

In: folders of mounted ``kubernetes.io/dockerconfigjson`` secrets. Out: the credentials that match a repository, in
the order of the secrets' names as asked for, and within one secret the most specific first, as the kubelet does. A
credential never appears in a log, a repr or an error.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference_server.oci.reference import HUB, Reference

logger = logging.getLogger("kaito.inference_server.oci.credentials")

FILE = ".dockerconfigjson"
_HUB_NAMES = (HUB, "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credential:
    """A user and a password, or an identity token (OAuth2 refresh token)."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    origin: str = ""  # the secret it came from

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class PullSecrets:
    """The mounted secrets. They are read anew for every pull, because the kubelet renews them in place."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """The secrets that are mounted."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(entry.name for entry in self._folder.iterdir() if (entry / FILE).is_file())

    def matching(self, reference: Reference, wanted: Sequence[str] = ()) -> list[Credential]:
        """Credentials for a repository: of the ``wanted`` secrets in order, or of all mounted ones."""
        there = self.names()
        found: list[Credential] = []
        for name in [name for name in wanted if name in there] if wanted else there:
            if self._folder is not None:
                found += [c for c in of_file(self._folder / name / FILE, reference) if c not in found]
        return found

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of ``wanted`` that are not mounted."""
        there = self.names()
        return [name for name in wanted if name not in there]


def of_file(path: Path, reference: Reference) -> list[Credential]:
    """The credentials of one file for a repository, the most specific first; none where it cannot be read."""
    try:
        auths = json.loads(path.read_text(encoding="utf-8")).get("auths") or {}
        matches = sorted(
            ((key, entry) for key, entry in auths.items() if _matches(key, reference)),
            key=lambda item: -len(item[0]),
        )
        found = [_credential(entry, path.parent.name) for _, entry in matches]
    except (OSError, ValueError, AttributeError, TypeError):
        logger.warning("pull secret cannot be read secret=%s", path.parent.name)
        return []
    return [credential for credential in found if credential is not None]


def _credential(entry: dict[str, str], origin: str) -> Credential | None:
    username, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth") and not username:
        try:
            username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    token = entry.get("identitytoken") or ""
    return Credential(username, password, token, origin) if username or token else None


def _matches(key: str, reference: Reference) -> bool:
    """Docker's keys: a host, a host with a path, or a URL; a host's labels may be globs."""
    bare = key.split("://", 1)[-1].rstrip("/")
    host, _, path = bare.partition("/")
    if path in ("v1", "v2"):
        path = ""
    if host in _HUB_NAMES:
        host = HUB
    if host.count(".") != reference.host.count(".") or not fnmatch.fnmatchcase(reference.host, host):
        return False
    return not path or reference.repository == path or reference.repository.startswith(path + "/")
