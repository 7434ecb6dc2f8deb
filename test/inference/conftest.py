"""A scripted engine at the engine's protocol, so that the shim is tested in milliseconds."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Counter

from inference_server.adapters.model import AdapterChoice, AdapterSlot
from inference_server.app import make_app
from inference_server.oci.client import new_session
from inference_server.protocol import (
    AdapterRefused,
    EngineDead,
    EngineInfo,
    InvalidRequest,
    Load,
    Message,
    Piece,
    Pushed,
    Sampling,
    Whole,
)
from inference_server.server import make_shim
from inference_server.settings import ServeSettings
from inference_server.shim import Shim
from inference_server.streams import Parts
from inference_server.testing.served import Served
from kaito.local.registry.server import make_registry
from kaito.local.registry.storage import Storage


@dataclass
class ScriptedEngine:
    """Answers what it is told to. One token per word; the chat template adds three per message."""

    words: list[str] = field(default_factory=lambda: ["one", " two", " three"])
    info: EngineInfo | None = field(default_factory=lambda: EngineInfo(max_model_len=300, has_chat_template=True))
    errored: bool = False
    fail_after: int | None = None  # the engine dies after so many pieces
    refuse: str = ""
    hold: asyncio.Event | None = None  # generation waits for it after the first piece
    chats: list[list[Message]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: list[tuple[list[int], Sampling]] = field(default_factory=list)
    running: int = 0
    aborted: int = 0
    stopped: bool = False
    start_error: Exception | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    start_gate: asyncio.Event | None = None
    adapters: dict[str, AdapterSlot] = field(default_factory=dict)  # what is loaded, by the slots' names
    refuse_adapters: set[str] = field(default_factory=set)
    answered_with: list[AdapterSlot | None] = field(default_factory=list)
    steps: int = 0
    model: Path | None = None  # where it was told that the files are
    openai_calls: list[tuple[str, object, str]] = field(default_factory=list)

    @property
    def load(self) -> Load:
        return Load(self.running, self.steps)

    @property
    def openai(self) -> ScriptedEngine | None:
        return self if self.info else None

    async def answer(
        self, path: str, body: dict, *, adapter: AdapterChoice | None = None, request_id: str | None = None
    ) -> Whole | Pushed:
        """OpenAI's API as far as the shim sees it: a whole body, or parts."""
        self.openai_calls.append((path, body, adapter.name if adapter else ""))
        sampling = Sampling(max_tokens=9)
        if body.get("stream"):
            return self.push([], sampling, "", lambda piece: b"data: " + piece.text.encode() + b"\n\n")
        pieces = self.generate([], sampling, request_id or "")
        return Whole(200, b"".join([piece.text.encode() async for piece in pieces]))

    async def start(self, model: Path | None = None) -> EngineInfo:
        self.model = model
        self.started.set()
        if self.start_gate is not None:
            await self.start_gate.wait()
        if self.start_error is not None:
            raise self.start_error
        self.info = EngineInfo(max_model_len=300, has_chat_template=True, facts={"device": "script"})
        return self.info

    async def stop(self) -> None:
        self.stopped = True

    def encode(self, text: str) -> list[int]:
        self.texts.append(text)
        return list(range(len(text.split())))

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        self.chats.append(list(messages))
        return list(range(sum(len(message.content.split()) + 3 for message in messages)))

    async def load_adapter(self, slot: AdapterSlot) -> None:
        if slot.name in self.refuse_adapters or slot.path.name in self.refuse_adapters:
            raise AdapterRefused("the engine refuses the adapter: scripted")
        self.adapters[slot.name] = slot

    async def unload_adapter(self, name: str) -> None:
        self.adapters.pop(name, None)

    def push(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        event: Callable[[Piece], bytes],
        *,
        adapter: AdapterChoice | None = None,
    ) -> Pushed:
        return Parts(
            part async for piece in self._pieces(prompt, sampling, True, adapter) if (part := event(piece))
        )

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        *,
        adapter: AdapterChoice | None = None,
    ) -> AsyncGenerator[Piece, None]:
        return self._pieces(prompt, sampling, False, adapter)

    async def _pieces(
        self, prompt: Sequence[int], sampling: Sampling, stream: bool, adapter: AdapterChoice | None
    ) -> AsyncGenerator[Piece, None]:
        self.calls.append((list(prompt), sampling))
        self.answered_with.append(adapter.slot if adapter else None)
        if self.refuse:
            raise InvalidRequest(self.refuse)
        if self.errored:
            raise EngineDead("dead")
        self.running += 1
        try:
            pieces = (
                [Piece(word, 1) for word in self.words]
                if stream
                else [Piece("".join(self.words), len(self.words))]
            )
            for number, piece in enumerate(pieces):
                if self.fail_after is not None and number >= self.fail_after:
                    self.errored = True
                    raise EngineDead("died while generating")
                if number == len(pieces) - 1:
                    piece = Piece(piece.text, piece.tokens, "stop")
                if self.hold is not None and (number > 0 or not stream):
                    await self.hold.wait()
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise
        finally:
            self.running -= 1


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def settings() -> ServeSettings:
    return ServeSettings(model="/m", served_model_name="tiny", max_body_bytes=4096)


@pytest.fixture
def shim(engine: ScriptedEngine, settings: ServeSettings) -> Shim:
    registry = CollectorRegistry()
    Counter("vllm:generation_tokens", "Tokens.", registry=registry).inc(3)
    made = make_shim(settings, engine, registry=registry)
    made.gate.slots = 4
    return made


@pytest.fixture
async def client(shim: Shim) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(make_app(shim))) as test_client:  # cancels handlers of clients that left
        yield test_client


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The stand-in weights of the package."""
    return Path(str(files("kaito.local"))) / "models" / "tiny-phi3"


class _Shared:
    """The real engine that the tests share, started when the first asks, and again when one has ended it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._folder = folder
        self._model = model
        self.server: Served | None = None
        self._failed = False

    def running(self) -> Served:
        if self._failed:
            pytest.fail("the shared engine did not start; see the first test that asked for it")
        if self.server is None or self.server.process.poll() is not None:
            # The engine's parsers for tool calls, as a preset would choose them; a queue that tests can fill.
            # Without free blanks in JSON, which a model of this size would never stop writing.
            flags = ["--max-queue=64", "--", "--enable-auto-tool-choice", "--tool-call-parser=hermes"]
            flags += ['--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}']
            self.server = Served(self._folder / "log", self._model, *flags)
            self._failed = True
            self.server.wait_ready()
            self._failed = False
        return self.server


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[_Shared]:
    shared = _Shared(tmp_path_factory.mktemp("serve"), tiny_model)
    yield shared
    if shared.server is not None:
        shared.server.process.kill()
        shared.server.process.wait()


@pytest.fixture
def served(_shared: _Shared) -> Served:
    """`kaito serve` with the real engine and the stand-in weights; shared by all that ask for it."""
    return _shared.running()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


# ------------------------------------------------------------------ registries


@dataclass(frozen=True)
class LocalRegistry:
    """A registry on this machine: ours, or somebody else's program."""

    host: str
    kind: str
    root: Path | None = None


@pytest.fixture(scope="session")
def foreign_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """Debian's docker-registry, one process for the session."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}', secret: test}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield LocalRegistry(f"127.0.0.1:{port}", "foreign", folder / "data")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def own_registry(tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    """Our own registry, in this process."""
    async with TestServer(make_registry(Storage(tmp_path / "registry"))) as server:
        yield LocalRegistry(f"127.0.0.1:{server.port}", "own", tmp_path / "registry")


@pytest.fixture(params=["own", "foreign"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    """Both of them, one after the other."""
    if request.param == "foreign":
        yield request.getfixturevalue("foreign_registry")
        return
    async with TestServer(make_registry(Storage(tmp_path / "registry"))) as server:
        yield LocalRegistry(f"127.0.0.1:{server.port}", "own", tmp_path / "registry")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_session() as session:
        yield session
