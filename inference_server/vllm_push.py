"""Hands the engine's outputs to a connection in the moment they are made.

In: what `AsyncLLM.generate` would be called with, and how an output looks on the wire. Out: bytes at an `Outlet`.
vLLM puts each output into the request's collector and wakes a task, which walks through a chain of generators and
writes: several times the cost of the write itself, for each token. Here the collector's `put` writes, as long as
the connection takes everything at once. What it does not take stays in the collector, which merges it, and the
task sends it at the reader's pace. A request that ends early, for whatever reason, is aborted in the engine. A
failure in here must never reach the caller of `put`: that is the task that serves all requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from inference_server.protocol import Outlet


class Push:
    """One request. ``event`` makes bytes of an output (none: nothing to send), ``last`` of the finished one."""

    def __init__(
        self,
        llm: Any,
        event: Callable[[Any], bytes],
        last: Callable[[Any], bytes],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        self._llm = llm
        self._event = event
        self._last = last
        self._arguments = arguments
        self._named = named

    async def run(self, outlet: Outlet) -> None:
        """See `Pushed`. Raises what vLLM raises."""
        prompt, parameters, request_id = self._arguments
        collector = await self._llm.add_request(request_id, prompt, parameters, **self._named)
        finished = False
        try:
            waiting = asyncio.Event()
            keep, event = collector.put, self._event

            def put(output: Any) -> None:
                try:
                    if (
                        outlet.free
                        and collector.output is None
                        and not isinstance(output, Exception)
                        and not output.finished
                    ):
                        if data := event(output):
                            outlet.write(data)
                        return
                except Exception as error:
                    output = error
                keep(output)
                waiting.set()

            collector.put = put
            if collector.output is not None:
                waiting.set()
            while not finished:
                await waiting.wait()
                waiting.clear()
                output = collector.get_nowait()
                if output is None:
                    continue
                finished = output.finished
                if finished:
                    await outlet.end(self._last(output))
                elif data := event(output):
                    await outlet.send(data)
        finally:
            if not finished:
                await self._llm.abort(collector.request_id, internal=True)
            collector.close()
