"""The server as a process: killed in the middle of a storm, started twice, stopped, misconfigured."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kaito.local.cluster import read_kubeconfig
from manager.client import Client, WatchEvent
from manager.config import RestConfig
from manager.errors import ApiError, ConnectionFailed
from manager.resources import CONFIGMAPS

START_SECONDS = 30.0


def command(folder: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "kaito",
        "apiserver",
        f"--data-dir={folder / 'data'}",
        f"--kubeconfig-out={folder / 'kubeconfig'}",
        *more,
    ]


@contextmanager
def started(folder: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process, answering; killed at the end if it still runs."""
    (folder / "kubeconfig").unlink(missing_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command(folder, "--port=0", "--no-controllers", *more), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "kubeconfig").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text())
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


def config_of(folder: Path) -> RestConfig:
    return read_kubeconfig(folder / "kubeconfig")


async def storm(config: RestConfig, process: subprocess.Popen[bytes]) -> dict[str, tuple[int, str]]:
    """Write from several tasks, kill the server in the middle, return what had been acknowledged."""
    acknowledged: dict[str, tuple[int, str]] = {}

    async def writer(number: int, client: Client) -> None:
        for step in range(100_000):
            name = f"w{number}-{step // 3}"
            try:
                if step % 3 == 0:
                    obj = await client.create(
                        CONFIGMAPS, {"metadata": {"name": name}, "data": {"v": str(step)}}, namespace="default"
                    )
                else:
                    obj = await client.patch(CONFIGMAPS, name, {"data": {"v": str(step)}}, namespace="default")
            except (ConnectionFailed, ApiError):
                return
            acknowledged[name] = (int(obj["metadata"]["resourceVersion"]), obj["data"]["v"])
            if len(acknowledged) == 150 and process.poll() is None:
                process.kill()

    async with Client(config) as client:
        await asyncio.gather(*(writer(number, client) for number in range(8)))
    return acknowledged


async def collect(watch: AsyncIterator[WatchEvent], into: list[WatchEvent]) -> None:
    try:
        async for event in watch:
            if event.type != "BOOKMARK":
                into.append(event)  # noqa: PERF401 - what came before the break counts
    except ConnectionFailed:
        return


async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """After SIGKILL amid writes, every acknowledged state is there with its revision or a later one, revisions
    go on rising, and a watch goes on from its last revision without a gap or a repeat."""
    seen: list[WatchEvent] = []
    with started(tmp_path) as process:
        config = config_of(tmp_path)
        async with Client(config) as client:
            start = (await client.list(CONFIGMAPS, "default")).resource_version
            watching = asyncio.create_task(
                collect(client.watch(CONFIGMAPS, "default", resource_version=start), seen)
            )
            acknowledged = await storm(config, process)
            await watching
    last = seen[-1].object["metadata"]["resourceVersion"] if seen else start

    with started(tmp_path):
        assert config_of(tmp_path) == config  # same port, same credentials
        async with Client(config) as client:
            listed = await client.list(CONFIGMAPS, "default")
            now = {o["metadata"]["name"]: o for o in listed.items}
            after = await client.create(CONFIGMAPS, {"metadata": {"name": "after"}}, namespace="default")
            resumed: list[WatchEvent] = []
            watch = client.watch(CONFIGMAPS, "default", resource_version=last)
            async with asyncio.timeout(10):
                async for event in watch:
                    resumed.append(event)
                    if event.object["metadata"]["name"] == "after":
                        break
            await watch.aclose()  # type: ignore[attr-defined]

    assert len(acknowledged) >= 150
    for name, (revision, value) in acknowledged.items():
        found = now[name]
        assert int(found["metadata"]["resourceVersion"]) >= revision
        # at most the one write that was under way may have come after the last acknowledged one
        assert int(found["data"]["v"]) - int(value) in (0, 1), name
    newest = max(revision for revision, _ in acknowledged.values())
    assert int(after["metadata"]["resourceVersion"]) > newest
    revisions = [int(e.object["metadata"]["resourceVersion"]) for e in seen + resumed if e.type != "BOOKMARK"]
    assert revisions == list(range(revisions[0], revisions[-1] + 1))  # nobody else writes: every number once


async def test_a_stop_is_clean_and_quick(tmp_path: Path) -> None:
    """SIGTERM ends the process with code 0 within two seconds, with a watch open."""
    with started(tmp_path) as process:
        async with Client(config_of(tmp_path)) as client:
            seen: list[WatchEvent] = []
            watching = asyncio.create_task(collect(client.watch(CONFIGMAPS, "default"), seen))
            await asyncio.sleep(0.2)
            begun = time.monotonic()
            process.terminate()
            code = await asyncio.to_thread(process.wait, 10)
            took = time.monotonic() - begun
            await watching

    assert code == 0
    assert took < 2.0


def failure(folder: Path, *more: str) -> str:
    done = subprocess.run(
        command(folder, "--no-controllers", *more),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    """A second server on the same folder is refused and told who has it; a leftover lock is no hindrance."""
    with started(tmp_path) as process:
        message = failure(tmp_path, "--port=0")
        assert f"in use by process {process.pid}" in message
        assert "--data-dir" in message
    with started(tmp_path):
        pass


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """A taken port is an error that says what to do, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = failure(tmp_path, f"--port={port}")

    assert f"port {port}" in message
    assert "--port" in message


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    """A file that is no database is an error that says how to go on."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "state.db").write_bytes(b"x" * 5000)
    message = failure(tmp_path, "--port=0")

    assert "state.db" in message
    assert "mv " in message


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A data folder that cannot be made is an error that says so."""
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "kaito", "apiserver", f"--data-dir={tmp_path / 'file' / 'data'}"],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )

    assert done.returncode == 1
    assert "choose another" in " ".join(done.stderr.split())


@pytest.mark.parametrize("stale", ["lock", "port"])
async def test_stale_files_of_a_dead_process_do_no_harm(tmp_path: Path, stale: str) -> None:
    """Whatever a killed process left in its folder, the next start serves."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / stale).write_text("99999\n")
    with started(tmp_path):
        async with Client(config_of(tmp_path)) as client:
            assert (await client.text("/readyz")) == "ok"
