"""Files of a dataset from the web into a folder.

In: URLs. Out: files under the names that their addresses give them. Every address is judged before it is connected
to, those of redirects too (see addresses.py). A file that broke off is gone on with where the server allows it and
the file is still the same (its ETag or date), and begun anew where not; what is complete is not fetched again
after a restart. Query strings may hold signatures: they are never logged and never part of an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp

from api.progress import TuneFailure
from api.validation.urls import problem_of_url
from inference_server.tuning.addresses import GuardedResolver, Refused
from inference_server.tuning.checkpoints import write_whole
from inference_server.tuning.errors import TuneError

logger = logging.getLogger("kaito.inference_server.tuning.fetch")

_CHUNK: Final = 1 << 18
_REDIRECTS: Final = 10
_TEMPORARY: Final = (408, 425, 429, 500, 502, 503, 504)
_CHECK_ADDRESS: Final = "check the address: can it be downloaded without signing in?"
_REFUSED: Final = (
    "use an address of the public network, an image or a volume; where the dataset is on a private network on "
    "purpose, --allow-private-dataset-urls lets it pass"
)
OnBytes = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class FetchRules:
    """What may be fetched, and how patiently. ``most`` is the bytes of all files together."""

    private: bool = False
    most: int = 50 << 30
    attempts: int = 6
    first_delay: float = 1.0
    longest_delay: float = 30.0
    resolver: GuardedResolver | None = None
    rng: random.Random = field(default_factory=random.Random)


class _Again(Exception):
    """This attempt failed and the next may not."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


async def fetch_all(
    urls: Sequence[str],
    folder: Path,
    rules: FetchRules,
    *,
    sha256: Sequence[str] = (),
    on_bytes: OnBytes = lambda _done, _total: None,
) -> list[Path]:
    """Downloads every URL into ``folder``. Raises TuneError."""
    folder.mkdir(parents=True, exist_ok=True)
    resolver = None if rules.private else rules.resolver or GuardedResolver()
    # No cache of names: every connection is judged by what its name leads to at that moment.
    connector = aiohttp.TCPConnector(resolver=resolver, force_close=True, use_dns_cache=False)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=120)
    paths: list[Path] = []
    done = 0
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        for index, (url, name) in enumerate(zip(urls, names_of(urls), strict=True)):
            wanted = sha256[index].lower() if sha256 else None
            fetch = _Fetch(session, url, folder / name, rules, wanted, done, on_bytes)
            done += await fetch.run()
            paths.append(folder / name)
    return paths


def names_of(urls: Sequence[str]) -> list[str]:
    """File names for URLs: the last part of the path, made unique and safe."""
    names: list[str] = []
    for index, url in enumerate(urls):
        last = unquote(urlsplit(url).path).rpartition("/")[2]
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip(".")[-120:] or "data"
        names.append(f"{index}-{name}" if name in names else name)
    return names


def shown(url: str) -> str:
    """A URL for people: without user, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(slots=True)
class _Fetch:
    """One file. ``before`` are the bytes of the files before it."""

    session: aiohttp.ClientSession
    url: str
    path: Path
    rules: FetchRules
    wanted: str | None
    before: int
    on_bytes: OnBytes

    async def run(self) -> int:
        """Downloads and checks it; returns its size."""
        if self._is_there():
            logger.info("already downloaded file=%s", self.path.name)
            return self.path.stat().st_size
        failures, reached = 0, self._here()
        while True:
            try:
                await self._attempt()
                break
            except _Again as error:
                failures = 1 if self._here() > reached else failures + 1
                reached = max(reached, self._here())
                if failures >= self.rules.attempts:
                    text = f"{shown(self.url)}: {error}, {failures} times in a row"
                    raise TuneError(TuneFailure.DATASET_NOT_FOUND, text, _CHECK_ADDRESS, temporary=True) from error
                delay = min(self.rules.longest_delay, self.rules.first_delay * 2 ** (failures - 1))
                delay = max(error.after or 0.0, delay * (0.5 + self.rules.rng.random() / 2))
                logger.info("download goes on file=%s in_seconds=%.1f error=%s", self.path.name, delay, error)
                await asyncio.sleep(delay)
        return await self._finish()

    @property
    def _part(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    @property
    def _facts(self) -> Path:
        return self.path.with_name(f".{self.path.name}.json")

    def _here(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _known(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._facts.read_bytes())
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) and facts.get("url") == _mark(self.url) else {}

    def _is_there(self) -> bool:
        known = self._known()
        return self.path.exists() and known.get("size") == self.path.stat().st_size

    async def _attempt(self) -> None:
        known = self._known()
        here = self._here()
        headers = {"Accept-Encoding": "identity", "User-Agent": "kaito"}
        if here and known.get("validator"):
            headers |= {"Range": f"bytes={here}-", "If-Range": str(known["validator"])}
        try:
            async with AsyncExitStack() as stack:
                reply = await self._open(stack, headers)
                if reply.status == 416:  # what is here is not a beginning of what is there
                    self._part.unlink(missing_ok=True)
                    raise _Again("the file has changed")
                begin = _begin(reply, here)
                self._check_size(reply, begin)
                facts = {"url": _mark(self.url), "validator": _validator(reply)}
                write_whole(self._facts, json.dumps(facts).encode())
                await self._write(reply, begin)
        except Refused as error:
            raise TuneError(TuneFailure.DATASET_REFUSED, f"{shown(self.url)}: {error}", _REFUSED) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error.__cause__, Refused):
                text = f"{shown(self.url)}: {error.__cause__}"
                raise TuneError(TuneFailure.DATASET_REFUSED, text, _REFUSED) from error
            raise _Again(_network(error)) from error

    async def _open(self, stack: AsyncExitStack, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The answer at the end of all redirects. Every hop is judged."""
        url = self.url
        for _ in range(_REDIRECTS):
            problem = problem_of_url(url, private=self.rules.private)
            if problem:
                via = "" if url == self.url else f" leads to {shown(url)}, and"
                raise Refused(f"the address{via} {problem}".replace(", and it", ", which"))
            reply = await stack.enter_async_context(self.session.get(url, headers=headers, allow_redirects=False))
            if reply.status not in (301, 302, 303, 307, 308) or "Location" not in reply.headers:
                self._judge(reply)
                return reply
            url = urljoin(url, reply.headers["Location"])
            reply.close()
        raise TuneError(
            TuneFailure.DATASET_NOT_FOUND, f"{shown(self.url)}: more than {_REDIRECTS} redirects", _CHECK_ADDRESS
        )

    def _judge(self, reply: aiohttp.ClientResponse) -> None:
        if reply.status in (200, 206, 416):
            return
        if reply.status in _TEMPORARY:
            after = reply.headers.get("Retry-After", "")
            raise _Again(f"the server answers {reply.status}", min(float(after), 600) if after.isdigit() else None)
        raise TuneError(
            TuneFailure.DATASET_NOT_FOUND, f"{shown(self.url)}: the server answers {reply.status}", _CHECK_ADDRESS
        )

    def _check_size(self, reply: aiohttp.ClientResponse, begin: int) -> None:
        length = reply.content_length
        if length is None:
            return
        self._within(begin + length)
        if length > shutil.disk_usage(self.path.parent).free:
            text = f"{self.path.name} has {begin + length} bytes, and the disk has room for less"
            raise TuneError(TuneFailure.DISK_FULL, text, "give the volume of the dataset more room")

    def _within(self, size: int) -> None:
        if self.before + size > self.rules.most:
            text = f"the dataset is larger than {self.rules.most} bytes ({self.path.name})"
            raise TuneError(
                TuneFailure.DATASET_INVALID, text, "use a smaller one, or allow more with --max-dataset-bytes"
            )

    async def _write(self, reply: aiohttp.ClientResponse, begin: int) -> None:
        total = None if reply.content_length is None else self.before + begin + reply.content_length
        size = begin
        with self._part.open("ab" if begin else "wb") as file:
            async for chunk in reply.content.iter_chunked(_CHUNK):
                size += len(chunk)
                self._within(size)
                file.write(chunk)
                self.on_bytes(self.before + size, total)

    async def _finish(self) -> int:
        size = self._here()
        if self.wanted:
            found = await asyncio.to_thread(_digest, self._part)
            if found != self.wanted:
                self._part.unlink()
                text = f"{shown(self.url)} has the SHA-256 {found}, and {self.wanted} was asked for"
                raise TuneError(TuneFailure.DATASET_INVALID, text, "check the file, or the checksum")
        facts = {"url": _mark(self.url), "size": size}
        self._part.replace(self.path)
        write_whole(self._facts, json.dumps(facts).encode())
        return size


def _begin(reply: aiohttp.ClientResponse, asked: int) -> int:
    """Where the answer's bytes belong: at the beginning, unless it says otherwise."""
    if reply.status != 206:
        return 0
    unit, _, rest = reply.headers.get("Content-Range", "").partition(" ")
    if unit != "bytes" or rest.partition("-")[0] != str(asked):
        raise _Again("the server answers with another part of the file than was asked for")
    return asked


def _validator(reply: aiohttp.ClientResponse) -> str | None:
    """What tells this version of the file from others; a weak ETag does not."""
    etag = reply.headers.get("ETag", "")
    return etag if etag.startswith('"') else reply.headers.get("Last-Modified")


def _mark(url: str) -> str:
    """The URL, recognisable and not readable: it may be signed. Signatures change, so they do not count."""
    return hashlib.sha256(shown(url).encode()).hexdigest()


def _network(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection failed: {text.partition('[')[0].strip() or type(error).__name__}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
