"""Pulling from registries: our own and Debian's docker-registry, and one that misbehaves as told."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inference_server.oci.backoff import Backoff
from inference_server.oci.client import RegistryClient
from inference_server.oci.credentials import PullSecrets
from inference_server.oci.download import Downloader
from inference_server.oci.errors import (
    BadArtifact,
    Denied,
    DigestMismatch,
    NotFound,
    TooLarge,
    Unreachable,
)
from inference_server.oci.pull import Puller
from inference_server.oci.reference import is_plain, parse
from inference_server.oci.unpack import UnpackLimits
from inference_server.testing.images import archive, artifact, digest_of, files_of, image, index
from kaito.local.registry.server import make_registry
from kaito.local.registry.storage import Storage

FAST = Downloader(Backoff(first=0.001, most=0.002, attempts=4), random.Random(1))


@pytest.fixture
def puller(http) -> Puller:
    return Puller(RegistryClient(http), PullSecrets(), FAST)


async def pull(puller: Puller, reference: str, folder: Path, *secrets: str, limits=None) -> dict[str, bytes]:
    resolved = await puller.resolve(reference, secrets)
    await puller.fetch(resolved, folder, prefixes=("data",), limits=limits or UnpackLimits())
    return files_of(folder / "files")


ADAPTER = {"adapter_config.json": b'{"r": 4}', "adapter_model.safetensors": bytes(range(256)) * 40}


@pytest.mark.parametrize("docker", [True, False], ids=["docker", "oci"])
async def test_an_image_with_data_arrives(registry, http, puller, tmp_path, docker):
    """Upstream's shape, layers of busybox and of /data, in Docker's and OCI's media types."""
    layers = [archive({"bin/busybox": b"x"}), archive({f"data/{n}": c for n, c in ADAPTER.items()})]
    made = image(layers, docker=docker)
    reference = await made.push(http, registry.host, f"adapters/{tmp_path.name}", "v1")
    files = await pull(puller, reference, tmp_path / "got")
    assert files == {f"data/{name}": content for name, content in ADAPTER.items()}
    assert (await puller.resolve(reference)).digest == made.digest


async def test_an_artifact_of_files_arrives(registry, http, puller, tmp_path):
    """The shape that oras pushes: each layer is a file with its name."""
    reference = await artifact(ADAPTER).push(http, registry.host, f"artifacts/{tmp_path.name}", "v1")
    assert await pull(puller, reference, tmp_path / "got") == ADAPTER


async def test_an_index_gives_this_machines_image_or_any(registry, http, puller, tmp_path, monkeypatch):
    """Of an index the image for this machine is taken, and another machine's where there is none: data is data."""
    made = {name: image([archive({"data/for": name.encode()})]) for name in ("arm64", "amd64")}
    repository = f"index/{tmp_path.name}"
    for one in made.values():
        await one.push(http, registry.host, repository, one.digest)
    reference = await index(made).push(http, registry.host, repository, "v1")
    for machine, expected in (("x86_64", b"amd64"), ("aarch64", b"arm64"), ("riscv64", b"arm64")):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert await pull(puller, reference, tmp_path / machine) == {"data/for": expected}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
async def test_what_skopeo_pushes_arrives(registry, puller, tmp_path):
    """An image that a foreign client copies into the registry is pulled byte for byte."""
    layout = image([archive({f"data/{n}": c for n, c in ADAPTER.items()})]).write_layout(tmp_path / "oci", "v1")
    target = f"{registry.host}/skopeo/{tmp_path.name}:v1"
    await skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{target}")
    files = await pull(puller, target, tmp_path / "got")
    assert files == {f"data/{name}": content for name, content in ADAPTER.items()}


async def skopeo(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "skopeo", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_what_is_not_there_is_not_found(registry, puller):
    """A missing repository and a missing tag say what to check."""
    with pytest.raises(NotFound, match="check the name"):
        await puller.resolve(f"{registry.host}/no/such:v1")


async def test_nobody_listening_is_unreachable(puller):
    """A registry that is away may be back: the error is a passing one."""
    with pytest.raises(Unreachable) as failure:
        await puller.resolve("127.0.0.1:9/x/y:v1")
    assert failure.value.transient


def write_secret(folder: Path, name: str, host: str, user: str, password: str) -> None:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / name).mkdir(parents=True)
    (folder / name / ".dockerconfigjson").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


async def test_pull_secrets_are_tried_in_order_and_never_told(http, tmp_path, caplog):
    """The first secret that fits and works opens the registry; without it, denied; no password is seen."""
    caplog.set_level("DEBUG")
    app = make_registry(Storage(tmp_path / "registry"), {"me": "s3cret-right"})
    async with TestServer(app) as server:
        host = f"127.0.0.1:{server.port}"
        basic = {"Authorization": "Basic " + base64.b64encode(b"me:s3cret-right").decode()}
        reference = await artifact(ADAPTER).push(http, host, "private/x", "v1", headers=basic)
        secrets = tmp_path / "secrets"
        write_secret(secrets, "a-other-host", "example.com", "me", "s3cret-right")
        write_secret(secrets, "b-wrong", host, "me", "s3cret-wrong")
        puller = Puller(RegistryClient(http), PullSecrets(secrets), FAST)
        with pytest.raises(Denied) as failure:
            await puller.resolve(reference)
        assert "1 credential(s)" in str(failure.value)
        with pytest.raises(Denied, match="mount the pull secret gone"):
            await puller.resolve(reference, ["b-wrong", "gone"])
        write_secret(secrets, "c-right", host, "me", "s3cret-right")
        assert await pull(puller, reference, tmp_path / "got", "b-wrong", "c-right") == ADAPTER
        known = puller.secrets.matching(parse(reference))
    told = caplog.text + str(failure.value) + repr(known) + repr(puller)
    assert "s3cret" not in told


class Misbehaving:
    """A registry whose blobs come as a test says. It counts the bytes of blobs that it has sent."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sent = 0
        self.ranges: list[str] = []
        self.cut: list[int] = []  # bytes after which each answer breaks off, in order
        self.resumes = True
        self.statuses: list[int] = []
        self.tokens = False
        self.authorizations: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v2/x/manifests/v1", self.manifest),
                web.get("/v2/x/blobs/{digest}", self.blob),
                web.get("/token", self.token),
            ]
        )
        return app

    def image(self):
        return artifact({"file": self.content})

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self.tokens and request.headers.get("Authorization") != "Bearer t0ken-right":
            realm = f'Bearer realm="http://{request.host}/token",service="reg",scope="repository:x:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        made = self.image()
        return web.Response(body=made.manifest, headers={"Content-Type": made.media_type})

    async def token(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.json_response({"token": "t0ken-anonymous"})
        assert request.query["scope"] == "repository:x:pull"
        return web.json_response({"access_token": "t0ken-right"})

    async def blob(self, request: web.Request) -> web.StreamResponse:
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), headers={"Retry-After": "0"})
        begin = 0
        asked = request.headers.get("Range", "")
        if asked:
            self.ranges.append(asked)
        if asked and self.resumes:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
        rest = self.content[begin:]
        reply = web.StreamResponse(status=206 if begin else 200)
        if begin:
            reply.headers["Content-Range"] = f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}"
        reply.content_length = len(rest)
        await reply.prepare(request)
        count = self.cut.pop(0) if self.cut else len(rest)
        await reply.write(rest[:count])
        self.sent += len(rest[:count])
        if count < len(rest):
            assert request.transport is not None
            request.transport.close()
        return reply


@pytest.fixture
async def misbehaving() -> AsyncIterator[tuple[Misbehaving, str]]:
    registry = Misbehaving(random.Random(2).randbytes(300_000))
    async with TestServer(registry.app()) as server:
        yield registry, f"127.0.0.1:{server.port}/x:v1"


async def test_a_broken_download_goes_on_where_it_was(misbehaving, puller, tmp_path):
    """Two cuts cost no byte twice: the rest is asked for by range, and the whole has the right digest."""
    registry, reference = misbehaving
    registry.cut = [100_000, 50_000]
    assert await pull(puller, reference, tmp_path) == {"file": registry.content}
    assert registry.sent == len(registry.content)
    assert registry.ranges == ["bytes=100000-", "bytes=150000-"]


async def test_a_new_process_goes_on_where_the_killed_one_was(misbehaving, puller, tmp_path):
    """What an earlier pull has left on the disk is counted and not fetched again."""
    registry, reference = misbehaving
    registry.cut = [120_000, 0, 0, 0, 0]
    with pytest.raises(Unreachable):
        await pull(puller, reference, tmp_path)
    registry.cut = []
    seen: list[int] = []
    resolved = await puller.resolve(reference)
    await puller.fetch(resolved, tmp_path, prefixes=(), limits=UnpackLimits(), on_bytes=seen.append)
    assert files_of(tmp_path / "files") == {"file": registry.content}
    assert registry.sent == len(registry.content)
    assert sum(seen) == len(registry.content)


async def test_a_server_that_cannot_resume_is_begun_anew(misbehaving, puller, tmp_path):
    """A whole answer to a question for the rest replaces what was there, and bytes are not counted twice."""
    registry, reference = misbehaving
    registry.cut, registry.resumes = [100_000], False
    seen: list[int] = []
    resolved = await puller.resolve(reference)
    await puller.fetch(resolved, tmp_path, prefixes=(), limits=UnpackLimits(), on_bytes=seen.append)
    assert files_of(tmp_path / "files") == {"file": registry.content}
    assert sum(seen) == len(registry.content)


async def test_a_wrong_digest_leaves_nothing(misbehaving, puller, tmp_path):
    """Bytes that are not those promised are thrown away and named; nothing was unpacked."""
    registry, reference = misbehaving
    resolved = await puller.resolve(reference)
    right = registry.content
    registry.content = bytes(len(right))
    with pytest.raises(DigestMismatch, match="damaged"):
        await puller.fetch(resolved, tmp_path, prefixes=(), limits=UnpackLimits())
    assert files_of(tmp_path) == {}
    registry.content = right
    await puller.fetch(resolved, tmp_path, prefixes=(), limits=UnpackLimits())
    assert files_of(tmp_path / "files") == {"file": right}


async def test_more_bytes_than_announced_end_the_download(misbehaving, puller, tmp_path):
    """A blob that goes on beyond its size is cut off there."""
    registry, reference = misbehaving
    resolved = await puller.resolve(reference)
    registry.content += b"more"
    with pytest.raises(TooLarge):
        await puller.fetch(resolved, tmp_path, prefixes=(), limits=UnpackLimits())


async def test_passing_errors_are_waited_out(misbehaving, puller, tmp_path):
    """503 and 429 are tried again; a lasting one is told after a bounded number of attempts."""
    registry, reference = misbehaving
    registry.statuses = [503, 429, 502]
    assert await pull(puller, reference, tmp_path / "a") == {"file": registry.content}
    registry.statuses = [503] * 4
    with pytest.raises(Unreachable, match="503"):
        await pull(puller, reference, tmp_path / "b")


async def test_the_token_flow_asks_with_the_secret(misbehaving, http, tmp_path):
    """A Bearer challenge is answered at the token service: refused anonymously, granted with the pull secret."""
    registry, reference = misbehaving
    registry.tokens = True
    puller = Puller(RegistryClient(http), PullSecrets(tmp_path / "secrets"), FAST)
    with pytest.raises(Denied, match="no pull secret fits"):
        await puller.resolve(reference)
    write_secret(tmp_path / "secrets", "one", reference.partition("/")[0], "me", "s3cret")
    await puller.resolve(reference)
    await puller.resolve(reference)
    assert registry.authorizations[-1] == "Bearer t0ken-right"  # the token is kept


async def test_an_image_larger_than_allowed_is_not_fetched(misbehaving, puller, tmp_path):
    """The announced size is judged before a byte is asked for."""
    registry, reference = misbehaving
    with pytest.raises(TooLarge):
        await pull(puller, reference, tmp_path, limits=UnpackLimits(file_bytes=1000))
    assert registry.sent == 0


async def test_a_manifest_with_another_digest_is_refused(http, tmp_path):
    """A reference by digest accepts that manifest alone."""
    made = artifact(ADAPTER)

    async def lie(_: web.Request) -> web.Response:
        return web.Response(body=made.manifest, headers={"Content-Type": made.media_type})

    app = web.Application()
    app.router.add_get("/v2/x/manifests/{digest}", lie)
    async with TestServer(app) as server:
        puller = Puller(RegistryClient(http))
        with pytest.raises(DigestMismatch):
            await puller.resolve(f"127.0.0.1:{server.port}/x@{digest_of(b'other')}")


@pytest.mark.parametrize(
    ("text", "host", "repository", "version"),
    [
        ("alpine", "docker.io", "library/alpine", "latest"),
        ("org/x:1", "docker.io", "org/x", "1"),
        ("index.docker.io/org/x", "docker.io", "org/x", "latest"),
        ("ghcr.io/a/b/c:tag", "ghcr.io", "a/b/c", "tag"),
        ("localhost:5000/x:1", "localhost:5000", "x", "1"),
        (f"r.io/x:1@{digest_of(b'')}", "r.io", "x", digest_of(b"")),
    ],
)
def test_references_have_everybodys_defaults(text, host, repository, version):
    """Short names are Docker Hub's, a digest wins over a tag."""
    found = parse(text)
    assert (found.host, found.repository, found.version) == (host, repository, version)


@pytest.mark.parametrize("text", ["", "UPPER/x", "r.io/x:", "r.io/x@md5:1", "http://r.io/x", "a b", "x" * 600])
def test_what_is_no_reference_is_refused(text):
    """An error of ours, not a request to somewhere odd."""
    with pytest.raises(BadArtifact):
        parse(text)


def test_tls_is_left_out_for_this_machine_and_by_name_only():
    """Loopback needs no word; any other host does, for all its ports or one."""
    assert all(is_plain(host, ()) for host in ("localhost:5000", "127.0.0.1:1", "[::1]:5000", "127.9.9.9"))
    assert not any(is_plain(host, ("other.io",)) for host in ("r.io", "10.0.0.1:5000", "localhost.evil.io"))
    assert is_plain("r.io:5000", ("r.io",))
    assert is_plain("r.io:5000", ("r.io:5000",))
    assert not is_plain("r.io:443", ("r.io:5000",))


def test_docker_config_keys_match_as_the_kubelet_does(tmp_path):
    """Hosts, paths, globs and Docker Hub's old address; the most specific first."""
    auths = {
        "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        "*.azurecr.io": {"username": "glob", "password": "p"},
        "ghcr.io": {"username": "host", "password": "p"},
        "ghcr.io/org": {"username": "path", "password": "p"},
    }
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".dockerconfigjson").write_text(json.dumps({"auths": auths}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / ".dockerconfigjson").write_text("{")
    secrets = PullSecrets(tmp_path)

    def users(reference: str) -> list[str]:
        return [found.username for found in secrets.matching(parse(reference))]

    assert users("alpine") == ["hub"]
    assert users("team.azurecr.io/x:1") == ["glob"]
    assert users("a.team.azurecr.io/x:1") == []
    assert users("ghcr.io/org/x:1") == ["path", "host"]
    assert users("ghcr.io/organisation/x:1") == ["host"]
    assert secrets.missing(["s", "gone"]) == ["gone"]
