"""One registry's pull API: manifests and blobs, with the right credentials, and errors in our own words.

In: references. Out: manifests whose digest was checked, and blobs as byte sources (`inference_server.oci.download`
checks those). Owns the tokens of this process. Requests are made once; who calls retries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from inference_server.oci.auth import answers
from inference_server.oci.credentials import Credential
from inference_server.oci.download import ByteSource, Opened, opened
from inference_server.oci.errors import (
    BadArtifact,
    Denied,
    DigestMismatch,
    FetchError,
    NotFound,
    TooLarge,
    Unreachable,
)
from inference_server.oci.reference import Reference, is_plain

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_MANIFEST_BYTES = 4 << 20  # the distribution specification's own bound


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index as the registry has it. ``digest`` is that of its bytes."""

    digest: str
    media_type: str
    fields: Mapping[str, Any]


def new_session() -> aiohttp.ClientSession:
    """A session with time limits for a network that stalls; proxies come from the environment."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False)


class RegistryClient:
    """See the module. ``insecure`` are hosts that may be spoken to without TLS."""

    def __init__(self, session: aiohttp.ClientSession, *, insecure: Collection[str] = ()) -> None:
        self._session = session
        self._insecure = frozenset(insecure)
        self._authorizations: dict[tuple[str, str], str] = {}

    async def manifest(self, reference: Reference, credentials: Sequence[Credential] = ()) -> Manifest:
        """The manifest or index of a tag or digest. Raises FetchError."""
        headers = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        path = f"manifests/{reference.version}"
        async with self._get(reference, path, credentials, headers) as reply:
            try:
                body = await reply.content.read(_MANIFEST_BYTES + 1)
                while len(body) <= _MANIFEST_BYTES and (more := await reply.content.read(_MANIFEST_BYTES)):
                    body += more
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unreachable(f"{reference.host} broke off: {error}") from error
            media_type = reply.content_type
        if len(body) > _MANIFEST_BYTES:
            raise TooLarge(f"the manifest of {reference} is larger than {_MANIFEST_BYTES} bytes")
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if reference.digest and digest != reference.digest:
            raise DigestMismatch(
                f"{reference.host} answers with another manifest than {reference.digest}", "check the registry"
            )
        try:
            fields = json.loads(body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise BadArtifact(f"the manifest of {reference} is not JSON")
        if fields.get("schemaVersion") != 2:
            raise BadArtifact(f"{reference} has a manifest of an old format", "push it again with a current tool")
        return Manifest(digest, fields.get("mediaType") or media_type, fields)

    def blob(self, reference: Reference, digest: str, credentials: Sequence[Credential] = ()) -> ByteSource:
        """A blob of a repository, as bytes from any offset on."""

        @asynccontextmanager
        async def source(offset: int) -> AsyncIterator[Opened]:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            async with self._get(reference, f"blobs/{digest}", credentials, headers) as reply:
                yield opened(reply, offset)

        return source

    @asynccontextmanager
    async def _get(
        self,
        reference: Reference,
        path: str,
        credentials: Sequence[Credential],
        headers: Mapping[str, str],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer, after as many credentials as it takes."""
        plain = is_plain(reference.host, self._insecure)
        url = f"{'http' if plain else 'https'}://{reference.api_host}/v2/{reference.repository}/{path}"
        known = (reference.api_host, reference.repository)
        authorization = self._authorizations.get(known)
        reply = await self._send(url, headers, authorization, reference)
        try:
            if reply.status in (401, 403):
                challenge = reply.headers.get("WWW-Authenticate", "")
                if reply.status == 403 and not challenge:
                    challenge = await self._challenge(reference, plain)
                self._authorizations.pop(known, None)
                async for authorization in answers(self._session, challenge, reference, credentials, plain=plain):
                    reply.close()
                    reply = await self._send(url, headers, authorization, reference)
                    if reply.status not in (401, 403, 404):  # some hide what they deny
                        self._authorizations[known] = authorization
                        break
            if reply.status not in (200, 206):
                raise _refusal(reply, reference, path, len(credentials))
            yield reply
        finally:
            reply.close()

    async def _send(
        self, url: str, headers: Mapping[str, str], authorization: str | None, reference: Reference
    ) -> aiohttp.ClientResponse:
        sent = dict(headers) | ({"Authorization": authorization} if authorization else {})
        try:
            return await self._session.get(url, headers=sent)
        except aiohttp.ClientSSLError as error:
            raise Unreachable(
                f"{reference.host} does not speak TLS as it should: {error}",
                f"if it has none, allow that with --insecure-registry {reference.host}",
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(
                f"the registry {reference.host} cannot be reached: {error or type(error).__name__}",
                "check its name and the network",
            ) from error

    async def _challenge(self, reference: Reference, plain: bool) -> str:
        """What the registry's root asks for, where a refusal did not say."""
        url = f"{'http' if plain else 'https'}://{reference.api_host}/v2/"
        reply = await self._send(url, {}, None, reference)
        reply.close()
        return reply.headers.get("WWW-Authenticate", "")


def _refusal(reply: aiohttp.ClientResponse, reference: Reference, path: str, credentials: int) -> FetchError:
    status = reply.status
    if status == 404:
        what = str(reference) if path.startswith("manifests/") else f"a layer of {reference}"
        return NotFound(f"{what} does not exist", "check the name and the tag, and that it was pushed")
    if status in (401, 403):
        tried = (
            f"{credentials} credential(s) for this registry were tried" if credentials else "no pull secret fits"
        )
        return Denied(
            f"{reference.host} denies {reference.repository} ({status}; {tried})",
            "name a pull secret that may read it",
        )
    if status == 429 or status >= 500:
        return Unreachable(f"{reference.host} answers {status}", retry_after=_seconds(reply))
    return BadArtifact(f"{reference.host} answers {status} for {reference.repository}/{path}")


def _seconds(reply: aiohttp.ClientResponse) -> float | None:
    text = reply.headers.get("Retry-After", "")
    return min(float(text), 600.0) if text.isdigit() else None
