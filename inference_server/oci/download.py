"""One file from the network to the disk: resumed where it broke off, and checked while it streams.

In: a byte source that can begin at an offset, the digest and size that were promised. Out: the file under its
final name, or an error; never a file with that name and other bytes. What has arrived stays beside it as
``*.partial`` and is counted again, so that a killed process goes on where it was. A wrong digest deletes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from inference_server.oci.backoff import Backoff
from inference_server.oci.errors import DigestMismatch, FetchError, TooLarge, Unreachable, of_os_error

logger = logging.getLogger("kaito.inference_server.oci.download")

PARTIAL = ".partial"
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Opened:
    """A reply's bytes. ``offset`` is where they really begin: 0 where the other side cannot resume."""

    offset: int
    chunks: AsyncIterator[bytes]


ByteSource = Callable[[int], AbstractAsyncContextManager[Opened]]
OnBytes = Callable[[int], None]  # how many more bytes are on the disk; negative when some were thrown away


def opened(reply: aiohttp.ClientResponse, asked: int) -> Opened:
    """A 200 or 206 as an `Opened`. A 206 that begins elsewhere than asked is an error of the other side."""
    if reply.status == 206:
        unit, _, range_ = reply.headers.get("Content-Range", "").partition(" ")
        if unit != "bytes" or range_.partition("-")[0] != str(asked):
            raise Unreachable(f"{reply.url.host} answers with another range than was asked for")
        return Opened(asked, _chunks(reply))
    return Opened(0, _chunks(reply))


async def _chunks(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in reply.content.iter_chunked(_CHUNK):
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"{reply.url.host} broke off: {error or type(error).__name__}") from error


@dataclass(slots=True)
class Downloader:
    """Downloads with retries. Attempts are counted anew whenever bytes have arrived."""

    backoff: Backoff = field(default_factory=Backoff)
    rng: random.Random = field(default_factory=random.Random)

    async def fetch(
        self,
        source: ByteSource,
        target: Path,
        *,
        digest: str | None,
        size: int | None,
        on_bytes: OnBytes = lambda _: None,
    ) -> None:
        """Bring the file to ``target``; at once where it is there.

        ``digest`` is ``sha256:...``, or ``git:...`` for the name that git gives to a file's content of that size.
        Raises FetchError.
        """
        if target.is_file():
            on_bytes(target.stat().st_size)
            return
        failures, before = 0, -1
        while True:
            transfer = _Transfer(target, digest, size, on_bytes)
            try:
                try:
                    await transfer.run(source)
                except OSError as error:
                    raise of_os_error(error, target.parent) from error
            except FetchError as error:
                on_bytes(-transfer.reported)
                failures = 1 if transfer.done > before else failures + 1
                before = max(before, transfer.done)
                if not error.transient or failures >= self.backoff.attempts:
                    raise
                delay = self.backoff.delay(failures, self.rng, at_least=error.retry_after)
                logger.info("download goes on file=%s in_seconds=%.1f error=%s", target.name, delay, error)
                await asyncio.sleep(delay)
            else:
                return


class _Transfer:
    """One attempt at one file."""

    def __init__(self, target: Path, digest: str | None, size: int | None, on_bytes: OnBytes) -> None:
        self._target = target
        self._partial = target.with_name(target.name + PARTIAL)
        self._digest = digest
        self._size = size
        self._on_bytes = on_bytes
        self._hash = self._fresh_hash()
        self.done = 0  # bytes on the disk
        self.reported = 0

    def _advance(self, count: int) -> None:
        self.done += count
        self.reported += count
        self._on_bytes(count)

    async def run(self, source: ByteSource) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        here = self._partial.stat().st_size if self._partial.exists() else 0
        if self._size is not None and here > self._size:
            self._partial.unlink()
            here = 0
        if here:
            await asyncio.to_thread(self._count_what_is_here)
            self._advance(here)
        if self._size is None or here < self._size:
            async with source(here) as reply:
                await self._write(reply)
        if self._size is not None and self.done < self._size:
            raise Unreachable(f"{self._target.name} ended after {self.done} of {self._size} bytes")
        found = f"{(self._digest or 'sha256').partition(':')[0]}:{self._hash.hexdigest()}"
        if self._digest and found != self._digest:
            self._partial.unlink(missing_ok=True)
            raise DigestMismatch(
                f"{self._target.name} has the digest {found} instead of {self._digest}",
                "the copy at its origin is damaged or was tampered with: push it again",
            )
        self._partial.rename(self._target)

    async def _write(self, reply: Opened) -> None:
        if reply.offset == 0 and self.done:  # the other side began anew
            self._on_bytes(-self.done)
            self.reported -= self.done
            self.done = 0
            self._hash = self._fresh_hash()
        with self._partial.open("ab" if self.done else "wb") as file:
            async for chunk in reply.chunks:
                if self._size is not None and self.done + len(chunk) > self._size:
                    raise TooLarge(
                        f"{self._target.name} is larger than the {self._size} bytes that were announced",
                        "push it again",
                    )
                self._hash.update(chunk)
                file.write(chunk)
                self._advance(len(chunk))

    def _fresh_hash(self) -> hashlib._Hash:
        if self._digest is not None and self._digest.startswith("git:"):
            return hashlib.sha1(b"blob %d\0" % (self._size or 0), usedforsecurity=False)
        return hashlib.sha256()

    def _count_what_is_here(self) -> None:
        with self._partial.open("rb") as file:
            while chunk := file.read(1 << 20):
                self._hash.update(chunk)
