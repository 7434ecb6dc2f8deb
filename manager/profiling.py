"""What a process that misbehaves is asked: its tasks, its threads, its memory, where its time goes.

The counterpart of Go's pprof. Off unless an address is given, and only on a loopback address, because what it
tells is nobody else's business and its answers cost time; ``kubectl port-forward`` reaches it. Nothing here
changes the process, except that the first look at memory starts the tracing of allocations, which costs until it
is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import math
import os
import sys
import threading
import traceback
import tracemalloc
from collections import Counter
from types import FrameType

from aiohttp import web

from manager.errors import ConfigError
from manager.loopwatch import LoopLag
from manager.servers import parse_bind

_SAMPLES_PER_SECOND = 100
_MAX_PROFILE_SECONDS = 60.0
_INDEX = """\
/debug/tasks     all tasks of the event loop, with their stacks
/debug/threads   all threads, with their stacks
/debug/memory    the largest allocations by line (?top=30; ?stop ends the tracing)
/debug/profile   where the event loop's thread spends its time (?seconds=5), as collapsed stacks for a flame graph
/debug/lag       the worst lag of the event loop, in seconds

From outside, without any preparation: py-spy dump --pid {pid}, py-spy record --pid {pid} -o profile.svg
"""


def check_bind(bind: str) -> None:
    """Only loopback.

    Raises:
        ConfigError: the address can be reached from elsewhere.
    """
    host, _ = parse_bind(bind, "debug")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host == "localhost":
        return
    raise ConfigError(
        f"the debug server does not listen on {bind}: anybody who reaches it sees the process from inside; "
        "use 127.0.0.1 and `kubectl port-forward`"
    )


def debug_app(lag: LoopLag) -> web.Application:
    """The application; all answers are plain text."""

    async def index(_: web.Request) -> web.Response:
        return web.Response(text=_INDEX.format(pid=os.getpid()))

    async def tasks(_: web.Request) -> web.Response:
        return web.Response(text=task_dump())

    async def threads(_: web.Request) -> web.Response:
        return web.Response(text=thread_dump())

    async def memory(request: web.Request) -> web.Response:
        if "stop" in request.query:
            tracemalloc.stop()
            return web.Response(text="tracing stopped\n")
        return web.Response(text=await memory_top(int(_number(request, "top", 30, 1000))))

    async def profile(request: web.Request) -> web.Response:
        return web.Response(text=await profiled(_number(request, "seconds", 5.0, _MAX_PROFILE_SECONDS)))

    async def worst(_: web.Request) -> web.Response:
        return web.Response(text=f"{lag.worst():.6f}\n")

    app = web.Application()
    app.router.add_get("/debug", index)
    app.router.add_get("/debug/", index)
    for name, handler in {
        "tasks": tasks,
        "threads": threads,
        "memory": memory,
        "profile": profile,
        "lag": worst,
    }.items():
        app.router.add_get(f"/debug/{name}", handler)
    return app


def _number(request: web.Request, name: str, default: float, most: float) -> float:
    try:
        value = float(request.query.get(name, default))
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise web.HTTPBadRequest(text=f"{name} must be a number above 0 and at most {most:g}\n")
    return value


def task_dump() -> str:
    """The tasks of the running loop, by name, each with where it waits."""
    out = io.StringIO()
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    out.write(f"{len(tasks)} tasks\n")
    for task in tasks:
        out.write(f"\n{task.get_name()}\n")
        frames = task.get_stack()
        for frame in frames:
            out.writelines(traceback.format_list(traceback.extract_stack(frame, limit=1)))
        out.writelines(f"  awaits {name}\n" for name in _awaited(task))
    return out.getvalue()


def _awaited(task: asyncio.Task[object]) -> list[str]:
    """The coroutines that a task is in, outermost first: ``get_stack`` shows only the first of them."""
    names = []
    inner: object = task.get_coro()
    while inner is not None:
        frame = (
            getattr(inner, "cr_frame", None)
            or getattr(inner, "gi_frame", None)
            or getattr(inner, "ag_frame", None)
        )
        if frame is not None:
            names.append(f"{frame.f_code.co_qualname} {frame.f_code.co_filename}:{frame.f_lineno}")
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return names


def thread_dump() -> str:
    """All threads with their stacks."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    out = io.StringIO()
    for ident, frame in sys._current_frames().items():
        out.write(f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}\n")
    return out.getvalue()


async def memory_top(top: int) -> str:
    """The lines that hold the most memory, counted from the first call on."""
    if not tracemalloc.is_tracing():
        tracemalloc.start()
        return "tracing of allocations started; ask again when there is something to see\n"
    snapshot = tracemalloc.take_snapshot()
    # Grouping a large snapshot takes seconds; the loop has other work.
    lines = await asyncio.to_thread(lambda: [str(entry) for entry in snapshot.statistics("lineno")[:top]])
    current, peak = tracemalloc.get_traced_memory()
    return "\n".join([f"traced now {current} bytes, at most {peak} bytes", *lines, ""])


async def profiled(seconds: float) -> str:
    """Collapsed stacks of the calling thread, sampled from another for this long."""
    return await asyncio.to_thread(_sample, threading.get_ident(), seconds)


def _sample(ident: int, seconds: float) -> str:
    pause = threading.Event()
    stacks: Counter[str] = Counter()
    for _ in range(max(1, int(seconds * _SAMPLES_PER_SECOND))):
        pause.wait(1 / _SAMPLES_PER_SECOND)
        frame = sys._current_frames().get(ident)
        if frame is not None:
            stacks[_collapsed(frame)] += 1
    return "".join(f"{stack} {count}\n" for stack, count in stacks.most_common())


def _collapsed(frame: FrameType | None) -> str:
    names = []
    while frame is not None:
        names.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(names))
