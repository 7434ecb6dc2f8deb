"""Image references with the defaults that everybody expects, and where their registry is.

In: text such as ``ghcr.io/org/style:1`` or ``alpine``. Out: host, repository, tag or digest. Docker Hub's two
special cases (its host's other name, ``library/``) are known here and nowhere else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

from api.validation.images import parse_image
from inference_server.oci.errors import BadArtifact

HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"
DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True)
class Reference:
    """``host/repository`` and a tag or a digest; a digest wins."""

    host: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def api_host(self) -> str:
        """The host that answers for it."""
        return _HUB_HOST if self.host == HUB else self.host

    @property
    def version(self) -> str:
        """What a manifest is asked for by."""
        return self.digest or self.tag

    def __str__(self) -> str:
        version = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.host}/{self.repository}{version}"


def parse(text: str) -> Reference:
    """The reference in a text. Raises BadArtifact when it is none."""
    image = parse_image(text.strip())
    if image is None:
        raise BadArtifact(
            f"{text[:200]!r} is not an image reference", "write registry/repository:tag in lower case"
        )
    first, slash, rest = image.repository.partition("/")
    if slash and (any(mark in first for mark in ".:[") or first == "localhost"):
        host, repository = first.lower(), rest
    else:
        host, repository = HUB, image.repository
    if host in ("index.docker.io", _HUB_HOST):
        host = HUB
    if host == HUB and "/" not in repository:
        repository = f"library/{repository}"
    if image.digest and not image.digest.startswith("sha256:"):
        raise BadArtifact(f"{text}: only sha256 digests are supported")
    return Reference(host, repository, image.tag or DEFAULT_TAG, image.digest)


def is_plain(host: str, insecure: Collection[str]) -> bool:
    """Whether this registry is spoken to without TLS: on this machine itself, or by somebody's explicit word.

    A word for ``host`` counts for all its ports, one for ``host:port`` for that port.
    """
    name = host.rpartition(":")[0] if _has_port(host) else host
    if host in insecure or name in insecure or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _has_port(host: str) -> bool:
    head, colon, port = host.rpartition(":")
    return bool(colon) and port.isdigit() and (":" not in head or head.endswith("]"))
