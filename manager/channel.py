"""Hints from outside the cluster: a program sends objects, controllers look at them.

    channel = Channel()
    builder.watches_raw_source(ChannelSource(channel, enqueue_self))
    ...
    await channel.send({"metadata": {"namespace": "n", "name": "a"}})

A channel keeps what is sent before its first source starts. Each source has a bounded buffer of its own, from
which its handler is fed in slices by the event loop; a full one holds the sender back. Nothing runs in between: no
task has to be stopped. Semantics: controller-runtime's source.Channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from manager.changes import Generic
from manager.errors import ManagerError
from manager.handlers import Handler, Queue
from manager.types import Obj

log = logging.getLogger("kaito.manager.channel")

BUFFER = 1024
_SLICE = 100  # hints that are handled before the rest of the process has its turn


class ChannelClosed(ManagerError):
    """Something was sent after the end."""


class Channel:
    """See the module. Every source that is started gets every object. To be used from the event loop.

    Args:
        buffer: how many objects wait for the first source.
    """

    def __init__(self, buffer: int = BUFFER) -> None:
        self._receivers: list[_Receiver] = []
        self._pending: deque[Obj] = deque()
        self._buffer = buffer
        self._senders: list[asyncio.Future[None]] = []
        self._closed = False

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Channel receivers={len(self._receivers)} pending={len(self._pending)}{state}>"

    async def send(self, obj: Obj) -> None:
        """Pass an object on; waits while the buffer of any source is full.

        Raises:
            ChannelClosed: the channel is closed, or is while this waits.
        """
        while not self._closed and self._is_full():
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._senders.append(room)
            await room
        if self._closed:
            raise ChannelClosed("the channel is closed")
        if not self._receivers:
            self._pending.append(obj)
        for receiver in self._receivers:
            receiver.put(obj)

    def close(self) -> None:
        """Nothing more is sent. What was sent before is still handled."""
        self._closed = True
        self._has_room()

    def connect(self, deliver: Callable[[Obj], None], buffer: int) -> None:
        """Feed one more receiver; the first one gets what was sent before it came. A source's."""
        receiver = _Receiver(deliver, buffer, self._has_room)
        self._receivers.append(receiver)
        while self._pending:
            receiver.put(self._pending.popleft())
        self._has_room()

    def _is_full(self) -> bool:
        if not self._receivers:
            return len(self._pending) >= self._buffer
        return any(receiver.is_full for receiver in self._receivers)

    def _has_room(self) -> None:
        senders, self._senders = self._senders, []
        for sender in senders:
            if not sender.done():
                sender.set_result(None)


class _Receiver:
    """The buffer of one source."""

    def __init__(self, deliver: Callable[[Obj], None], buffer: int, has_room: Callable[[], None]) -> None:
        self._deliver, self._buffer, self._has_room = deliver, buffer, has_room
        self._objects: deque[Obj] = deque()
        self._scheduled = False

    @property
    def is_full(self) -> bool:
        return len(self._objects) >= self._buffer

    def put(self, obj: Obj) -> None:
        self._objects.append(obj)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        for _ in range(min(len(self._objects), _SLICE)):
            obj = self._objects.popleft()
            try:
                self._deliver(obj)
            except Exception:
                log.exception("handler failed, hint skipped")
        self._scheduled = bool(self._objects)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._flush)
        self._has_room()


class ChannelSource:
    """A source of :class:`Generic` changes (``manager.sources.Source``).

    Args:
        channel: where they come from.
        handler: turns them into keys.
        predicates: AND-ed; what they refuse is dropped.
        buffer: how many wait for the handler before senders do.
    """

    def __init__(
        self, channel: Channel, handler: Handler, *predicates: Callable[[Generic], bool], buffer: int = BUFFER
    ) -> None:
        if channel is None or handler is None:
            raise ManagerError("a channel source needs a channel and a handler")
        self._channel, self._handler, self._predicates, self._buffer = channel, handler, predicates, buffer

    def __str__(self) -> str:
        return "channel"

    async def start(self, queue: Queue) -> None:
        """See ``Source``."""

        def deliver(obj: Obj) -> None:
            change = Generic(obj)
            if all(predicate(change) for predicate in self._predicates):
                self._handler(change, queue)

        self._channel.connect(deliver, self._buffer)

    async def wait_synced(self) -> None:
        """At once: a channel has no initial list."""
