"""A process that dies after a given step: what it had begun is done, its answer is never heard.

In: a number of steps. Out: a client that counts its writes as steps; whatever else a process does to the world can
count as one too (:meth:`Life.step`). Once the life is over nothing of it reaches the world any more, so that the
next process can start at once while what is left of this one is still being cancelled. Events are nobody's state:
they are no steps.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from manager.client import Client
from manager.config import RestConfig
from manager.reads import Body
from manager.types import Obj

READS = ("GET", "HEAD")


class Life:
    """See the module.

    Args:
        steps: how many it may take; the last one is carried out and then it is dead. None: for ever.

    Attributes:
        taken: the steps, in words, in order.
        over: set when it has died.
    """

    def __init__(self, steps: int | None = None) -> None:
        self._steps = steps
        self.taken: list[str] = []
        self.over = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Life {'over' if self.over.is_set() else 'alive'} after {len(self.taken)} steps>"

    def end_after(self, steps: int) -> None:
        """It may take so many more steps; 0: it is over."""
        self._steps = len(self.taken) + steps
        if not steps:
            self.over.set()

    async def begin(self) -> None:
        """Before anything that reaches the world. Never returns once the life is over."""
        if self.over.is_set():
            await _never()

    async def step(self, what: str) -> None:
        """A step was carried out. Never returns if it was the last."""
        if self.over.is_set():  # two at once: this one was on its way when the other was the last
            await _never()
        self.taken.append(what)
        if self._steps is not None and len(self.taken) >= self._steps:
            self.over.set()
            await _never()


class MortalClient(Client):
    """A connection to the API server whose writes are steps of a life."""

    def __init__(self, config: RestConfig, life: Life) -> None:
        super().__init__(config)
        self._life = life

    async def send(self, method: str, target: str, body: Body | None, headers: bytes) -> Obj:
        """See ``Client``."""
        await self._life.begin()
        answer = await super().send(method, target, body, headers)
        if method not in READS and "/events" not in target:
            await self._life.step(f"{method} {_short(target)}")
        return answer


def _short(target: str) -> str:
    """A path without the group, its version and the query."""
    path = target.partition("?")[0]
    return "/".join(path.strip("/").split("/")[3 if path.startswith("/apis/") else 2 :])


async def _never() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
