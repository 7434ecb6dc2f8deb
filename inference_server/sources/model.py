"""A model's files, brought to this machine.

In: what ``--model`` says. Out: a folder that an engine can load, held while the server uses it. What is fetched
lies in the store under its digest or commit: pods of one node that share the folder fetch it once, and a killed
download goes on where it was. Raises FetchError, whose text says what to do; a passing failure has been retried
by then.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from inference_server.oci.backoff import Backoff
from inference_server.oci.download import Downloader
from inference_server.oci.errors import BadArtifact, DiskFull, FetchError, NotFound
from inference_server.oci.pull import Puller
from inference_server.oci.unpack import UnpackLimits, free_bytes
from inference_server.sources.choose import FolderModel, HubModel, ImageModel, Model, choose
from inference_server.sources.hub import Hub, HubFile
from inference_server.sources.progress import Meter
from inference_server.sources.store import Held, Store

logger = logging.getLogger("kaito.inference_server.sources.model")

T = TypeVar("T")
# Where images have weights: upstream's preset images below /workspace, others at these names.
PREFIXES = ("workspace", "data", "weights", "models", "model")
_LIMITS = UnpackLimits(file_bytes=4 << 40, stream_bytes=8 << 40, files=100_000, members=10_000_000)
_AT_ONCE = 4  # files on their way at a time


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A folder with the model. ``held`` is None for a folder that nobody fetched."""

    path: Path
    held: Held | None = None
    origin: str = ""  # with digest or commit, for the start-up report

    def release(self) -> None:
        """The server no longer needs the files."""
        if self.held is not None:
            self.held.release()


@dataclass(slots=True)
class ModelFetcher:
    """Fetches models into ``store``."""

    store: Store
    puller: Puller
    hub: Hub
    downloader: Downloader = field(default_factory=Downloader)
    backoff: Backoff = field(default_factory=lambda: Backoff(first=1.0, most=30.0, attempts=6))
    rng: random.Random = field(default_factory=random.Random)

    async def fetch(self, model: str, meter: Meter) -> FetchedModel:
        """The folder of a model, fetched if need be."""
        source: Model = choose(model)
        if isinstance(source, FolderModel):
            if not source.path.is_dir():
                raise NotFound(f"no model at {source.path}", "mount the volume there, or correct --model")
            return FetchedModel(source.path, origin=str(source.path))
        if isinstance(source, ImageModel):
            return await self._image(source, meter)
        return await self._hub(source, meter)

    async def _image(self, source: ImageModel, meter: Meter) -> FetchedModel:
        meter.say(f"looks up {source.image}")
        resolved = await self._patiently(lambda: self.puller.resolve(source.image))
        meter.say(f"waits for {source.image}", total=resolved.size)

        async def make(work: Path) -> None:
            meter.say(f"pulls {source.image}")
            await self.puller.fetch(resolved, work, prefixes=PREFIXES, limits=_LIMITS, on_bytes=meter.add)
            await asyncio.to_thread(shutil.rmtree, work / "blobs", True)

        held = await self.store.get(f"image-{resolved.digest}", make)
        try:
            return FetchedModel(locate(held.path / "files"), held, str(resolved.reference))
        except BaseException:
            held.release()
            raise

    async def _hub(self, source: HubModel, meter: Meter) -> FetchedModel:
        meter.say(f"looks up {source.repo} on the hub")
        found = await self._patiently(lambda: self.hub.look_up(source.repo, source.revision))
        meter.say(f"waits for {source.repo}", total=found.size)

        async def make(work: Path) -> None:
            meter.say(f"downloads {source.repo}")
            here = sum(entry.stat().st_size for entry in work.iterdir())
            if found.size - here > free_bytes(work):
                raise DiskFull(
                    f"{source.repo} needs {found.size - here} bytes and the disk has {free_bytes(work)}",
                    "give the volume more room",
                )
            slots = asyncio.Semaphore(_AT_ONCE)
            await _all(self._file(file, work, meter, slots) for file in found.files)

        held = await self.store.get(f"hf-{source.repo}-{found.commit}", make)
        return FetchedModel(held.path, held, f"{source.repo}@{found.commit}")

    async def _file(self, file: HubFile, work: Path, meter: Meter, slots: asyncio.Semaphore) -> None:
        async with slots:
            await self.downloader.fetch(
                self.hub.source(file), work / file.name, digest=file.digest, size=file.size, on_bytes=meter.add
            )

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for failures in range(1, self.backoff.attempts + 1):
            try:
                return await attempt()
            except FetchError as error:
                if not error.transient or failures == self.backoff.attempts:
                    raise
                delay = self.backoff.delay(failures, self.rng, at_least=error.retry_after)
                logger.info("looking up again in_seconds=%.1f error=%s", delay, error)
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")


def locate(files: Path) -> Path:
    """The model's folder in what an image held: the one with config.json and weights. Raises BadArtifact."""
    found = [
        path.parent
        for path in sorted(files.rglob("config.json"), key=lambda path: len(path.parts))
        if any(next(path.parent.glob(pattern), None) for pattern in ("*.safetensors", "*.bin"))
    ]
    if not found:
        raise BadArtifact(
            f"the image holds no model below {', '.join('/' + prefix for prefix in PREFIXES)}",
            "put config.json and *.safetensors into one of these folders, or push them as files",
        )
    return found[0]


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """All of them, or the first error, unwrapped."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from None
