"""One source becomes one sound adapter in the store.

In: a source. Out: an `Artifact`, held. Images go through `inference_server.oci`; a mounted folder is copied, so
that what serves cannot change underneath. Where a registry does not answer, the copy that the last good set
used stands in for it, and says so. Raises FetchError or InvalidAdapter; never leaves a half adapter behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from inference_server.adapters.artifact import CONFIG, WEIGHTS, InvalidAdapter, examine, locate
from inference_server.adapters.base import BaseModel
from inference_server.adapters.decide import Artifact
from inference_server.adapters.limits import Limits
from inference_server.adapters.wanted import Source
from inference_server.oci.download import OnBytes
from inference_server.oci.errors import FetchError, NotFound, of_os_error
from inference_server.oci.pull import Puller
from inference_server.oci.unpack import UnpackLimits
from inference_server.sources.store import Held, Store

T = TypeVar("T")
PREFIX = "data"  # where upstream's images have the adapter


@dataclass(slots=True)
class Fetcher:
    """See the module. ``known`` are the artifacts of the last good set by source, as digest and key."""

    puller: Puller
    store: Store
    base: BaseModel
    limits: Limits
    known: Mapping[Source, tuple[str, str]]
    on_bytes: OnBytes = lambda _: None

    async def fetch(self, source: Source) -> Artifact:
        """One attempt."""
        if source.image is None:
            digest, held = await self._copied(Path(source.path or ""))
            return await self._judged(digest, held)
        try:
            digest, held = await self._pulled(source.image, source)
        except FetchError as error:
            cached = await self.cached(source) if error.transient else None
            if cached is None:
                raise
            return replace(cached, note=f"the copy pulled before is used: {error.message}")
        return await self._judged(digest, held)

    async def cached(self, source: Source) -> Artifact | None:
        """What the last good set used for a source, if it is still in the store."""
        digest, key = self.known.get(source, ("", ""))
        held = await self.store.hold(key) if key else None
        return await self._judged(digest, held) if held else None

    async def _pulled(self, image: str, source: Source) -> tuple[str, Held]:
        resolved = await self.puller.resolve(image, source.secrets)
        limits = UnpackLimits(file_bytes=self.limits.max_bytes, stream_bytes=4 * self.limits.max_bytes)

        async def make(work: Path) -> None:
            await self.puller.fetch(resolved, work, prefixes=(PREFIX,), limits=limits, on_bytes=self.on_bytes)
            await asyncio.to_thread(shutil.rmtree, work / "blobs", True)

        return resolved.digest, await self.store.get(resolved.digest, make)

    async def _copied(self, folder: Path) -> tuple[str, Held]:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", "mount the volume, or correct the path")
        digest = await _reading(folder, partial(_digest, folder))

        async def make(work: Path) -> None:
            files = work / "files"
            await asyncio.to_thread(_copy, folder, files)
            if await asyncio.to_thread(_digest, files) != digest:
                raise InvalidAdapter(f"the files in {folder} change while they are read")

        return digest, await self.store.get(digest, make)

    async def _judged(self, digest: str, held: Held) -> Artifact:
        def judge() -> Artifact:
            folder = locate(held.path / "files")
            facts = examine(folder, self.base, self.limits)
            return Artifact(digest, held.path.name, held, str(folder.relative_to(held.path)), facts)

        try:
            return await _reading(held.path, judge)
        except BaseException:
            held.release()
            raise


async def _reading(folder: Path, work: Callable[[], T]) -> T:
    """Blocking work in a thread, with the file system's errors as ours."""
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise of_os_error(error, folder) from error


def _digest(folder: Path) -> str:
    """One digest over an adapter's two files."""
    whole = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InvalidAdapter(f"{folder} has no {name}; it must be an adapter that PEFT has saved")
        with (folder / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{whole.hexdigest()}"


def _copy(folder: Path, files: Path) -> None:
    files.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(folder / name, files / name)
