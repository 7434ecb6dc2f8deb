"""Supervised containers with real, short processes: output, exit codes, signals, terminals, adoption, orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kaito.local.node.logs import LogQuery, read_log
from kaito.local.node.runtime import Attempt, ContainerConfig, ContainerGone, ExecFailed

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a container; all are killed at the end."""
    made: list[Attempt] = []

    async def one(*argv: str, **options: Any) -> Attempt:
        attempt = Attempt(tmp_path / f"c{len(made)}", len(made), lambda: None)
        made.append(attempt)
        env = {"PATH": os.environ["PATH"], "PS1": "> ", **options.pop("env", {})}
        await attempt.start(ContainerConfig(argv, env, str(tmp_path), **options))
        return attempt

    yield one
    for attempt in made:
        await attempt.stop(0)


async def text(attempt: Attempt, **query: Any) -> str:
    data = [c async for c in read_log(attempt.log_path, LogQuery(**query), lambda: not attempt.running)]
    return b"".join(data).decode()


async def gone(pid: int) -> bool:
    """Whether a process ends within two seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_output_and_exit_code_are_kept(start: Start) -> None:
    """Both streams end up in the log, in order and to the byte; the exit code and times are recorded."""
    attempt = await start("sh", "-c", "echo out; echo err >&2; printf end; exit 3")
    await attempt.wait()

    assert attempt.exit is not None
    assert (attempt.exit.exit_code, attempt.exit.reason) == (3, "Error")
    assert attempt.exit.started_at <= attempt.exit.finished_at
    assert await text(attempt, stream="stderr") == "err\n"
    assert await text(attempt, stream="stdout") == "out\nend"
    assert {len(line.split(" ", 1)[0]) for line in (await text(attempt, timestamps=True)).splitlines()} == {30}


async def test_a_missing_program_is_a_start_error(start: Start) -> None:
    """A container whose command does not exist ends as container runtimes say it: StartError, 128."""
    attempt = await start("no-such-program")
    await attempt.wait()

    assert (attempt.exit.exit_code, attempt.exit.reason) == (128, "StartError")
    assert "no such file" in attempt.exit.message


async def test_term_then_kill(start: Start) -> None:
    """A container that ends on TERM gets its time; one that ignores it is killed when the grace is over."""
    polite = await start("sh", "-c", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done")
    stubborn = await start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    while not await text(stubborn):
        await asyncio.sleep(0.02)

    await asyncio.gather(polite.stop(5), stubborn.stop(0.3))

    assert (polite.exit.exit_code, await text(polite)) == (0, "bye\n")
    assert (stubborn.exit.exit_code, stubborn.exit.signal) == (137, 9)


async def test_nothing_of_the_tree_survives_the_main_process(start: Start) -> None:
    """A descendant that left session and group dies with the main process."""
    attempt = await start("sh", "-c", "setsid sh -c 'echo $$; exec sleep 60' & sleep 0.2; exit 0")
    await attempt.wait()

    assert await gone(int(await text(attempt)))


async def test_exec_runs_beside_the_container(start: Start) -> None:
    """exec has the container's environment and its own exit code, and dies with a client that hangs up."""
    attempt = await start("sleep", "60", env={"A": "from spec"})
    read_end, write_end = os.pipe()
    with await attempt.exec(["sh", "-c", "echo $A; exit 5"], (0, write_end, write_end)) as command:
        code = await command.wait()
    with await attempt.exec(["sh", "-c", "echo $$; exec sleep 60"], (0, write_end, write_end)):
        os.set_blocking(read_end, True)
        output = os.read(read_end, 100)
        while output.count(b"\n") < 2:
            output += await asyncio.to_thread(os.read, read_end, 100)
    os.close(write_end)
    os.close(read_end)

    assert code == 5
    assert output.startswith(b"from spec\n")
    assert await gone(int(output.split()[-1]))
    with pytest.raises(ExecFailed, match="nope"):
        await attempt.exec(["nope"], (0, 1, 2))


async def test_the_first_client_that_attaches_sees_everything(start: Start) -> None:
    """What a terminal printed before is replayed, less what the client has read in the log; then it is live."""
    attempt = await start("sh", tty=True, stdin=True, stdinOnce=True)
    await asyncio.sleep(0.1)

    attachment = await attempt.attach({"stdout": 1})
    await attachment.resize(30, 100)
    await attachment.stdin(b"stty size; exit 4\n")
    output = b"".join([data async for _stream, data in attachment.output()])
    attachment.close()
    await attempt.wait()

    assert output.decode() == " stty size; exit 4\r\n30 100\r\n"
    assert attempt.exit.exit_code == 4
    with pytest.raises(ContainerGone):
        await attempt.attach()


async def test_stdin_flows_with_back_pressure_and_ends(start: Start) -> None:
    """Input of any size arrives whole, and its end is told when stdinOnce is set."""
    attempt = await start("sh", "-c", "wc -c", stdin=True, stdinOnce=True)
    attachment = await attempt.attach()

    async def feed() -> None:
        for _ in range(30):
            await attachment.stdin(b"x" * 100_000)
        await attachment.close_stdin()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        output = b"".join([data async for _stream, data in attachment.output()])
    attachment.close()

    assert output.strip() == b"3000000"


async def test_a_running_container_is_adopted(start: Start) -> None:
    """After the agent went away, another one finds the container, its log and later its exit."""
    first = await start("sh", "-c", "echo one; sleep 0.5; echo two; exit 6")
    await first.detach()

    second = Attempt(first.folder, first.number, lambda: None)
    await second.adopt()
    running = second.running
    await second.wait()
    third = Attempt(first.folder, first.number, lambda: None)
    await third.adopt()

    assert running
    assert second.pid == first.pid
    assert (second.exit, await text(second)) == (third.exit, "one\ntwo\n")
    assert third.exit is not None
    assert third.exit.exit_code == 6


async def test_an_orphan_ends_by_itself(start: Start) -> None:
    """When no agent watches, the supervisor stops the container and leaves a record."""
    attempt = await start("sleep", "60", orphanSeconds=0.2)
    await attempt.detach()

    assert await gone(attempt.pid)
    late = Attempt(attempt.folder, 0, lambda: None)
    while late.exit is None:
        await late.adopt()
        await late.wait()
    assert late.exit.exit_code == 143


async def test_a_killed_supervisor_takes_the_container_along(start: Start) -> None:
    """Without its supervisor the main process dies, and the run counts as ended in an unknown way."""
    attempt = await start("sleep", "60")
    parent = int(Path(f"/proc/{attempt.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    await attempt.wait()

    assert await gone(attempt.pid)
    assert (attempt.exit.exit_code, attempt.exit.reason) == (137, "ContainerStatusUnknown")


async def test_the_log_is_rotated_and_read_as_one(start: Start) -> None:
    """A log past its size moves aside once; readers get both files, tail and limit count over them."""
    script = "for i in range(60): print(f'line {i:02}', flush=True)"
    attempt = await start(sys.executable, "-S", "-c", script, logMaxBytes=1500)
    await attempt.wait()
    whole = (await text(attempt)).splitlines()

    assert (attempt.folder / "log.1").exists()
    assert whole == [f"line {i:02}" for i in range(60)][-len(whole) :]
    assert await text(attempt, tail_lines=2) == "line 58\nline 59\n"
    assert await text(attempt, limit_bytes=3) == "lin"


async def test_following_a_log_ends_with_the_container(start: Start) -> None:
    """follow delivers lines as they come and stops after the last one."""
    attempt = await start("sh", "-c", "echo a; sleep 0.3; echo b")

    assert await text(attempt, follow=True) == "a\nb\n"
    assert await text(attempt, since="2100-01-01T00:00:00Z") == ""
