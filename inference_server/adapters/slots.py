"""The slots of this process: made, loaded, lent to requests, retired, and deleted when nobody can look any more.

In: sets to load. Out: slots that the engine has. Owns the folder of slots, their ids and the count of requests
on each. A retired slot is unloaded when its last request has ended; its files go a while later, because an
abort that is still on its way inside the engine could make it read them once more, and a missing file there
ends the engine.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from inference_server.adapters.decide import Artifact, LoadedSet, Planned
from inference_server.adapters.materialise import Part, materialise
from inference_server.adapters.model import AdapterChoice, AdapterSlot
from inference_server.oci.errors import of_os_error
from inference_server.protocol import Engine, EngineError

logger = logging.getLogger("kaito.inference_server.adapters.slots")

_FILES_STAY_SECONDS = 60.0
Content = tuple[tuple[str, float], ...]  # digests and strengths: what makes two slots the same


@dataclass(slots=True)
class _State:
    slot: AdapterSlot
    content: Content
    title: str  # the adapter's name, for people
    requests: int = 0
    retired: bool = False
    unloaded_at: float | None = None


class Slots:
    """See the module. ``freed`` is called when a retired slot's last request has ended."""

    def __init__(self, engine: Engine, folder: Path, freed: Callable[[], None]) -> None:
        self._engine = engine
        self._root = folder
        self._freed = freed
        self._folder = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: IO[bytes] | None = None
        self._states: dict[int, _State] = {}
        self._next_id = 1

    def open(self) -> None:
        """Make this process's folder, and remove those of processes that have ended. Raises FetchError."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            for other in self._root.iterdir():
                if other.is_dir() and _is_abandoned(other):
                    shutil.rmtree(other, ignore_errors=True)
            self._folder.mkdir()
            self._lock = (self._folder / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise of_os_error(error, self._root) from error

    def close(self) -> None:
        """Remove this process's folder; the engine has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- loading -------------------------------------------------------------------------------------------------

    async def load(self, planned: Planned) -> LoadedSet:
        """All slots of a set, those that are there used again; all or none.

        Raises InvalidAdapter, FetchError (a full disk) or EngineError (refused, dead); nothing is loaded then.
        """
        active = [(wanted, artifact) for wanted, artifact in planned.adapters if wanted.strength > 0]
        fresh: list[AdapterSlot] = []
        try:
            slots: dict[str, AdapterSlot | None] = {wanted.name: None for wanted, _ in planned.adapters}
            for wanted, artifact in active:
                slots[wanted.name] = await self._slot(wanted.name, [(artifact, wanted.strength)], fresh)
            combined = None
            if len(active) == 1:
                combined = slots[active[0][0].name]
            elif active:
                parts = [(artifact, wanted.strength) for wanted, artifact in active]
                combined = await self._slot("combined", parts, fresh)
        except BaseException:
            for slot in fresh:
                self._states[slot.id].retired = True
            self._freed()
            raise
        return LoadedSet(planned, slots, combined)

    async def _slot(
        self, title: str, parts: Sequence[tuple[Artifact, float]], fresh: list[AdapterSlot]
    ) -> AdapterSlot:
        content = tuple((artifact.digest, strength) for artifact, strength in parts)
        for state in self._states.values():
            if state.content == content and state.unloaded_at is None:
                state.retired = False
                return state.slot
        number = self._next_id
        self._next_id += 1
        path = self._folder / str(number)
        folders = [Part(a.held.path / a.folder, a.facts, strength) for a, strength in parts]
        try:
            rank = await asyncio.to_thread(materialise, folders, path)
        except OSError as error:
            raise of_os_error(error, path) from error
        slot = AdapterSlot(number, f"{title}#{number}", path, rank)
        try:
            await self._engine.load_adapter(slot)
        except EngineError:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            raise
        self._states[number] = _State(slot, content, title)
        fresh.append(slot)
        return slot

    # -- lending -------------------------------------------------------------------------------------------------

    def lend(self, name: str, slot: AdapterSlot | None) -> AdapterChoice:
        """A choice that keeps its slot until it is released."""
        if slot is None:
            return AdapterChoice(name)
        state = self._states[slot.id]
        state.requests += 1

        def release() -> None:
            state.requests -= 1
            if state.retired and state.requests == 0:
                self._freed()

        return AdapterChoice(name, slot, release)

    # -- retiring ------------------------------------------------------------------------------------------------

    def retire_all_but(self, keep: LoadedSet | None) -> None:
        """Whatever the set in force does not use may go when its requests have ended."""
        kept = {slot.id for slot in keep.all_slots()} if keep else set()
        for number, state in self._states.items():
            state.retired = number not in kept

    async def sweep(self, now: float) -> float | None:
        """Unload what is idle and retired, delete what was long enough; returns when to come again."""
        again: list[float] = []
        for number, state in list(self._states.items()):
            if not state.retired or state.requests:
                continue
            if state.unloaded_at is None:
                await self._engine.unload_adapter(state.slot.name)
                logger.info("adapter unloaded slot=%s", state.slot.name)
                state.unloaded_at = now
            gone_at = state.unloaded_at + _FILES_STAY_SECONDS
            if gone_at > now:
                again.append(gone_at)
                continue
            del self._states[number]
            await asyncio.to_thread(shutil.rmtree, state.slot.path, ignore_errors=True)
        return min(again, default=None)

    def draining(self) -> list[str]:
        """Names of adapters that are retired and still used."""
        return [state.title for state in self._states.values() if state.retired and state.requests]

    def loaded(self) -> int:
        """Slots that the engine has."""
        return sum(state.unloaded_at is None for state in self._states.values())


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that made it has ended: the kernel has released its lock."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False  # being made just now
    except OSError:
        return False
    return True
