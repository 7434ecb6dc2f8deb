"""Exec and attach: a WebSocket on one side, a process on the other.

In: the connection's `Channels` and a container. Out: bytes both ways until the process or the client ends,
then one final status. A client that goes away ends an exec (the supervisor kills the command) and leaves an
attached container alone. Attaching to a container that has just ended shows its log instead, so `kubectl
run -it` of a quick command shows what it printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from kaito.local.node import channels as ch
from kaito.local.node.channels import Channels, exit_status, failure_status
from kaito.local.node.containers import Container
from kaito.local.node.logs import LogQuery, read_log
from kaito.local.node.pipes import PipeReader, PipeWriter
from kaito.local.node.runtime import Attempt, ContainerGone, Exec, ExecFailed
from manager.types import Obj

_DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The query of exec and attach."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


async def run_exec(channels: Channels, container: Container, argv: Sequence[str], options: StreamOptions) -> None:
    """Run a command in the container for this client."""
    try:
        serve = _exec_tty if options.tty else _exec_pipes
        status = await serve(channels, _attempt(container), container.command(argv), options)
    except (ContainerGone, ExecFailed) as err:
        status = failure_status(f"failed to exec in container: {err}")
    await channels.finish(status)


async def _exec_tty(channels: Channels, attempt: Attempt, argv: Sequence[str], options: StreamOptions) -> Obj:
    master, slave = os.openpty()
    try:
        running = await attempt.exec(argv, (slave, slave, slave), tty=True)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    control = os.dup(master)
    reader, writer = await PipeReader.open(os.dup(master)), await PipeWriter.open(master)

    async def take_input() -> None:
        async for item in channels.input():
            if item.data is not None and options.stdin:
                await writer.write(item.data)
            elif item.size is not None:
                rows, columns = item.size
                with contextlib.suppress(OSError):
                    fcntl.ioctl(control, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    try:
        return await _converse(channels, running, take_input(), [_forward(reader, channels, ch.STDOUT)])
    finally:
        reader.close()
        writer.close()
        os.close(control)


async def _exec_pipes(channels: Channels, attempt: Attempt, argv: Sequence[str], options: StreamOptions) -> Obj:
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    err_r, err_w = os.pipe()
    ours = [in_w, out_r, err_r]
    try:
        running = await attempt.exec(argv, (in_r, out_w, err_w))
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in (in_r, out_w, err_w):
            os.close(fd)
    writer = await PipeWriter.open(in_w)
    out, err = await PipeReader.open(out_r), await PipeReader.open(err_r)
    if not options.stdin:
        writer.close()

    async def take_input() -> None:
        async for item in channels.input():
            if item.data is not None and options.stdin:
                await writer.write(item.data)
            elif item.end:
                writer.close()

    try:
        outputs = [_forward(out, channels, ch.STDOUT), _forward(err, channels, ch.STDERR)]
        return await _converse(channels, running, take_input(), outputs)
    finally:
        for stream in (writer, out, err):
            stream.close()


async def _converse(
    channels: Channels,
    running: Exec,
    take_input: Coroutine[None, None, None],
    outputs: Sequence[Coroutine[None, None, None]],
) -> Obj:
    """Until the command ends and its output is sent, or the client goes away (which ends the command)."""
    listening = asyncio.create_task(take_input, name="exec input")
    sending = [asyncio.create_task(output, name="exec output") for output in outputs]
    ending = asyncio.create_task(running.wait(), name="exec wait")
    try:
        await asyncio.wait([ending, listening], return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            return failure_status("the client went away")
        await _finish(channels, sending, listening)
        return exit_status(ending.result())
    finally:
        running.close()
        await _cancel([listening, ending, *sending])


async def run_attach(channels: Channels, container: Container, options: StreamOptions) -> None:
    """Connect this client to the container's own streams."""
    try:
        attachment = await _attempt(container).attach(container.recently_read())
    except ContainerGone as err:
        await channels.finish(await _show_log(channels, container, str(err)))
        return

    async def take_input() -> None:
        async for item in channels.input():
            if item.data is not None and options.stdin:
                await attachment.stdin(item.data)
            elif item.size is not None:
                await attachment.resize(*item.size)
            elif item.end and options.stdin:
                await attachment.close_stdin()

    async def give_output() -> None:
        async for kind, data in attachment.output():
            if (options.stdout if kind == ch.STDOUT else options.stderr) and not await channels.send(kind, data):
                return

    listening = asyncio.create_task(take_input(), name="attach input")
    sending = asyncio.create_task(give_output(), name="attach output")
    try:
        await asyncio.wait([listening, sending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        attachment.close()
        await _cancel([listening, sending])
    await channels.finish(exit_status(0))


def _attempt(container: Container) -> Attempt:
    if container.attempt is None:
        raise ContainerGone("container is not running")
    return container.attempt


async def _show_log(channels: Channels, container: Container, problem: str) -> Obj:
    path = container.log_of(previous=False)
    if path is None or container.attempt is None or not container.attempt.interactive:
        return failure_status(problem)
    seen = container.recently_read()
    for stream, channel in (("stdout", ch.STDOUT), ("stderr", ch.STDERR)):
        skip = seen.get(stream, 0)
        async for chunk in read_log(path, LogQuery(stream=stream), lambda: True):
            if chunk[skip:]:
                await channels.send(channel, chunk[skip:])
            skip = max(0, skip - len(chunk))
    return exit_status(0)


async def _finish(
    channels: Channels, sending: Sequence[asyncio.Task[None]], listening: asyncio.Task[None]
) -> None:
    """All output that was written before the end. A grandchild may hold the pipe open and be silent: that is not
    waited for, but a client that is slow to take what is there is."""
    while not listening.done():
        seen = channels.sent
        _done, left = await asyncio.wait(sending, timeout=_DRAIN_SECONDS)
        if not left or channels.sent == seen:
            return


async def _forward(reader: PipeReader, channels: Channels, channel: int) -> None:
    while data := await reader.read():
        if not await channels.send(channel, data):
            return


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
