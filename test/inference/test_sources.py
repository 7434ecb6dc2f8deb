"""Where a model comes from: one decision; images and the hub, resumed, counted and checked; one copy a node."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from api.progress import LoadProgress, LoadStage
from inference_server.oci.backoff import Backoff
from inference_server.oci.client import RegistryClient
from inference_server.oci.download import Downloader
from inference_server.oci.errors import BadArtifact, Denied, DigestMismatch, DiskFull, NotFound, Unreachable
from inference_server.oci.pull import Puller
from inference_server.sources.choose import FolderModel, HubModel, ImageModel, choose
from inference_server.sources.hub import Hub, choose_files
from inference_server.sources.model import ModelFetcher
from inference_server.sources.progress import Meter
from inference_server.sources.store import Store
from inference_server.testing.images import archive, artifact, files_of, image

MODEL = Path(str(files("kaito.local"))) / "models" / "tiny-phi3"
FILES = {name: content for name, content in files_of(MODEL).items() if name != "README.md"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """As much of the hub's protocol as a download needs; weights are redirected to another host, as there."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = dict(content)
        self.token: str | None = None
        self.gated = False
        self.sent: dict[str, int] = {}
        self.slow = False  # weights trickle
        self.cut: list[int] = []
        self.cdn_authorizations: list[str | None] = []
        self.cdn = ""
        self.listed = dict(content)  # what the API tells, where that is another thing

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/api/models/{org}/{name}/revision/{revision}", self.info),
                web.get("/{org}/{name}/resolve/{commit}/{file}", self.resolve),
                web.get("/cdn/{file}", self.send),
            ]
        )
        return app

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            code = "GatedRepo" if self.gated else "RepoNotFound"
            return web.Response(status=401, headers={"X-Error-Code": code, "X-Error-Message": "no"})
        return None

    async def info(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        if request.match_info["name"] != "tiny":
            return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        if request.match_info["revision"] not in ("main", COMMIT):
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        assert request.query.get("blobs")
        siblings = []
        for name, content in self.listed.items():
            entry = {"rfilename": name, "size": len(content), "blobId": git_blob(content)}
            if name.endswith(".safetensors"):
                sha = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha, "pointerSize": 134}
            siblings.append(entry)
        return web.json_response({"id": "org/tiny", "sha": COMMIT, "siblings": siblings})

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refusal(request):
            return refusal
        assert request.match_info["commit"] == COMMIT
        name = request.match_info["file"]
        if name.endswith(".safetensors"):
            raise web.HTTPFound(f"{self.cdn}/cdn/{name}")
        return await self.send(request)

    async def send(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        if request.path.startswith("/cdn/"):
            self.cdn_authorizations.append(request.headers.get("Authorization"))
        begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        whole = self.content[name]
        reply = web.StreamResponse(status=206 if begin else 200)
        if begin:
            reply.headers["Content-Range"] = f"bytes {begin}-{len(whole) - 1}/{len(whole)}"
        reply.content_length = len(whole) - begin
        await reply.prepare(request)
        stop = begin + self.cut.pop(0) if self.cut and name.endswith(".safetensors") else len(whole)
        step = 1 << 17 if self.slow else len(whole)
        while begin < stop:
            piece = whole[begin : min(begin + step, stop)]
            await reply.write(piece)
            begin += len(piece)
            self.sent[name] = self.sent.get(name, 0) + len(piece)
            if self.slow:
                await asyncio.sleep(0.05)
        if stop < len(whole):
            assert request.transport is not None
            request.transport.close()
        return reply


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that served a local folder in this process has forbidden the hub to it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    fake = FakeHub(FILES)
    async with TestServer(fake.app()) as server, TestServer(fake.app()) as cdn:
        fake.endpoint = f"http://127.0.0.1:{server.port}"
        fake.cdn = f"http://127.0.0.1:{cdn.port}"
        yield fake


def fetcher(http, root: Path, hub: FakeHub | None = None, **more) -> ModelFetcher:
    fast = Backoff(first=0.001, most=0.002, attempts=3)
    return ModelFetcher(
        Store(root),
        Puller(RegistryClient(http), downloader=Downloader(fast, random.Random(1))),
        Hub(http, endpoint=hub.endpoint if hub else "http://127.0.0.1:9", token=None, **more),
        Downloader(fast, random.Random(1)),
        fast,
    )


class Told:
    """What a meter reports."""

    def __init__(self) -> None:
        self.all: list[LoadProgress] = []
        self.meter = Meter(self.all.append, time.monotonic)


# ------------------------------------------------------------------ deciding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/workspace/weights", FolderModel(Path("/workspace/weights"))),
        ("./here", FolderModel(Path("here"))),
        ("org/name", HubModel("org/name", "main")),
        ("org/name@v1.2", HubModel("org/name", "v1.2")),
        (f"microsoft/Phi-3.5-mini-instruct@{COMMIT}", HubModel("microsoft/Phi-3.5-mini-instruct", COMMIT)),
        ("oci://r.io/kaito-phi-3:0.0.1", ImageModel("r.io/kaito-phi-3:0.0.1")),
    ],
)
def test_a_models_name_says_where_it_comes_from(text, expected):
    """A path, a repository of the hub with or without a revision, an image."""
    assert choose(text) == expected


@pytest.mark.parametrize("text", ["", "name", "a/b/c", "org/na me", "https://huggingface.co/org/name"])
def test_what_is_no_model_says_what_could_be(text):
    """The error lists the three forms."""
    with pytest.raises(NotFound, match="give a folder, org/name"):
        choose(text)


def test_of_a_repository_only_what_the_engine_needs_is_taken():
    """Settings, tokenizer and one format of weights; code only when asked for; nothing of other frameworks."""
    common = ["config.json", "tokenizer.model", "model-1.safetensors", "model.safetensors.index.json"]
    other = [
        "consolidated.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "original/x.json",
        ".gitattributes",
        "README.md",
        "onnx.json",
    ]
    assert choose_files([*common, *other, "modeling_x.py"]) == sorted(common)
    assert "modeling_x.py" in choose_files([*common, "modeling_x.py"], code=True)
    assert choose_files(["params.json", "consolidated.safetensors", "x.bin"]) == [
        "consolidated.safetensors",
        "params.json",
    ]
    assert "x.bin" in choose_files(["config.json", "x.bin"])


# ------------------------------------------------------------------ fetching


async def test_a_folder_is_used_where_it_is(http, tmp_path):
    """Nothing is copied; a path that is not there says what to do."""
    found = await fetcher(http, tmp_path).fetch(str(MODEL), Told().meter)
    assert (found.path, found.held) == (MODEL, None)
    with pytest.raises(NotFound, match="mount the volume"):
        await fetcher(http, tmp_path).fetch("/no/such", Told().meter)


@pytest.mark.parametrize("shape", ["image", "artifact"])
async def test_the_model_comes_from_a_registry(registry, http, tmp_path, shape):
    """From our registry and a foreign one, as an image with weights under /workspace or as files, all counted."""
    weights = archive({f"workspace/tfs/weights/{name}": content for name, content in FILES.items()}, zipped=False)
    layered = image([archive({"usr/bin/python": b"x"}), weights])
    made = layered if shape == "image" else artifact(FILES)
    reference = await made.push(http, registry.host, f"models/{tmp_path.name}", "v1")
    told = Told()
    found = await fetcher(http, tmp_path).fetch(f"oci://{reference}", told.meter)
    assert files_of(found.path) == FILES
    assert made.digest in found.origin
    last = told.all[-1]
    assert last.stage is LoadStage.PULLING
    assert last.bytes_done == last.bytes_total
    found.release()


async def test_an_image_without_a_model_says_where_it_looked(registry, http, tmp_path):
    """Files elsewhere in the image are not taken for a model."""
    made = image([archive({"etc/config.json": b"{}", "data/readme": b"x"})])
    reference = await made.push(http, registry.host, f"models/{tmp_path.name}", "v1")
    with pytest.raises(BadArtifact, match="/workspace"):
        await fetcher(http, tmp_path).fetch(f"oci://{reference}", Told().meter)


async def test_the_model_comes_from_the_hub_at_a_pinned_commit(hub, http, tmp_path):
    """All files of the commit, each with its digest; the token goes to the hub and not to where it redirects."""
    hub.token = "hf_secret"
    source = fetcher(http, tmp_path, hub)
    source.hub.token = "hf_secret"
    told = Told()
    found = await source.fetch("org/tiny", told.meter)
    assert files_of(found.path) == FILES
    assert found.origin == f"org/tiny@{COMMIT}"
    assert told.all[-1].bytes_done == sum(map(len, FILES.values()))
    assert hub.cdn_authorizations == [None]
    assert "hf_secret" not in repr(source.hub)
    found.release()


async def test_a_hub_download_that_breaks_off_is_resumed(hub, http, tmp_path):
    """No byte of the weights is sent twice."""
    hub.cut = [1_000_000, 500_000]
    found = await fetcher(http, tmp_path, hub).fetch("org/tiny", Told().meter)
    assert files_of(found.path) == FILES
    assert hub.sent["model.safetensors"] == len(FILES["model.safetensors"])
    found.release()


@pytest.mark.parametrize(
    ("model", "prepare", "error", "reason"),
    [
        ("org/other", lambda hub: None, NotFound, "set HF_TOKEN"),
        ("org/tiny@nope", lambda hub: None, NotFound, "no revision nope"),
        ("org/tiny", lambda hub: vars(hub).update(token="x", gated=True), Denied, "accept its terms"),
        ("org/tiny", lambda hub: vars(hub).update(token="x"), NotFound, "hides it"),
        (
            "org/tiny",
            lambda hub: hub.content.update({"config.json": b"0" * len(FILES["config.json"])}),
            DigestMismatch,
            "config.json",
        ),
        (
            "org/tiny",
            lambda hub: hub.content.update({"model.safetensors": bytes(len(FILES["model.safetensors"]))}),
            DigestMismatch,
            "model.safetensors",
        ),
        ("org/tiny", lambda hub: hub.listed.pop("model.safetensors"), BadArtifact, "no weights"),
    ],
    ids=["404", "revision", "gated", "401", "config", "weights", "empty"],
)
async def test_failures_of_the_hub_are_closed_and_say_what_to_do(
    hub, http, tmp_path, model, prepare, error, reason
):
    """Not found, denied, damaged: an error of ours, and nothing in the cache that looks like a model."""
    prepare(hub)
    with pytest.raises(error, match=reason):
        await fetcher(http, tmp_path, hub).fetch(model, Told().meter)
    assert [path for path in tmp_path.iterdir() if path.is_dir() and path.suffix != ".work"] == []


async def test_no_hub_is_unreachable(http, tmp_path):
    """After a bounded number of attempts."""
    with pytest.raises(Unreachable):
        await fetcher(http, tmp_path).fetch("org/tiny", Told().meter)


async def test_a_disk_without_room_is_known_before_the_download(hub, http, tmp_path, monkeypatch):
    """The size is compared with the room first; nothing is sent."""
    monkeypatch.setattr("inference_server.sources.model.free_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match="more room"):
        await fetcher(http, tmp_path, hub).fetch("org/tiny", Told().meter)
    assert hub.sent == {}


async def test_a_disk_that_fills_up_is_said_so(hub, http, tmp_path, monkeypatch):
    """ENOSPC while writing becomes our own error, and what has arrived stays for the next attempt."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inference_server.oci.download._Transfer._write", full)
    with pytest.raises(DiskFull, match="the disk of"):
        await fetcher(http, tmp_path, hub).fetch("org/tiny", Told().meter)


async def test_pods_of_a_node_fetch_a_model_once(hub, http, tmp_path):
    """Three at once on one cache: the bytes are sent once, and all have the whole model."""
    hub.slow = True
    found = await asyncio.gather(*(fetcher(http, tmp_path, hub).fetch("org/tiny", Told().meter) for _ in range(3)))
    assert {f.path for f in found} == {found[0].path}
    assert files_of(found[0].path) == FILES
    assert hub.sent["model.safetensors"] == len(FILES["model.safetensors"])
    for one in found:
        one.release()


PROGRAM = """
import asyncio, sys
from pathlib import Path
from inference_server.settings import ServeSettings
from inference_server.sources.setup import fetch_model
settings = ServeSettings(model=sys.argv[1], cache=Path(sys.argv[2]))
found = asyncio.run(fetch_model(settings, lambda told: print(told.model_dump_json(), flush=True)))
print(found.path, flush=True)
"""


async def test_a_killed_process_is_gone_on_from_where_it_was(hub, http, tmp_path):
    """SIGKILL midway through the weights: the next process asks for the rest only, and counts from there."""
    hub.slow = True
    environment = {"HF_ENDPOINT": hub.endpoint, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", PROGRAM, "org/tiny", str(tmp_path)]
    first = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    weights = len(FILES["model.safetensors"])
    async with asyncio.timeout(60):
        while hub.sent.get("model.safetensors", 0) < weights // 3:
            await asyncio.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    await first.communicate()
    partial = next(tmp_path.rglob("model.safetensors.partial")).stat().st_size
    assert 0 < partial < weights
    hub.slow = False
    hub.sent.clear()
    second = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=environment)
    output, _ = await second.communicate()
    *told, path = output.decode().splitlines()
    assert files_of(Path(path)) == FILES
    assert hub.sent["model.safetensors"] == weights - partial
    progress = [LoadProgress.model_validate_json(line) for line in told]
    assert progress[-1].bytes_done == progress[-1].bytes_total == sum(map(len, FILES.values()))


# ------------------------------------------------------------------ progress and store


def test_progress_tells_speed_and_time_left():
    """Speed over the last seconds, time left from it; bytes taken back are taken back; reports are few."""
    now = [0.0]
    told: list[LoadProgress] = []
    meter = Meter(told.append, lambda: now[0])
    meter.say("pulls", total=1000)
    for _ in range(100):
        now[0] += 0.1
        meter.add(5)
    assert len(told) < 30
    last = told[-1]
    assert last.bytes_total == 1000
    assert last.bytes_per_second == pytest.approx(50, rel=0.05)
    assert last.seconds_left == pytest.approx((1000 - (last.bytes_done or 0)) / 50, rel=0.05)
    meter.add(-400)
    now[0] += 1
    meter.add(0)
    assert told[-1].bytes_done == 100


async def test_what_somebody_holds_is_not_removed(tmp_path):
    """A store is tidied around what is held, in whichever process, and around what is to be kept."""

    async def make(work: Path) -> None:
        (work / "x").write_text("x")

    one, two = Store(tmp_path), Store(tmp_path)
    held = await one.get("sha256:a", make)
    for key in ("sha256:b", "sha256:c"):
        (await two.get(key, make)).release()
    assert await two.remove_unused(["sha256:b"]) == ["sha256-c"]
    assert (held.path / "x").read_text() == "x"
    held.release()
    assert set(await two.remove_unused()) == {"sha256-a", "sha256-b"}
    assert await one.hold("sha256:a") is None


async def test_a_thing_that_could_not_be_made_is_made_anew(tmp_path):
    """A failed attempt leaves its work for the next one, and never the thing itself."""
    store = Store(tmp_path)
    attempts = []

    async def make(work: Path) -> None:
        attempts.append(sorted(path.name for path in work.iterdir()))
        (work / f"part{len(attempts)}").touch()
        if len(attempts) == 1:
            raise Unreachable("away")

    with pytest.raises(Unreachable):
        await store.get("x", make)
    assert await store.hold("x") is None
    with await store.get("x", make) as held:
        assert sorted(path.name for path in held.path.iterdir()) == ["part1", "part2"]
    assert attempts == [[], ["part1"]]
