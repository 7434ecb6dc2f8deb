"""A folder of fetched things that all pods of a node may share, and that survives them.

In: a key (what it is, by digest or commit) and a function that makes the thing in an empty folder. Out: a folder
with exactly that thing, held for as long as somebody uses it. Made once: whoever comes first holds an exclusive
lock and the others wait; a finished thing appears by one rename. Locks belong to open files, so that the kernel
releases them however a process ends, and what a killed one had fetched is where the next one goes on. A thing that
anybody holds is never deleted.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from inference_server.oci.errors import of_os_error

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_POLL_SECONDS = 0.25  # the kernel tells nobody when a lock becomes free, short of blocking a thread on it
_OURS = (".lock", ".work", ".gone")

Make = Callable[[Path], Awaitable[None]]


class Held:
    """A thing in the store, and the promise that it stays until `release` (or the end of this process)."""

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Give up the promise. Idempotent."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Store:
    """Things under ``root``, by key. Any number of processes may use the same root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where a thing is, or would be."""
        return self.root / _safe(key)

    async def hold(self, key: str) -> Held | None:
        """The thing if it is there. Raises FetchError when the folder cannot be used."""
        try:
            if not self.path(key).is_dir():
                return None
        except OSError as error:
            raise of_os_error(error, self.root) from error
        async with self._locked(key, fcntl.LOCK_SH) as lock:
            if lock is not None and self.path(key).is_dir():
                return Held(self.path(key), _kept(lock))
        return None

    async def get(self, key: str, make: Make) -> Held:
        """The thing, made if need be. ``make`` gets a folder with what an interrupted attempt has left in it.

        Raises whatever ``make`` raises, and FetchError when the folder cannot be used.
        """
        while True:
            held = await self.hold(key)
            if held is not None:
                return held
            async with self._locked(key, fcntl.LOCK_EX, unless=self.path(key).is_dir) as mine:
                if mine and not self.path(key).is_dir():
                    work = self.root / f"{_safe(key)}.work"
                    try:
                        work.mkdir(parents=True, exist_ok=True)
                        await make(work)
                        work.rename(self.path(key))
                    except OSError as error:
                        raise of_os_error(error, self.root) from error

    async def remove_unused(self, keep: Collection[str] = ()) -> list[str]:
        """Delete finished things that nobody holds, but for those to keep. Returns the folders' names."""
        kept = {_safe(key) for key in keep}
        removed: list[str] = []
        for entry in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if entry.suffix in _OURS or entry.name in kept or not entry.is_dir():
                continue
            lock = _open(self._lock_file(entry.name))
            try:
                if _try(lock, fcntl.LOCK_EX):
                    entry.rename(entry.with_name(f"{entry.name}.gone"))  # a half deleted thing must not look whole
                    removed.append(entry.name)
            finally:
                lock.close()
        for gone in self.root.glob("*.gone"):
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        return removed

    def _lock_file(self, name: str) -> Path:
        return self.root / f"{name}.lock"

    @asynccontextmanager
    async def _locked(
        self, key: str, how: int, *, unless: Callable[[], bool] = lambda: False
    ) -> AsyncIterator[IO[bytes] | None]:
        """The lock of a key; None when ``unless`` comes true first: who made the thing may go on holding it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = _open(self._lock_file(_safe(key)))
        except OSError as error:
            raise of_os_error(error, self.root) from error
        try:
            mine = _try(lock, how)
            while not mine and not unless():
                await asyncio.sleep(_POLL_SECONDS)
                mine = _try(lock, how)
            yield lock if mine else None
        finally:
            lock.close()


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")


def _kept(lock: IO[bytes]) -> IO[bytes]:
    """The same lock under a descriptor that outlives the block that took it."""
    return os.fdopen(os.dup(lock.fileno()), "r+b")


def _try(lock: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _safe(key: str) -> str:
    return _UNSAFE.sub("-", key)[:200]
