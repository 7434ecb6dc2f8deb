"""Credentials that change while a client lives: token files that are rotated, and tokens that expire.

In: a file, or a coroutine that asks for a new credential. Out: the Authorization header to send now. Asking is
single-flight, whatever the number of requests and event loops that wait for it (the leader elector has a loop of
its own); a renewal that fails keeps the old credential for as long as that is valid. A secret is in no repr, no
log and no error. Times are the event loop's; a wall clock only turns an expiry into a distance from now.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from manager.errors import ConfigError, ManagerError

log = logging.getLogger("kaito.manager.credentials")

_REREAD_SECONDS = 60.0  # client-go's cachingTokenSource
_STAT_SECONDS = 1.0
_MARGIN_SECONDS = 60.0  # how long before its end a credential is renewed, if it lives long enough
_MARGIN_SHARE = 0.2
_RETRY_SECONDS = 10.0


class Credential(Protocol):
    """Where the Authorization header comes from."""

    @property
    def certificate(self) -> tuple[bytes, bytes] | None:
        """A client certificate and its key (PEM) that came with the credential, or None."""

    def current(self, now: float) -> str | None:
        """The header to send; empty for none; None when :meth:`renew` must be awaited first. Quick, no network."""

    async def renew(self, rejected: str | None = None) -> str:
        """The header after a renewal; the server answered ``rejected`` with 401, if given.

        Raises:
            ConfigError: there is none, and the message says why.
        """
        ...


class TokenFile:
    """A bearer token in a file that somebody, such as the kubelet, replaces from time to time."""

    certificate = None

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._header = ""
        self._stamp: tuple[int, ...] = ()
        self._looked = self._read_at = float("-inf")

    def __repr__(self) -> str:
        return f"<TokenFile {self._path}>"

    def current(self, now: float) -> str | None:
        """See ``Credential``. The file is looked at once a second, and read when it changed or once a minute.

        Raises:
            ConfigError: it could never be read.
        """
        if now - self._looked >= _STAT_SECONDS:
            self._looked = now
            self._read(now)
        return self._header

    async def renew(self, rejected: str | None = None) -> str:
        """See ``Credential``. Reads the file at once."""
        self._stamp = ()
        self._read(asyncio.get_running_loop().time())
        return self._header

    def _read(self, now: float) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp and now - self._read_at < _REREAD_SECONDS:
                return
            header = bearer(self._path.read_text())
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            # A decoding error quotes bytes of the token.
            words = "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)
            if not self._header:
                self._looked = float("-inf")
                raise ConfigError(f"the token file {self._path} cannot be used: {words}") from None
            log.warning("token file not read, keeping the old token path=%s error=%s", self._path, words)
            return
        self._header, self._stamp, self._read_at = header, stamp, now


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential as it was handed out.

    Attributes:
        header: of Authorization; empty for none.
        certificate: a client certificate and its key, PEM.
        lifetime: seconds from now; None: until the server refuses it.
    """

    header: str = field(default="", repr=False)
    certificate: tuple[bytes, bytes] | None = field(default=None, repr=False)
    lifetime: float | None = None


class Renewed:
    """A credential that is asked for, and asked for again before it expires and after the server refused it.

    Args:
        ask: hands out a credential. Whatever it raises is told as ``ConfigError``.
        name: of the source, for messages.
    """

    def __init__(self, ask: Callable[[], Awaitable[Issued]], name: str) -> None:
        self._ask = ask
        self._name = name
        self._guard = threading.Lock()
        self._issued: Issued | None = None
        self._renew_at = self._ends_at = float("inf")
        self._refused_at = float("-inf")
        self._pending: concurrent.futures.Future[Exception | None] | None = None

    def __repr__(self) -> str:
        return f"<Renewed {self._name}>"

    @property
    def certificate(self) -> tuple[bytes, bytes] | None:
        """See ``Credential``."""
        return self._issued.certificate if self._issued else None

    def current(self, now: float) -> str | None:
        """See ``Credential``."""
        issued = self._issued
        return issued.header if issued is not None and now < self._renew_at else None

    async def renew(self, rejected: str | None = None) -> str:
        """See ``Credential``."""
        loop = asyncio.get_running_loop()
        while True:
            with self._guard:
                now = loop.time()
                header = self.current(now)
                if header is not None and not self._wanted(header, rejected, now):
                    return header
                pending = self._pending
                if pending is None:
                    mine = self._pending = concurrent.futures.Future()
                    mine.set_running_or_notify_cancel()  # who waits may be cancelled; what they wait for may not
                    break
            await asyncio.wait({asyncio.wrap_future(pending, loop=loop)})
            rejected = None  # whatever came of it is newer than what was refused
            if (failure := pending.result()) is not None:
                raise ConfigError(str(failure)) from failure
        try:
            await self._renew(loop, refused=rejected is not None)
        except BaseException as error:
            self._done(mine, error)
            raise
        self._done(mine, None)
        return self._issued.header if self._issued else ""

    def _wanted(self, header: str, rejected: str | None, now: float) -> bool:
        """Whether a valid header must be renewed: it was refused, and not just renewed in vain for that reason."""
        return header == rejected and now - self._refused_at >= _RETRY_SECONDS

    async def _renew(self, loop: asyncio.AbstractEventLoop, *, refused: bool) -> None:
        try:
            issued = await self._ask()
        except Exception as error:
            now = loop.time()
            words = str(error) or type(error).__name__
            if self._issued is None or now >= self._ends_at:
                if isinstance(error, ManagerError):
                    raise
                raise ConfigError(f"no credential from {self._name}: {words}") from error
            log.warning("credential not renewed, keeping the old one source=%s error=%s", self._name, words)
            self._renew_at = min(now + _RETRY_SECONDS, self._ends_at)
        else:
            now = loop.time()
            self._issued = issued
            self._renew_at = self._ends_at = float("inf")
            if issued.lifetime is not None:
                self._ends_at = now + issued.lifetime
                self._renew_at = self._ends_at - min(_MARGIN_SECONDS, max(issued.lifetime, 0.0) * _MARGIN_SHARE)
        if refused:
            self._refused_at = loop.time()

    def _done(self, mine: concurrent.futures.Future[Exception | None], error: BaseException | None) -> None:
        with self._guard:
            self._pending = None
        # A cancelled renewal is no answer: who waited for it begins one of their own.
        mine.set_result(error if isinstance(error, Exception) else None)


def bearer(token: str) -> str:
    """The header of a bearer token.

    Raises:
        ConfigError: it is empty, or no header can carry it.
    """
    text = token.strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ConfigError(
            "the token is empty" if not text else "the token has characters that no header can carry"
        )
    return f"Bearer {text}"
