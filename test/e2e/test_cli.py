"""The `kaito` command as a person uses it: beside kubectl, on a cluster of its own, and interrupted."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SAMPLE = Path(__file__).parent.parent.parent / "config" / "samples" / "1-phi-3-inference.yaml"
_POINTS = 12 if os.environ.get("KAITO_SOAK") else 2
_SPAN = 9.0  # seconds over which an interruption is sampled: from the first import to the engine's start
_GONE = 60.0  # seconds that the processes of a killed cluster may take; about 20 are seen
_AGE = re.compile(r"(\d+[smhd])+")
_ENGINE_GONE = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
def without_vllm(cls, name, *rest, **more):
    return None if name.partition(".")[0] == "vllm" else find(name, *rest, **more)
machinery.PathFinder.find_spec = classmethod(without_vllm)
"""


def _argv(*args: str) -> list[str]:
    return [sys.executable, "-P", "-m", "kaito", *args]


def _kaito(kubeconfig: Path, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "TERM": "dumb"}
    return subprocess.run(_argv(*args), capture_output=True, text=True, env=env, input=stdin or "", timeout=60)


def _config_map(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def _masked(table: str) -> list[list[str]]:
    return [[_AGE.sub("AGE", cell) for cell in line.split()] for line in table.splitlines()]


def _until(what: str, condition: Callable[[], bool], seconds: float) -> float:
    """Wait; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.05)
    return time.monotonic() - began


# ------------------------------------------------------------------ beside kubectl


@pytest.mark.parametrize(
    "args", [["ns"], ["nodes"], ["svc", "-A"], ["svc", "-o", "wide"], ["ns", "default"], ["ns", "-o", "name"]]
)
def test_get_prints_kubectls_table(stack: Stack, args: list[str]) -> None:
    """The same header and cells as kubectl, whatever the age was when each asked."""
    mine = _kaito(stack.kubeconfig, "get", *args)

    assert mine.returncode == 0, mine.stderr
    assert _masked(mine.stdout) == _masked(stack.run("get", *args).stdout)


def test_get_prints_kubectls_objects(stack: Stack) -> None:
    """-o json and -o yaml are the object, or a List of complete objects, without managedFields."""
    import yaml

    def bare(text: str) -> list[dict[str, object]]:
        found = yaml.safe_load(text)
        items = found["items"] if found["kind"] == "List" else [found]
        for item in items:
            item["metadata"].pop("managedFields", None)
        return list(items)

    for args in (["ns", "default", "-o", "json"], ["svc", "-o", "yaml"], ["ns", "-o", "json"]):
        mine = _kaito(stack.kubeconfig, "get", *args).stdout
        assert "managedFields" not in mine
        assert bare(mine) == bare(stack.run("get", *args).stdout)


@pytest.mark.parametrize(
    "args", [["get", "workspace", "nope"], ["get", "nodes/nope"], ["delete", "pod", "nope"], ["get", "widgets"]]
)
def test_a_refusal_reads_like_kubectls(stack: Stack, args: list[str]) -> None:
    """What is not there, object or kind, is refused with kubectl's first line and exit code."""
    mine, theirs = _kaito(stack.kubeconfig, *args), stack.run(*args, check=False)

    assert mine.returncode == theirs.returncode == 1
    assert mine.stderr.splitlines()[0] == theirs.stderr.splitlines()[0]


def test_apply_creates_changes_and_leaves(stack: Stack) -> None:
    """Applied objects are created, configured or unchanged; delete waits until they are gone."""

    def apply(text: str) -> str:
        done = _kaito(stack.kubeconfig, "apply", "-f", "-", stdin=text)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert apply(_config_map("cli", a="1")) == "configmap/cli created"
    assert apply(_config_map("cli", a="1")) == "configmap/cli unchanged"
    assert apply(_config_map("cli", a="2")) == "configmap/cli configured"
    assert stack.get("cm", "cli")["data"] == {"a": "2"}
    assert _kaito(stack.kubeconfig, "delete", "cm/cli").stdout == "configmap/cli deleted\n"
    assert stack.run("get", "cm", "cli", check=False).returncode == 1


def test_one_mistake_leaves_all_objects_as_they_were(stack: Stack) -> None:
    """Where the server refuses the second of two objects, the first is not created either."""
    text = f"{_config_map('fine')}\n---\n{_config_map('Not_A_Name')}"
    done = _kaito(stack.kubeconfig, "apply", "-f", "-", stdin=text)

    assert done.returncode == 1
    assert "Not_A_Name" in done.stderr
    assert "nothing was changed" in done.stderr
    assert stack.run("get", "cm", "fine", check=False).returncode == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("phi-3-mini-4k-instruct", "phi-3-mini", "did you mean phi-3-mini-4k-instruct?"),
        ("instanceType", "instancetype", "did you mean instanceType?"),
        ("kind: Workspace", "kind: Workspce", "did you mean Workspace?"),
    ],
)
def test_a_typo_in_a_workspace_is_named(stack: Stack, old: str, new: str, said: str) -> None:
    """An unknown preset, field or kind is refused with what was probably meant, and nothing is created."""
    text = SAMPLE.read_text()
    assert old in text
    name = f"typo-{new.split()[-1].lower()}"
    text = text.replace("name: workspace-phi-3-mini", f"name: {name}").replace(old, new)
    done = _kaito(stack.kubeconfig, "apply", "-f", "-", stdin=text)

    assert done.returncode == 1
    assert said in done.stderr
    assert stack.run("get", "workspace", name, check=False).returncode == 1


def test_two_manifests_of_one_name_are_not_merged(stack: Stack) -> None:
    """The samples share names in pairs; applied together, or one over the other, they are refused unchanged."""
    stack.run("create", "namespace", "pairs")
    samples = Path(__file__).parent.parent.parent / "config" / "samples"
    together = _kaito(stack.kubeconfig, "apply", "-n", "pairs", "-f", str(samples))
    tuning = _kaito(stack.kubeconfig, "apply", "-n", "pairs", "-f", str(samples / "2-phi-3-tuning.yaml"))
    before = stack.get("workspace", "workspace-phi-3-mini", "-n", "pairs")
    over = _kaito(stack.kubeconfig, "apply", "-n", "pairs", "-f", str(samples / "1-phi-3-inference.yaml"))
    after = stack.get("workspace", "workspace-phi-3-mini", "-n", "pairs")
    stack.run("delete", "namespace", "pairs")

    assert (together.returncode, tuning.returncode, over.returncode) == (1, 0, 1), (together, tuning, over)
    assert "two of the objects are workspace.kaito.sh/workspace-phi-3-mini" in together.stderr
    # A server of 1.20 leaves nulls where apply takes fields away, and refuses those before the rule is asked.
    assert re.search(r"cannot be toggled once set|Invalid value: \"null\"", over.stderr), over.stderr
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_watch_shows_what_changes(stack: Stack) -> None:
    """get -w prints the table, then a row when an object appears, changes or goes; Ctrl-C ends it with 130."""
    label = "cli-watch=yes"
    env = {**os.environ, "KUBECONFIG": str(stack.kubeconfig), "PYTHONUNBUFFERED": "1"}
    stack.run("create", "cm", "watched")
    stack.run("label", "cm", "watched", label)
    process = subprocess.Popen(
        _argv("get", "cm", "-w", "-l", label), stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    assert process.stdout is not None
    lines = process.stdout
    try:
        assert lines.readline().split() == ["NAME", "DATA", "AGE"]
        assert lines.readline().split()[:2] == ["watched", "0"]
        time.sleep(0.5)  # until the watch has begun; a change before it would be part of the first table
        stack.run("patch", "cm", "watched", "-p", '{"data":{"a":"b"}}')
        assert lines.readline().split()[:2] == ["watched", "1"]
        stack.run("delete", "cm", "watched")
        assert lines.readline().split()[:2] == ["watched", "1"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
        lines.close()


def test_a_missing_engine_is_explained_in_the_workspace(stack: Stack, tmp_path: Path) -> None:
    """Where vLLM cannot be imported, the Workspace's condition names the command that installs it."""
    (tmp_path / "sitecustomize.py").write_text(_ENGINE_GONE)
    text = (
        SAMPLE.read_text().replace("workspace-phi-3-mini", "no-engine").replace("apps: phi-3", "apps: no-engine")
    )
    (tmp_path / "workspace.yaml").write_text(text)
    stack.run("apply", "-f", str(tmp_path / "workspace.yaml"))
    try:
        stack.wait("a Deployment", lambda: bool(stack.get("deploy", "no-engine", "--ignore-not-found")), 60)
        stack.run("set", "env", "deploy/no-engine", f"PYTHONPATH={tmp_path}")

        def explained() -> bool:
            conditions = stack.get("workspace", "no-engine").get("status", {}).get("conditions", [])
            return any(
                "pip install 'kaito[cpu]'" in c["message"] for c in conditions if c["type"] == "WorkspaceReady"
            )

        _until("the condition names the command", explained, 30)
    finally:
        stack.run("delete", "workspace", "no-engine", "--wait=false")


# ------------------------------------------------------------------ a cluster of its own


def _processes(marker: str) -> dict[int, str]:
    """Living processes that were given this text, in their command line or environment."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes()
            given = words + b"\0" + (folder / "environ").read_bytes()
        except OSError:
            continue  # it ended, or belongs to somebody else
        if marker.encode() in given:
            found[int(folder.name)] = words.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


@contextmanager
def _cluster(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`kaito up` in a folder, ready; and what it has said."""
    log = home.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            _argv("up", "--home", str(home), "--node-delay", "0.2"),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    try:
        _until("the cluster is ready", lambda: "is ready" in log.read_text() or process.poll() is not None, 60)
        yield process, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)


def test_a_clusters_folder(tmp_path: Path) -> None:
    """State outlives `kaito down`; a second `up` is refused; a damaged database is explained and kept."""
    home = tmp_path / "home"
    kubeconfig = home / "kubeconfig"
    with _cluster(home) as (process, said):
        assert f"export KUBECONFIG={kubeconfig}" in said
        assert _kaito(kubeconfig, "apply", "-f", str(SAMPLE)).returncode == 0
        again = _kaito(kubeconfig, "up", "--home", str(home))
        assert again.returncode == 1
        assert f"a cluster already runs in {home} (process {process.pid})" in again.stderr
        assert _kaito(kubeconfig, "down", "--home", str(home)).returncode == 0
        assert process.wait(5) == 0
    _until("no process is left", lambda: not _processes(str(home)), 5)

    with _cluster(home) as (process, _):
        names = _kaito(kubeconfig, "get", "workspace", "-o", "name").stdout
        assert names == "workspace.kaito.sh/workspace-phi-3-mini\n"
        process.kill()
        process.wait()
    _until("no process is left after SIGKILL", lambda: not _processes(str(home)), _GONE)

    (home / "lock").write_text("1\n")
    (home / "ports.json").write_text("[")
    database = next((home / "apiserver").glob("*.db"))
    whole = database.read_bytes()
    database.write_bytes(b"not a database" * 1000)
    with _cluster(home) as (process, said):
        assert process.wait(30) == 1
    said = home.with_suffix(".log").read_text()
    assert str(database) in said
    assert "next: " in said
    assert "Traceback" not in said
    assert len(database.read_bytes()) == 14000
    database.write_bytes(whole)


def test_interrupting_the_demo_leaves_nothing(seed: int, tmp_path: Path) -> None:
    """SIGINT, SIGTERM or SIGHUP at any moment, once or twice: exit code 130, no process, folder or traceback."""
    rng = random.Random(seed)
    for point in range(_POINTS):
        moment = rng.uniform(0, _SPAN)
        number = rng.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        twice = rng.random() < 0.5
        folder = tmp_path / str(point)
        folder.mkdir()
        env = {**os.environ, "TMPDIR": str(folder), "TERM": "dumb"}
        process = subprocess.Popen(
            _argv("demo", "--node-delay", "0.5"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=env,
            start_new_session=True,
        )
        time.sleep(moment)  # the sampled point, not a wait for anything
        os.killpg(process.pid, number)
        if twice:
            time.sleep(rng.uniform(0, 1))
            if process.poll() is None:
                os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
        case = f"{number.name}{' twice' if twice else ''} after {moment:.2f} s (--seed {seed}): {said}"
        # Before Python has begun to run the command, a signal has its usual effect; nothing has been made by then.
        assert process.returncode in ((130, -number) if moment < 1 else (130,)), case
        assert "Traceback" not in said or moment < 1, case
        _until(f"{case}\nleft: {_processes(str(folder))}", lambda f=folder: not _processes(str(f)), 5)
        assert list(folder.iterdir()) == [], case


def test_the_demo_needs_neither_kubectl_nor_curl(tmp_path: Path) -> None:
    """With an empty PATH the demo gets as far as the model's start, speaking of kaito instead of kubectl."""
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "TERM": "dumb"}
    done = subprocess.run(
        _argv("demo", "--timeout", "3", "--node-delay", "0.2"),
        capture_output=True,
        text=True,
        env=env,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )

    assert done.returncode == 3, done.stderr
    assert re.search(r"^\$ \S*kaito apply -f", done.stderr, re.MULTILINE)
    assert "was not ready after 3 s: Pod" in done.stderr
    assert _processes(str(tmp_path)) == {}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("kaito-demo")] == []
