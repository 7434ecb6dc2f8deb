"""The supervisor restarts what dies, stops in reverse order, and leaves no process, however it ends itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kaito.errors import Interrupted
from kaito.local import supervisor as module
from kaito.local.cluster import explained
from kaito.local.signals import until_signal
from kaito.local.supervisor import Child, ChildFailed, Supervisor, ended, tail

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """One that is stopped after the test."""
    made = Supervisor()
    yield made
    await made.stop()


def _child(
    folder: Path, name: str, code: str, *, ready: Callable[[], bool] = lambda: True, **limits: float
) -> Child:
    async def answers() -> bool:
        return ready()

    return Child(name, [sys.executable, "-c", code], folder / f"{name}.log", answers, **limits)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_child_that_dies_is_started_again(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed child comes back as another process, and the report says what happened and where its log is."""
    monkeypatch.setattr(module, "_RESTART_FIRST", 0.01)
    said: list[str] = []
    supervisor._report = said.append
    await supervisor.start(_child(tmp_path, "one", SLEEP))
    first = supervisor.pid("one")
    assert first is not None
    async with supervisor.kept():
        os.kill(first, signal.SIGKILL)
        await _until(lambda: supervisor.pid("one") not in (None, first))

    assert len(said) == 1
    assert "one was ended by SIGKILL and is started again" in said[0]
    assert "one.log" in said[0]


async def test_outside_the_block_nothing_is_started_again(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that dies while the cluster stops stays dead."""
    monkeypatch.setattr(module, "_RESTART_FIRST", 0.0)
    await supervisor.start(_child(tmp_path, "one", SLEEP))
    async with supervisor.kept():
        pass
    os.kill(supervisor.pid("one") or 0, signal.SIGKILL)
    await _until(lambda: supervisor.pid("one") is None)
    await asyncio.sleep(0.1)

    assert supervisor.pid("one") is None


async def test_children_stop_in_reverse_order(supervisor: Supervisor, tmp_path: Path) -> None:
    """The last one started is the first to be told, and is gone before the next is told."""
    order = tmp_path / "order"
    code = """
import signal, sys, time
def end(*_):
    open({0!r}, "a").write({1!r} + " "); sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True: time.sleep(60)
"""
    for name in ("first", "second", "third"):
        log = tmp_path / f"{name}.log"
        child = _child(tmp_path, name, code.format(str(order), name), ready=lambda log=log: "up" in tail(log))
        await supervisor.start(child)
    await supervisor.stop()

    assert order.read_text().split() == ["third", "second", "first"]


async def test_what_does_not_stop_is_killed_with_its_group(supervisor: Supervisor, tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed after its time, and so is what it has started."""
    start = f"print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True)"
    code = f"import subprocess, sys; {start}; {STUBBORN}"
    child = _child(tmp_path, "one", code, ready=lambda: "up" in tail(tmp_path / "one.log"), stop_seconds=0.2)
    await supervisor.start(child)
    pid, grandchild = supervisor.pid("one"), int(tail(child.log).split()[0])
    assert pid is not None
    await supervisor.stop()

    assert not _alive(pid)
    await _until(lambda: not _alive(grandchild))


async def test_a_stop_that_was_cancelled_can_be_done_again(supervisor: Supervisor, tmp_path: Path) -> None:
    """Cancelling stop() half-way loses no process: the next call ends it."""
    child = _child(tmp_path, "one", STUBBORN, ready=lambda: "up" in tail(tmp_path / "one.log"), stop_seconds=0.5)
    await supervisor.start(child)
    pid = supervisor.pid("one")
    assert pid is not None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(supervisor.stop(), 0.05)
    assert _alive(pid)
    await supervisor.stop()

    assert not _alive(pid)


async def test_a_child_that_dies_before_it_is_ready_is_a_failure(supervisor: Supervisor, tmp_path: Path) -> None:
    """Its exit code and what it has said since its start are in the error; what an earlier run said is not."""
    (tmp_path / "one.log").write_text("words of yesterday\n")
    child = _child(tmp_path, "one", "print('no disk'); raise SystemExit(7)", ready=lambda: False)
    with pytest.raises(ChildFailed, match="one ended with exit code 7") as failed:
        await supervisor.start(child)

    assert failed.value.tail == "no disk"


async def test_readiness_of_another_process_does_not_count(supervisor: Supervisor, tmp_path: Path) -> None:
    """If the child is dead, an answer on its port came from somebody else."""
    started = tmp_path / "pid"
    child = _child(tmp_path, "one", f"import os; open({str(started)!r}, 'w').write(str(os.getpid()))")
    asked = 0

    async def answers() -> bool:
        nonlocal asked
        asked += 1
        while _alive(int((started.read_text() if started.exists() else "") or os.getpid())):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # until the loop has heard of it, too
        return True

    with pytest.raises(ChildFailed):
        await supervisor.start(Child(child.name, child.argv, child.log, answers))
    assert asked == 1


async def test_a_child_that_is_never_ready_is_a_failure(supervisor: Supervisor, tmp_path: Path) -> None:
    """The time to start is a limit, also when the question itself hangs."""

    async def hangs() -> bool:
        await asyncio.sleep(60)
        return True

    child = Child("one", [sys.executable, "-c", SLEEP], tmp_path / "one.log", hangs, start_seconds=0.2)
    with pytest.raises(ChildFailed, match="was not ready after 0 s"):
        await supervisor.start(child)


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    """SIGKILL of the supervising process ends its children within seconds."""
    code = f"""
import asyncio, sys
from pathlib import Path
from kaito.local.supervisor import Child, Supervisor
async def yes(): return True
async def main():
    s = Supervisor()
    await s.start(Child("one", [sys.executable, "-c", {SLEEP!r}], Path({str(tmp_path / "log")!r}), yes))
    print(s.pid("one"), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while _alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_last_words_of_our_own_commands_become_the_error(tmp_path: Path) -> None:
    """A child that ended with an error and a next step is quoted; anything else shows its last lines."""
    child = _child(tmp_path, "apiserver", "")
    child.log.write_text("noise\nerror: the database is broken\n  next: move it away\n")
    found = explained(ChildFailed(child, "ended with exit code 1"))
    assert found.message == "apiserver: the database is broken"
    assert found.next_step == f"move it away; the whole log: {child.log}"

    child.log.write_text("Segmentation fault\n")
    assert "Segmentation fault" in explained(ChildFailed(child, "was ended by SIGSEGV")).message
    child.log.write_text("")
    assert "said nothing" in explained(ChildFailed(child, "was ended by SIGSEGV")).message


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with exit code 0"), (-9, "was ended by SIGKILL"), (-63, "was ended by signal 63")],
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    """Signals have their names."""
    assert ended(code) == words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_work_after_its_clean_up(number: signal.Signals) -> None:
    """The first signal cancels; a second one in the middle of the clean-up does not tear it down."""
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.1)
            cleaned = True

    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(Interrupted) as interrupted:
            await until_signal(work(), "stopping")
        os.kill(os.getpid(), number)  # a third one, while the process exits, changes nothing
    finally:
        for each, effect in usual.items():
            signal.signal(each, effect)

    assert cleaned
    assert interrupted.value.exit_code == 130


async def test_without_a_signal_the_work_goes_through() -> None:
    """Its result and its errors come out, and the signals' usual effects are back."""

    async def good() -> int:
        return 5

    async def bad() -> None:
        raise KeyError("x")

    before = signal.getsignal(signal.SIGTERM)
    assert await until_signal(good(), "") == 5
    with pytest.raises(KeyError):
        await until_signal(bad(), "")
    assert signal.getsignal(signal.SIGTERM) == before
