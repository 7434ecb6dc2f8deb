"""The folder of a cluster: one owner at a time, ports that stay, and nothing stale that blocks."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kaito.errors import CliError
from kaito.local import home as module
from kaito.local.cluster import Options, stop_running
from kaito.local.home import Ports, holder, owned, ports_of, read_kubeconfig, write_secret


def _numbers(ports: Ports) -> list[int]:
    return [getattr(ports, name) for name in Ports.__dataclass_fields__]


def test_ports_are_distinct_and_kept(tmp_path: Path) -> None:
    """Every process has a port of its own, and the next start uses the same ones."""
    first = ports_of(tmp_path)

    assert len(set(_numbers(first))) == len(_numbers(first))
    assert ports_of(tmp_path) == first


def test_a_kept_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    """A port of last time that somebody else listens on is left to them; the others stay."""
    first = ports_of(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first.kubelet))
        other.listen()
        second = ports_of(tmp_path)

    assert second.kubelet != first.kubelet
    assert second.apiserver == first.apiserver


@pytest.mark.parametrize(
    "stale",
    [
        "",
        "{",
        "[1, 2]",
        '"x"',
        '{"apiserver": "80"}',
        '{"apiserver": true, "kubelet": 0}',
        '{"kubelet": 70000}',
        '{"apiserver": 54321, "kubelet": 54321, "unknown": 1}',
    ],
)
def test_a_stale_or_damaged_ports_file_blocks_nothing(tmp_path: Path, stale: str) -> None:
    """Whatever is in ports.json, usable and distinct ports come out."""
    (tmp_path / "ports.json").write_text(stale)

    numbers = _numbers(ports_of(tmp_path))

    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < 65536 for number in numbers)
    assert sorted(json.loads((tmp_path / "ports.json").read_text())) == sorted(Ports.__dataclass_fields__)


def test_a_port_in_use_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """--port with a port that is taken says so and what to do, and writes no file."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CliError, match="is in use") as refused:
            ports_of(tmp_path, other.getsockname()[1])

    assert "--port" in refused.value.next_step
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    """A second cluster in the same folder is refused with the process that has it; afterwards it is free."""
    folder = tmp_path / "new" / "home"
    async with owned(folder):
        assert holder(folder) == os.getpid()
        with pytest.raises(CliError, match=f"process {os.getpid()}"):
            async with owned(folder):
                raise AssertionError("two owners")
    assert holder(folder) is None
    async with owned(folder):
        pass


async def test_a_stale_lock_file_blocks_nothing(tmp_path: Path) -> None:
    """A pid in the lock file of a process that is gone, or rubbish, means nothing: only the kernel's lock does."""
    for stale in ("1\n", "999999999\n", "rubbish", ""):
        (tmp_path / "lock").write_text(stale)
        assert holder(tmp_path) is None
        async with owned(tmp_path):
            assert holder(tmp_path) == os.getpid()


def test_stopping_what_does_not_run_kills_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a stale pid in the file, here our own, stop says that nothing runs and sends no signal."""
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    stop_running(Options.of(tmp_path))
    stop_running(Options.of(tmp_path / "missing"))

    assert capsys.readouterr().out.count("no cluster runs in") == 2


async def test_a_start_waits_for_the_processes_of_a_killed_cluster(tmp_path: Path) -> None:
    """While a child of the last owner lives, the folder is not handed over; when it ends, it is."""
    async with owned(tmp_path) as lock:
        left = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
    assert left.stdin is not None
    try:
        entered = asyncio.Event()

        async def enter() -> None:
            async with owned(tmp_path):
                entered.set()

        waiting = asyncio.create_task(enter())
        await asyncio.sleep(0.3)
        assert not entered.is_set()
        left.stdin.close()
        await asyncio.wait_for(waiting, 5)
    finally:
        left.kill()
        left.wait()


async def test_processes_that_never_end_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If they do not end in time, the error says how to find them."""
    monkeypatch.setattr(module, "_LEFTOVER_SECONDS", 0.0)
    async with owned(tmp_path) as lock:
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], pass_fds=(lock,))
    try:
        with pytest.raises(CliError) as refused:
            async with owned(tmp_path):
                pass
        assert "fuser" in refused.value.next_step
    finally:
        left.kill()
        left.wait()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file where a folder belongs, and a file system that takes none, end as one clear error."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/kaito")):
        with pytest.raises(CliError, match="cannot be used") as refused:
            async with owned(place):
                pass
        assert "--home" in refused.value.next_step


def test_the_token_is_private_and_kept(tmp_path: Path) -> None:
    """A token is made once, readable by its owner only; a truncated one is replaced."""
    path = tmp_path / "token"
    write_secret(path)
    first = path.read_text()
    write_secret(path)

    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("x")
    write_secret(path)
    assert len(path.read_text()) >= 32


@pytest.mark.parametrize("text", ["", "[", "clusters: []", "clusters: [{cluster: {server: x}}]", "- 1"])
def test_a_damaged_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    """A kubeconfig of another shape is named, with what to do."""
    (tmp_path / "kubeconfig").write_text(text)

    with pytest.raises(CliError, match="is not a kubeconfig of `kaito up`"):
        read_kubeconfig(tmp_path / "kubeconfig")


def test_weights_of_an_unknown_preset_or_without_a_model_are_refused(tmp_path: Path) -> None:
    """A preset that nobody knows and a folder without a config.json are named before anything starts."""
    with pytest.raises(CliError, match="phi-3-mini-4k"):
        Options.of(None, weights=[f"phi-3-mini-4k={tmp_path}"])
    with pytest.raises(CliError, match=r"no config\.json"):
        Options.of(None, weights=[f"phi-3-mini-4k-instruct={tmp_path}"])
    (tmp_path / "config.json").write_text("{}")

    assert Options.of(None, weights=[f"phi-3-mini-4k-instruct={tmp_path}"]).weights


@pytest.mark.parametrize("entry", ["", "phi", "=", "phi=", "=/", "phi=/does/not/exist"])
def test_weights_that_are_not_there_are_refused(entry: str) -> None:
    """--weights must name a preset and a folder that exists."""
    with pytest.raises(CliError) as refused:
        Options.of(None, weights=[entry])

    assert refused.value.exit_code == 2


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
def test_a_delay_that_is_no_time_is_refused(delay: float) -> None:
    """--node-delay must be a number of seconds."""
    with pytest.raises(CliError):
        Options.of(None, node_delay=delay)
