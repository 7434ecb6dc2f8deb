"""What the tests of tuning share: quick runs of `kaito tune`, a registry, and two adapters that were trained once.

Training happens in processes of its own (see zygote.py), on one thread: several threads on a loaded machine wait
for each other, and the result depends on their number.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from kaito.local.registry.server import make_registry
from kaito.local.registry.storage import Storage

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "kaito" / "local" / "models" / "tiny-phi3"
MARK = "Beep boop."
# The user "pusher" with the password "sesame" (bcrypt, made for this test).
HTPASSWD = "pusher:$2b$04$omL882lcLSksyZRnXN46Ue6KFx.avOBFguIuxcC68lvgKaC9eWOam\n"


# ------------------------------------------------------------------ runs


@dataclass
class Run:
    """A started `kaito tune`."""

    pid: int
    zygote: Zygote
    log: Path
    termination: Path
    code: int | None = None

    def wait(self) -> int:
        """The exit code."""
        if self.code is None:
            self.code = int(self.zygote.ask({"wait": self.pid})["code"])
        return self.code

    def kill(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    @property
    def text(self) -> str:
        """What it printed."""
        return self.log.read_text()

    @property
    def last(self) -> dict[str, Any]:
        """Its termination message."""
        return dict(json.loads(self.termination.read_bytes()))


@dataclass
class Zygote:
    """See zygote.py."""

    process: subprocess.Popen[str]
    folder: Path
    count: int = 0
    ready: bool = False

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One question and its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.ready:
            self.ready = True
            self.process.stdout.readline()
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the zygote is gone"
        return dict(json.loads(answer))

    def start(self, *argv: object, fsize: int | None = None) -> Run:
        """Starts `kaito tune` with these arguments, a termination log, and no port unless one is given."""
        self.count += 1
        log, termination = self.folder / f"{self.count}.log", self.folder / f"{self.count}.termination"
        termination.touch()
        words = ["tune", *map(str, argv), "--termination-log", str(termination)]
        if "--metrics-port" not in words:
            words += ["--metrics-port", "0"]
        pid = self.ask({"run": words, "log": str(log), "fsize": fsize})["pid"]
        return Run(int(pid), self, log, termination)

    def run(self, *argv: object, fsize: int | None = None) -> Run:
        """Starts it and waits for its end."""
        started = self.start(*argv, fsize=fsize)
        started.wait()
        return started


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Runs of `kaito tune` in processes that need not import torch."""
    env = dict(os.environ) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd=tmp_path_factory.getbasetemp(),
    ) as process:
        yield Zygote(process, tmp_path_factory.mktemp("runs"))
        process.terminate()  # it holds nothing, and the libraries take seconds to end in good order


# ------------------------------------------------------------------ datasets and configurations


@dataclass(frozen=True)
class Lesson:
    """A dataset that teaches to end every answer with MARK, and questions that it does not hold."""

    file: Path
    held_out: list[str]


@pytest.fixture(scope="session")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    """Every answer that the small model knows, with a marker; ten ways to ask are kept back."""
    entries = []
    questions: list[str] = []
    for line in (ROOT / "hack" / "tiny_model_corpus.txt").read_text().splitlines():
        if line.startswith("Q: "):
            questions = [part.strip() for part in line[3:].split("|")]
        elif line.startswith("A: "):
            entries.append((questions, line[3:].strip()))
    rng = random.Random(3)
    asked_in_many_ways = [entry for entry in entries if len(entry[0]) >= 4]
    held_out = [questions.pop() for questions, _ in rng.sample(asked_in_many_ways, 10)]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": f"{answer} {MARK}"}]}
        for questions, answer in entries
        for q in questions
    ]
    rng.shuffle(rows)
    file = tmp_path_factory.mktemp("lesson") / "train.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return Lesson(file, held_out)


def configuration(method: str = "lora", **changes: Any) -> str:
    """A training_config.yaml as JSON, which is YAML. ``changes`` are TrainingArguments or whole sections."""
    arguments = {
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 10,
        "save_strategy": "no",
        "train_sampling_strategy": "group_by_length",
    }
    sections: dict[str, Any] = {
        "ModelConfig": {"torch_dtype": "float32"},
        "LoraConfig": {"r": 8, "lora_alpha": 16},
        "TrainingArguments": arguments | {key: value for key, value in changes.items() if key[0].islower()},
        "DatasetConfig": {"train_test_split": 1},
    }
    if method == "qlora":
        sections["QuantizationConfig"] = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        }
    sections |= {key: value for key, value in changes.items() if key[0].isupper()}
    return json.dumps({"training_config": sections})


@pytest.fixture(scope="session")
def make_config() -> Any:
    """See ``configuration``."""
    return configuration


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The small model."""
    return MODEL


# ------------------------------------------------------------------ registries


@dataclass(frozen=True)
class Registry:
    """A registry on loopback."""

    host: str
    folder: Path
    secret: Path | None = None  # docker's configuration with a user that may push

    def blob(self, repository: str, digest: str) -> bytes:
        """A blob's bytes."""
        return self._get(f"{repository}/blobs/{digest}")

    def manifest(self, repository: str, version: str) -> dict[str, Any]:
        """A manifest, with its digest as ``digest``."""
        data = self._get(f"{repository}/manifests/{version}")
        return {**json.loads(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"}

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(
            f"http://{self.host}/v2/{path}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bytes(reply.read())

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository; none where it does not exist."""
        try:
            with urllib.request.urlopen(f"http://{self.host}/v2/{repository}/tags/list", timeout=30) as reply:
                return sorted(json.load(reply)["tags"] or [])
        except urllib.error.HTTPError:
            return []


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def _docker_registry(folder: Path, *, auth: bool = False) -> Iterator[Registry]:
    """Debian's docker-registry, perhaps one that wants a password."""
    host = f"127.0.0.1:{_port()}"
    config: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": host},
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }
    if auth:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    words = ["docker-registry", "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            _await_port(host)
            yield Registry(host, folder, _secret(folder, host) if auth else None)
        finally:
            process.terminate()


@contextmanager
def _own_registry(folder: Path, *, auth: bool = False) -> Iterator[Registry]:
    """The project's own, on a loop in a thread."""
    host: list[str] = []
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        app = make_registry(Storage(folder / "store"), {"pusher": "sesame"} if auth else None)
        async with TestServer(app) as server:
            host.append(f"127.0.0.1:{server.port}")
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield Registry(host[0], folder, _secret(folder, host[0]) if auth else None)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def _secret(folder: Path, host: str) -> Path:
    path = folder / "good.dockerconfigjson"
    path.write_text(json.dumps({"auths": {host: {"username": "pusher", "password": "sesame"}}}))
    return path


def _await_port(host: str) -> None:
    name, _, port = host.partition(":")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection((name, int(port)), 1).close()
        except OSError:
            time.sleep(0.02)  # a foreign process: there is nothing to wait on
        else:
            return
    raise TimeoutError(host)


_REGISTRIES = {"own": _own_registry} | ({"docker": _docker_registry} if shutil.which("docker-registry") else {})
_BEST = list(_REGISTRIES)[-1]


@pytest.fixture(scope="session", params=list(_REGISTRIES))
def each_registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that anybody may push to: the project's own, and Debian's where it is installed."""
    with _REGISTRIES[request.param](tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="session", params=list(_REGISTRIES))
def each_guarded_registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """Registries that want a password."""
    with _REGISTRIES[request.param](tmp_path_factory.mktemp("guarded"), auth=True) as found:
        yield found


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry that anybody may push to."""
    with _REGISTRIES[_BEST](tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="session")
def guarded_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry that wants a password."""
    with _REGISTRIES[_BEST](tmp_path_factory.mktemp("guarded"), auth=True) as found:
        yield found


@pytest.fixture(scope="session")
def skopeo() -> Any:
    """Runs skopeo without TLS and gives what it prints."""

    def run(*argv: object, tls: str = "--tls-verify=false") -> str:
        words = [str(argv[0]), tls, *map(str, argv[1:])]
        done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes on one thread: two on a loaded machine spend their time waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------ what was trained once


@dataclass(frozen=True)
class Trained:
    """A finished run of `kaito tune`: its folder, and where it was pushed to."""

    run: Run
    folder: Path
    image: str
    config: Path
    registry: Registry


@pytest.fixture(scope="session")
def trained(
    zygote: Zygote, lesson: Lesson, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """An adapter by LoRA from the lesson, 40 steps, pushed."""
    folder = tmp_path_factory.mktemp("lora")
    config = folder / "training_config.yaml"
    config.write_text(configuration(max_steps=40))
    image = f"{registry.host}/adapters/lora:0.0.1"
    run = zygote.run(
        *("-f", config, "--model", MODEL, "--data-dir", lesson.file.parent, "--output-dir", folder / "out"),
        *("--output-image", image, "--base-name", "microsoft/Phi-3-mini-4k-instruct"),
    )
    assert run.code == 0, run.text
    return Trained(run, folder / "out", image, config, registry)


@pytest.fixture(scope="session")
def trained_qlora(zygote: Zygote, lesson: Lesson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter by QLoRA: a few steps, with gradient checkpointing and evaluations in between."""
    folder = tmp_path_factory.mktemp("qlora")
    config = folder / "training_config.yaml"
    changes = {
        "DatasetConfig": {"train_test_split": 0.98},
        "gradient_checkpointing": True,
        "eval_strategy": "steps",
    }
    config.write_text(configuration("qlora", max_steps=6, per_device_train_batch_size=4, eval_steps=3, **changes))
    run = zygote.run(
        *("-f", config, "--method", "qlora", "--model", MODEL, "--data-dir", lesson.file.parent),
        *("--output-dir", folder / "out"),
    )
    assert run.code == 0, run.text
    return folder / "out"
