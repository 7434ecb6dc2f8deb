"""Pushing an image: the tag moves last, what broke off is repeated, and credentials stay where they belong."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from api.progress import TuneFailure
from inference_server.oci.backoff import Backoff
from inference_server.oci.reference import parse
from inference_server.tuning.errors import TuneError
from inference_server.tuning.image import BaseImage, Image, build
from inference_server.tuning.push import Pusher
from inference_server.tuning.registry import SecretFiles, check_push, pull_data, push_adapter

TOKEN = "s3cr3t-t0k3n"
PASSWORD = "p4ssw0rd"


@dataclass
class Store:
    """A registry in memory that notes what it is asked, and does as a test says."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    bearer: bool = False
    scopes: list[str] = field(default_factory=list)
    troubles: list[int] = field(default_factory=list)  # statuses for the next uploads

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        path, method = request.path, request.method
        if path == "/token":
            self.scopes.append(request.query["scope"])
            known = (
                request.headers.get("Authorization")
                == "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
            )
            return web.json_response({"token": TOKEN}) if known else web.Response(status=401)
        self.asked.append(f"{method} {path.removeprefix('/v2/team/style/')}")
        if self.bearer and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            realm = f'Bearer realm="http://{self.host}/token",service="s",scope="repository:team/style:pull,push"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        if self.troubles and method == "PUT" and "/uploads/" in path:
            return web.Response(status=self.troubles.pop(0))
        return await self._serve(request, method, path.rpartition("/")[2])

    async def _serve(self, request: web.Request, method: str, name: str) -> web.StreamResponse:
        if method == "HEAD":
            return web.Response(status=200 if name in self.blobs else 404)
        if method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/team/style/blobs/uploads/7?state=hidden"})
        if method == "DELETE":
            return web.Response(status=204)
        body = await request.read()
        if "/manifests/" in request.path:
            self.manifests[name] = body
            return web.Response(status=201)
        assert request.query["state"] == "hidden"
        self.blobs[request.query["digest"]] = body
        return web.Response(status=201)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """See the class."""
    found = Store()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", found.handle)
    server = TestServer(app)
    await server.start_server()
    found.host = f"127.0.0.1:{server.port}"
    yield found
    await server.close()


@pytest.fixture
def files(tmp_path: Path, seed: int) -> dict[str, Path]:
    """An adapter of two megabytes that do not compress."""
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(random.Random(seed).randbytes(2_000_000))
    return {path.name: path for path in tmp_path.iterdir()}


@pytest.fixture
def image(files: dict[str, Path], tmp_path: Path) -> Image:
    """The adapter as an image."""
    return build(files, tmp_path, labels={"a": "b"})


@asynccontextmanager
async def pusher(host: str, **changes: Any) -> AsyncIterator[Pusher]:
    """A pusher that does not wait long."""
    async with aiohttp.ClientSession() as session:
        backoff = Backoff(first=0.001, most=0.001, attempts=changes.pop("attempts", 3))
        yield Pusher(session, parse(f"{host}/team/style:1"), backoff=backoff, **changes)


async def test_the_tag_moves_after_everything_else(store: Store, image: Image) -> None:
    """Blobs, configuration, the manifest by its digest, and the tag at the very end."""
    async with pusher(store.host) as push:
        digest = await push.push(image)

    puts = [line for line in store.asked if line.startswith("PUT")]
    assert puts[-2:] == [f"PUT manifests/{digest}", "PUT manifests/1"]
    assert [line.partition(" ")[2] for line in puts[:-2]] == ["blobs/uploads/7", "blobs/uploads/7"]
    assert all(f"sha256:{hashlib.sha256(body).hexdigest()}" == name for name, body in store.blobs.items())
    assert json.loads(store.manifests["1"])["config"]["digest"] in store.blobs


async def test_what_is_there_is_not_sent_again(store: Store, image: Image) -> None:
    """The second push of the same image asks for the blobs and sends none."""
    counted: list[int] = []
    async with pusher(store.host) as push:
        await push.push(image)
    store.asked.clear()
    async with pusher(store.host, on_bytes=counted.append) as push:
        await push.push(image)

    assert not [line for line in store.asked if "uploads" in line]
    assert sum(counted) == image.layer.size + image.config.size


async def test_a_registry_in_trouble_is_tried_again(store: Store, image: Image) -> None:
    """Two failed uploads are repeated from their beginning, and the bytes are counted once."""
    store.troubles = [500, 429]
    counted: list[int] = []

    async with pusher(store.host, on_bytes=counted.append) as push:
        await push.push(image)

    assert "1" in store.manifests
    assert sum(counted) == image.layer.size + image.config.size


async def test_trouble_that_stays_is_temporary_and_moves_no_tag(store: Store, image: Image) -> None:
    """After the last attempt the run may be repeated; the registry has neither manifest nor tag."""
    store.troubles = [503] * 3

    async with pusher(store.host) as push:
        with pytest.raises(TuneError) as caught:
            await push.push(image)

    assert (caught.value.reason, caught.value.temporary) == (TuneFailure.PUSH_FAILED, True)
    assert store.manifests == {}
    assert "hidden" not in str(caught.value)


async def test_credentials_become_a_token_for_pushing(
    store: Store, image: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A token is asked for with the scope that the registry names; neither it nor the password is ever logged."""
    store.bearer = True
    secret = tmp_path / "config.json"
    auth = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    secret.write_text(json.dumps({"auths": {store.host: {"auth": auth}}}))
    reference = parse(f"{store.host}/team/style:1")

    with caplog.at_level(logging.DEBUG):
        async with pusher(store.host, credentials=SecretFiles([secret]).matching(reference)) as push:
            await push.check()
            await push.push(image)

    assert "1" in store.manifests
    assert set(store.scopes) == {"repository:team/style:pull,push"}
    assert not [word for word in (TOKEN, PASSWORD, auth) if word in caplog.text]


async def test_who_may_not_push_is_told_before_training(store: Store) -> None:
    """Without a credential the check fails for good, and says which secret to look at."""
    store.bearer = True

    async with pusher(store.host) as push:
        with pytest.raises(TuneError) as caught:
            await push.check()

    assert (caught.value.reason, caught.value.temporary) == (TuneFailure.PUSH_DENIED, False)
    assert "imagePushSecret" in caught.value.next_step
    assert TOKEN not in str(caught.value)


async def test_a_check_leaves_nothing_behind(store: Store) -> None:
    """The upload that the check begins is given up again."""
    async with pusher(store.host) as push:
        await push.check()

    assert store.asked == ["POST blobs/uploads/", "DELETE blobs/uploads/7"]
    assert store.blobs == {}


async def test_a_registry_that_is_down_does_not_stop_the_training(store: Store) -> None:
    """When the registry cannot be asked, the check passes: it may be up when there is something to push."""
    async with pusher("127.0.0.1:9") as push:
        await push.check()


# ------------------------------------------------------------------ images


def test_equal_adapters_are_equal_images(files: dict[str, Path], tmp_path: Path) -> None:
    """Nothing in an image depends on when or where it was built."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    later = dict(reversed(list(files.items())))

    assert build(files, one, labels={"a": "b"}).manifest == build(later, other, labels={"a": "b"}).manifest
    assert (one / "layer.tar.gz").read_bytes() == (other / "layer.tar.gz").read_bytes()


def test_an_image_keeps_what_its_base_has(files: dict[str, Path], tmp_path: Path) -> None:
    """On a base the adapter is one more layer, and the base's command, labels and history stay."""
    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:1", "size": 3}]
    config = {
        "architecture": "arm64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Labels": {"from": "base"}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:2"]},
        "history": [{"created_by": "base"}],
    }

    image = build(files, tmp_path, labels={"a": "b"}, base=BaseImage(layers, config))

    assert isinstance(image.config.data, bytes)
    assert isinstance(image.manifest.data, bytes)
    made = json.loads(image.config.data)
    assert made["architecture"] == "arm64"
    assert made["config"] == {"Cmd": ["sh"], "Labels": {"from": "base", "a": "b"}}
    assert (len(made["rootfs"]["diff_ids"]), len(made["history"])) == (2, 2)
    assert [item["digest"] for item in json.loads(image.manifest.data)["layers"]] == [
        "sha256:1",
        image.layer.digest,
    ]


# ------------------------------------------------------------------ a real registry


@asynccontextmanager
async def cutting_proxy(target: str, allowed: int) -> AsyncIterator[str]:
    """A way to a registry on which every connection breaks after so many bytes upwards."""
    host, _, port = target.partition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))

        async def down() -> None:
            while data := await up_reader.read(1 << 16):
                writer.write(data)

        back = asyncio.create_task(down())
        tasks.add(back)
        left = allowed
        while left > 0 and (data := await reader.read(min(left, 1 << 16))):
            up_writer.write(data)
            await up_writer.drain()
            left -= len(data)
        back.cancel()
        up_writer.transport.abort()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_push_that_breaks_off_is_repeated_without_a_broken_tag(
    each_registry: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    """Cut in the middle of a layer: the tag still is the image of before; repeated, it is the whole new one."""
    host, name, none = each_registry.host, "team/cut", SecretFiles([])
    old = {"adapter_config.json": files["adapter_config.json"]}
    before = await push_adapter(f"{host}/{name}:1", old, tmp_path / "old", none, labels={})
    hasty = Backoff(first=0.001, attempts=2)
    async with cutting_proxy(host, 500_000) as way:
        with pytest.raises(TuneError) as caught:
            await push_adapter(f"{way}/{name}:1", files, tmp_path / "new", none, labels={}, backoff=hasty)
    seen = await asyncio.to_thread(each_registry.manifest, name, "1")

    after = await push_adapter(f"{host}/{name}:1", files, tmp_path / "new", none, labels={})

    assert (caught.value.reason, caught.value.temporary) == (TuneFailure.PUSH_FAILED, True)
    assert seen["digest"] == before
    assert (await asyncio.to_thread(each_registry.manifest, name, "1"))["digest"] == after
    folder = await pull_data(f"{host}/{name}:1", tmp_path / "pulled", none, most=1 << 30)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: path.read_bytes() for name, path in files.items()
    }


async def test_a_base_image_is_pushed_along(each_registry: Any, files: dict[str, Path], tmp_path: Path) -> None:
    """On a base image from a registry the result is complete in another repository."""
    none = SecretFiles([])
    base, image = f"{each_registry.host}/team/base:1", f"{each_registry.host}/team/on-base:1"
    below = {"below.txt": files["adapter_config.json"]}
    await push_adapter(base, below, tmp_path / "base", none, labels={"from": "base"})

    digest = await push_adapter(image, files, tmp_path / "on", none, labels={"of": "ours"}, base=base)

    folder = await pull_data(image, tmp_path / "pulled", none, most=1 << 30)
    seen = await asyncio.to_thread(each_registry.manifest, "team/on-base", "1")
    config = json.loads(await asyncio.to_thread(each_registry.blob, "team/on-base", seen["config"]["digest"]))
    assert {path.name for path in folder.iterdir()} == {"below.txt", *files}
    assert (seen["digest"], len(seen["layers"])) == (digest, 2)
    assert config["config"]["Labels"] == {"from": "base", "of": "ours"}


async def test_a_wrong_password_is_denied_and_a_right_one_pushes(
    each_guarded_registry: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    """Basic authentication of a real registry: no secret and a wrong one are refused, the right one works."""
    image = f"{each_guarded_registry.host}/team/style:1"
    wrong = tmp_path / "wrong"
    wrong.write_text(
        json.dumps({"auths": {each_guarded_registry.host: {"username": "pusher", "password": "open"}}})
    )

    for secrets in (SecretFiles([]), SecretFiles([wrong])):
        with pytest.raises(TuneError) as caught:
            await check_push(image, secrets)
        assert caught.value.reason is TuneFailure.PUSH_DENIED
    good = SecretFiles([each_guarded_registry.secret])
    await check_push(image, good)
    digest = await push_adapter(image, files, tmp_path / "work", good, labels={})

    assert digest.startswith("sha256:")
