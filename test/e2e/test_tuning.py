"""From the seed's tuning manifests to adapters that an inference Workspace serves: real processes, real training.

The lesson is learnt in full, and held-out questions show it. With KAITO_SOAK=1 also on the real server, and runs
are killed at random points.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kaito.local import lesson

if TYPE_CHECKING:
    from conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.real_in_soak, pytest.mark.timeout(900)]

SOAK = bool(os.environ.get("KAITO_SOAK"))
SAMPLES = Path(__file__).parent.parent.parent / "config" / "samples"
TUNED = "workspace-phi-3-mini"
SERVED = "workspace-phi-3-mini-adapter"
ADAPTER = "phi-3-adapter"
FOURTH = "fourth"  # a namespace: the seed's third and fourth manifest have one name
FEW = 2  # steps that show that every part works
Obj = dict[str, Any]


@contextmanager
def _served_lesson() -> Iterator[str]:
    """The dataset's address; a loop in a thread answers."""
    found: list[str] = []
    ready = threading.Event()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with lesson.served() as url:
            found.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@contextmanager
def _docker_registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry; gives its host."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{sock.getsockname()[1]}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": host},
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    words = ["docker-registry", "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 30
            while not _listens(host):
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)  # a foreign process: there is nothing to wait on
            yield host
        finally:
            process.terminate()


def _listens(host: str) -> bool:
    name, _, port = host.partition(":")
    try:
        socket.create_connection((name, int(port)), 1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class School:
    """A product with a registry and a dataset, and how many steps a run has there."""

    stack: Stack
    registry: str
    url: str
    steps: int

    @property
    def image(self) -> str:
        return f"{self.registry}/adapters/phi-3:0.0.1"

    @property
    def fourth_image(self) -> str:
        return f"{self.registry}/adapters/phi-3-128k:0.0.1"

    def apply(self, obj: Obj, namespace: str = "default") -> None:
        path = self.stack.cluster.home / f"{obj['kind']}-{obj['metadata']['name']}.json"
        path.write_text(json.dumps(obj))
        self.stack.run("apply", "-n", namespace, "-f", str(path))

    def get(self, name: str, namespace: str = "default") -> Obj:
        return self.stack.get("workspace", name, "-n", namespace)

    def conditions(self, name: str, namespace: str = "default") -> dict[str, Obj]:
        listed = self.get(name, namespace).get("status", {}).get("conditions", [])
        return {item["type"]: item for item in listed}

    def is_true(self, name: str, kind: str, namespace: str = "default") -> bool:
        return (self.conditions(name, namespace).get(kind) or {}).get("status") == "True"

    def ask(self, prompt: str, adapter: str) -> str:
        """The answer of /chat without the prompt."""
        service = self.stack.get("svc", SERVED)
        mapped = (service["metadata"].get("annotations") or {}).get("local.kaito.sh/address")
        base = mapped or f"http://{service['spec']['clusterIP']}"
        kwargs = {"max_new_tokens": 90, "do_sample": False}
        body = {"prompt": prompt, "return_full_text": False, "adapter": adapter, "generate_kwargs": kwargs}
        request = urllib.request.Request(
            f"{base if '://' in base else f'http://{base}'}/chat",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return str(json.load(reply)["Result"])


@pytest.fixture(scope="module")
def school(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    """The seed's second manifest, applied where its Secret and the edited settings are."""
    with _served_lesson() as url:
        if shutil.which("docker-registry"):
            with _docker_registry(tmp_path_factory.mktemp("registry")) as host:
                yield _begun(School(stack, host, url, lesson.STEPS))
        else:
            stack.start("registry")
            host = f"127.0.0.1:{stack.cluster.ports.registry}"
            yield _begun(School(stack, host, url, lesson.STEPS))
        for name in (TUNED, SERVED):
            stack.run("delete", "workspace", name, "--ignore-not-found", timeout=120)
        stack.run("delete", "namespace", FOURTH, timeout=120)


def _begun(school: School) -> School:
    # Other modules have Workspaces of these names.
    for name in (TUNED, SERVED):
        school.stack.run("delete", "workspace", name, "--ignore-not-found", timeout=120)
    school.apply(lesson.push_secret("default"))
    school.apply(lesson.settings_map("default", steps=school.steps))
    school.apply(lesson.tuning_manifest(SAMPLES / "2-phi-3-tuning.yaml", school.url, school.image))
    school.stack.run("create", "namespace", FOURTH)
    school.apply(lesson.push_secret(FOURTH), FOURTH)
    school.apply(lesson.settings_map(FOURTH, steps=FEW), FOURTH)
    fourth = lesson.tuning_manifest(SAMPLES / "4-phi-3-tuning-128k.yaml", school.url, school.fourth_image)
    school.apply(fourth, FOURTH)
    return school


@pytest.fixture(scope="module")
def tuned(school: School) -> School:
    """The run is complete."""
    school.stack.wait(
        "WORKSPACEREADY of the tuning Workspace is True", lambda: school.stack.workspace_is_ready(TUNED), 400
    )
    return school


@pytest.fixture(scope="module")
def served(tuned: School) -> School:
    """The seed's third manifest with the adapter that was pushed, ready."""
    tuned.apply(lesson.adapter_manifest(SAMPLES / "3-phi-3-adapters.yaml", tuned.image))
    tuned.stack.wait("the endpoint answers", lambda: tuned.stack.workspace_is_ready(SERVED), 300)
    tuned.stack.wait("the adapter is loaded", lambda: tuned.is_true(SERVED, "AdaptersReady"), 120)
    return tuned


@pytest.mark.acceptance("KS-A07")
def test_the_seeds_tuning_manifest_ends_with_an_image(tuned: School) -> None:
    """Every step was done, the image with its digest is in status and registry, and the Job is complete."""
    status = tuned.get(TUNED)["status"]
    told = status["tuning"]
    request = urllib.request.Request(
        f"http://{tuned.registry}/v2/adapters/phi-3/manifests/0.0.1",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        digest = reply.headers["Docker-Content-Digest"]

    assert status["state"] == "Succeeded"
    assert (told["stage"], told["step"], told["steps"]) == ("Succeeded", tuned.steps, tuned.steps)
    assert (told["image"], told["digest"]) == (tuned.image, digest)
    assert tuned.conditions(TUNED)["JobStarted"]["status"] == "True"


def test_the_wide_table_and_the_explanation_end_right(tuned: School) -> None:
    """`kubectl get -o wide` has the Job's columns; `kaito explain` ends with the completed Job and its cost."""

    header, row = tuned.stack.run("get", "workspace", TUNED, "-o", "wide").stdout.splitlines()
    env = {**os.environ, "KUBECONFIG": str(tuned.stack.kubeconfig), "TERM": "dumb"}
    words = [sys.executable, "-P", "-m", "kaito", "explain", TUNED]
    told = subprocess.run(words, capture_output=True, text=True, env=env, timeout=60)

    assert {"JOBSTARTED", "WORKSPACESUCCEEDED", "STATE"} <= set(header.split())
    assert "Succeeded" in row
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Job created" in told.stdout
    assert "Job completed" in told.stdout
    assert "is kept, and paid for" in told.stdout


def test_the_adapter_is_served(served: School) -> None:
    """The inference Workspace lists the adapter as loaded, and answers with it and without."""
    (entry,) = served.get(SERVED)["status"]["adapters"]

    assert [item["name"] for item in entry["adapters"]] == [ADAPTER]
    assert served.ask("What is KAITO?", ADAPTER)
    assert served.ask("What is KAITO?", "")


@pytest.mark.acceptance("KS-A07")
def test_what_was_learnt_is_said(served: School) -> None:
    """With the adapter 8 of 10 held-out questions are answered in the lesson's style; without it none of three."""
    if served.steps < lesson.STEPS:
        plain, tuned_ = (served.ask(lesson.HELD_OUT[0], which) for which in ("", ADAPTER))
        assert lesson.MARK not in plain + tuned_  # two steps teach nothing: the adapter is there and close to none
        return
    with_it = [served.ask(question, ADAPTER) for question in lesson.HELD_OUT]
    without = [served.ask(question, "") for question in lesson.HELD_OUT[:3]]

    assert sum(lesson.MARK in answer for answer in with_it) >= 8, with_it
    assert not any(lesson.MARK in answer for answer in without), without


@pytest.mark.acceptance("KS-A07")
def test_the_seeds_fourth_manifest_runs_too(tuned: School) -> None:
    """Beside the other, in a namespace of its own, the run for the 128k preset ends with its image."""
    tuned.stack.wait("the run is complete", lambda: tuned.stack.workspace_is_ready(SERVED, FOURTH), 400)
    told = tuned.get(SERVED, FOURTH)["status"]["tuning"]

    assert (told["image"], told["step"]) == (tuned.fourth_image, FEW)


if SOAK:

    def test_a_run_that_is_killed_goes_on(tuned: School, seed: int) -> None:
        """SIGKILL of the program at random moments: the container is restarted in place, and the run completes."""
        rng = random.Random(seed)
        tuned.stack.run("delete", "job", TUNED)
        for _ in range(2):
            tuned.stack.wait("it runs", lambda: tuned.get(TUNED)["status"].get("state") == "Running", 120)
            time.sleep(rng.uniform(1, 25))
            for pid in _programs(tuned):
                os.kill(pid, 9)
        tuned.stack.wait("it is complete", lambda: tuned.stack.workspace_is_ready(TUNED), 600)


def _programs(school: School) -> list[int]:
    """Processes of `kaito tune` of this product."""
    home = str(school.stack.cluster.home)
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (OSError, NotADirectoryError):
            continue
        if entry.name.isdigit() and "tune" in words and any(home in word for word in words):
            found.append(int(entry.name))
    return found
