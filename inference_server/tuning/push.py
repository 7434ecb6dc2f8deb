"""An image into a registry, without root and without a container engine.

In: an ``Image``, a reference, credentials. Out: the digest of the manifest. Order: the layers' blobs, the
configuration, the manifest under its digest, and only then the tag: whoever pulls the tag gets the old image or
the whole new one. A blob that is there is not sent again, so that a push that broke off is repeated cheaply.
Tokens and upload addresses (which carry state) are never logged and never part of an error.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
from yarl import URL

from api.progress import TuneFailure
from inference_server.oci.auth import answers
from inference_server.oci.backoff import Backoff
from inference_server.oci.credentials import Credential
from inference_server.oci.errors import Unreachable
from inference_server.oci.reference import Reference, is_plain
from inference_server.tuning.errors import TuneError
from inference_server.tuning.image import Blob, Image

logger = logging.getLogger("kaito.inference_server.tuning.push")

_CHUNK: Final = 1 << 18
_MOST_WORDS: Final = 300
T = TypeVar("T")
Body = Callable[[], Any]  # anew for each attempt
OnBytes = Callable[[int], None]
_DENIED_STEP: Final = (
    "check tuning.output.imagePushSecret: a Secret of type kubernetes.io/dockerconfigjson "
    "whose user may push there"
)
_AGAIN_STEP: Final = "the adapter is kept; starting the run again repeats the push alone"


@dataclass(slots=True)
class Pusher:
    """Pushes into one repository. ``insecure`` are hosts that may be spoken to without TLS."""

    session: aiohttp.ClientSession
    reference: Reference
    credentials: Sequence[Credential] = ()
    insecure: Collection[str] = ()
    backoff: Backoff = field(default_factory=Backoff)
    rng: random.Random = field(default_factory=random.Random)
    on_bytes: OnBytes = lambda _: None
    _authorization: str | None = None

    async def check(self) -> None:
        """Whether we may push: an upload is begun and given up. Raises TuneError when we may not.

        A registry that cannot be asked now may be there when there is something to push, so it is passed over.
        """
        try:
            where = await self._begin()
        except (_Again, Unreachable) as error:
            logger.warning("the registry cannot be asked yet image=%s error=%s", self.reference, error)
            return
        try:
            await self._send("DELETE", where, accept=(202, 204, 404, 405))
        except (_Again, Unreachable, TuneError):
            pass  # the registry forgets uploads by itself

    async def push(self, image: Image, beside: Sequence[Blob] = ()) -> str:
        """Uploads everything, then moves the tag. ``beside`` are the base image's blobs. Raises TuneError."""
        for blob in (*beside, image.layer, image.config):
            await self._patiently(partial(self._blob, blob))
        for version in (image.manifest.digest, self.reference.tag):
            await self._patiently(partial(self._manifest, image.manifest, version))
        return image.manifest.digest

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await work()
            except (_Again, Unreachable) as error:
                failures += 1
                if failures >= self.backoff.attempts:
                    text = f"pushing {self.reference} failed {failures} times: {error}"
                    raise TuneError(TuneFailure.PUSH_FAILED, text, _AGAIN_STEP, temporary=True) from error
                delay = self.backoff.delay(failures, self.rng, at_least=getattr(error, "after", None))
                logger.info("push goes on image=%s in_seconds=%.1f error=%s", self.reference, delay, error)
                await asyncio.sleep(delay)

    async def _blob(self, blob: Blob) -> None:
        there = await self._send("HEAD", self._url(f"blobs/{blob.digest}"), accept=(200, 404))
        if there.status == 200:
            self.on_bytes(blob.size)
            return
        where = await self._begin()
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            self.on_bytes(size)

        def body() -> Any:
            return blob.data if isinstance(blob.data, bytes) else _chunks(blob.data, count)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        try:
            target = where.update_query(digest=blob.digest)
            await self._send("PUT", target, body=body, headers=headers, accept=(201,))
        except BaseException:
            self.on_bytes(-sent)
            raise
        self.on_bytes(blob.size - sent)

    async def _begin(self) -> URL:
        url = self._url("blobs/uploads/")
        reply = await self._send("POST", url, accept=(202,), headers={"Content-Length": "0"})
        if not reply.location:
            raise _Again("the registry names no address for the upload")
        return url.join(URL(reply.location, encoded=True))

    async def _manifest(self, manifest: Blob, version: str) -> None:
        url = self._url(f"manifests/{version}")
        headers = {"Content-Type": manifest.media_type}
        reply = await self._send("PUT", url, body=lambda: manifest.data, headers=headers, accept=(200, 201))
        if reply.digest not in ("", manifest.digest):
            text = f"{self.reference.host} stored another manifest than was sent ({reply.digest[:80]})"
            raise TuneError(TuneFailure.PUSH_FAILED, text, "check the registry")

    def _url(self, path: str) -> URL:
        scheme = "http" if is_plain(self.reference.host, self.insecure) else "https"
        return URL(f"{scheme}://{self.reference.api_host}/v2/{self.reference.repository}/{path}")

    async def _send(
        self,
        method: str,
        url: URL,
        *,
        accept: Collection[int],
        body: Body = lambda: None,
        headers: Mapping[str, str] | None = None,
    ) -> _Reply:
        """One request, with as many credentials as it takes. Raises TuneError or _Again."""
        reply = await self._once(method, url, body, headers or {}, self._authorization)
        if reply.status == 401:
            plain = is_plain(self.reference.host, self.insecure)
            challenge = reply.challenge
            async for value in answers(self.session, challenge, self.reference, self.credentials, plain=plain):
                reply = await self._once(method, url, body, headers or {}, value)
                if reply.status not in (401, 403):
                    self._authorization = value
                    break
        if reply.status in accept:
            return reply
        raise self._refusal(method, reply)

    async def _once(
        self, method: str, url: URL, body: Body, headers: Mapping[str, str], authorization: str | None
    ) -> _Reply:
        sent = dict(headers)
        if authorization and url.host == self._url("").host:
            sent["Authorization"] = authorization
        try:
            async with self.session.request(
                method, url, data=body(), headers=sent, allow_redirects=False
            ) as reply:
                words = "" if reply.status < 400 else (await reply.content.read(4096)).decode("utf-8", "replace")
                return _Reply(
                    reply.status,
                    reply.headers.get("Location", ""),
                    reply.headers.get("Docker-Content-Digest", ""),
                    reply.headers.get("WWW-Authenticate", ""),
                    reply.headers.get("Retry-After", ""),
                    words,
                )
        except aiohttp.ClientSSLError as error:
            text = f"{self.reference.host} does not speak TLS as it should"
            step = f"if it has none, allow that with --insecure-registry {self.reference.host}"
            raise TuneError(TuneFailure.PUSH_FAILED, text, step) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise _Again(f"{self.reference.host}: {type(error).__name__}") from error

    def _refusal(self, method: str, reply: _Reply) -> Exception:
        host, words = self.reference.host, _words(reply.text)
        if reply.status in (401, 403):
            tried = f"{len(self.credentials)} credential(s) tried" if self.credentials else "no push secret fits"
            text = f"{host} does not let us push {self.reference.repository} ({reply.status}; {tried}){words}"
            return TuneError(TuneFailure.PUSH_DENIED, text, _DENIED_STEP)
        if reply.status in (408, 429) or reply.status >= 500:
            after = float(reply.after) if reply.after.isdigit() else None
            return _Again(f"{host} answers {reply.status}{words}", after)
        if method == "PUT" and reply.status in (404, 416):  # the upload was forgotten: begin anew
            return _Again(f"{host} answers {reply.status}{words}")
        text = f"{host} refuses the push of {self.reference.repository} ({reply.status}){words}"
        return TuneError(TuneFailure.PUSH_FAILED, text, "does the repository exist, may the tag be written?")


class _Again(Exception):
    """This attempt failed and the next may not."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = min(after, 600.0) if after else None


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    location: str
    digest: str
    challenge: str
    after: str
    text: str


async def _chunks(path: Path, count: OnBytes) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
            count(len(chunk))


def _words(text: str) -> str:
    """What the registry says, in a few words."""
    import json

    try:
        errors = json.loads(text)["errors"]
        said = "; ".join(str(item.get("message") or item.get("code")) for item in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {said[:_MOST_WORDS]}"
