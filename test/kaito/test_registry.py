"""The small registry: the distribution specification's rules, over HTTP, and a foreign client through it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from inference_server.testing.images import OCI_MANIFEST, archive, artifact, digest_of, image, index
from kaito.errors import CliError
from kaito.local.registry.process import read_credentials
from kaito.local.registry.server import make_registry
from kaito.local.registry.storage import Storage

BLOB = bytes(range(256)) * 100


@pytest.fixture
async def client(tmp_path) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(make_registry(Storage(tmp_path)))) as made:
        yield made


async def begin(client: TestClient, repository: str = "a/b") -> str:
    reply = await client.post(f"/v2/{repository}/blobs/uploads/")
    assert reply.status == 202
    return reply.headers["Location"]


async def push_blob(client: TestClient, content: bytes, repository: str = "a/b") -> str:
    where = await begin(client, repository)
    reply = await client.put(where, params={"digest": digest_of(content)}, data=content)
    assert reply.status == 201
    assert reply.headers["Docker-Content-Digest"] == digest_of(content)
    return reply.headers["Location"]


async def code(reply: aiohttp.ClientResponse) -> tuple[int, str]:
    return reply.status, (await reply.json())["errors"][0]["code"]


async def test_a_blob_is_served_whole_and_in_ranges(client):
    """GET, HEAD, the rest from an offset, and an offset beyond the end."""
    where = await push_blob(client, BLOB)
    assert await (await client.get(where)).read() == BLOB
    head = await client.head(where)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(BLOB)))
    assert head.headers["Docker-Content-Digest"] == digest_of(BLOB)
    rest = await client.get(where, headers={"Range": "bytes=1000-"})
    assert (rest.status, await rest.read()) == (206, BLOB[1000:])
    assert rest.headers["Content-Range"] == f"bytes 1000-{len(BLOB) - 1}/{len(BLOB)}"
    assert (await client.get(where, headers={"Range": f"bytes={len(BLOB)}-"})).status == 416


async def test_an_upload_in_chunks_can_be_asked_about_and_resumed(client):
    """Each PATCH says how far it is; one out of order is refused with the right place to go on."""
    where = await begin(client)
    first = await client.patch(where, data=BLOB[:1000], headers={"Content-Range": "0-999"})
    assert (first.status, first.headers["Range"]) == (202, "0-999")
    wrong = await client.patch(where, data=b"x", headers={"Content-Range": "5-5"})
    assert (wrong.status, wrong.headers["Range"]) == (416, "0-999")
    asked = await client.get(where)
    assert (asked.status, asked.headers["Range"]) == (204, "0-999")
    await client.patch(where, data=BLOB[1000:2000], headers={"Content-Range": "1000-1999"})
    done = await client.put(where, params={"digest": digest_of(BLOB)}, data=BLOB[2000:])
    assert done.status == 201
    assert await (await client.get(done.headers["Location"])).read() == BLOB


async def test_a_blob_in_one_request_and_a_mounted_one(client):
    """POST with a digest stores at once; a blob that is there is mounted into another repository."""
    whole = await client.post("/v2/a/b/blobs/uploads/", params={"digest": digest_of(BLOB)}, data=BLOB)
    assert whole.status == 201
    mounted = await client.post("/v2/c/blobs/uploads/", params={"mount": digest_of(BLOB), "from": "a/b"})
    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/c/blobs/{digest_of(BLOB)}")
    unknown = await client.post("/v2/c/blobs/uploads/", params={"mount": digest_of(b"?"), "from": "a/b"})
    assert unknown.status == 202


async def test_bytes_with_another_digest_are_not_kept(client, tmp_path):
    """A wrong digest ends the upload, and nothing of it is served or left."""
    where = await begin(client)
    assert await code(await client.put(where, params={"digest": digest_of(b"else")}, data=BLOB)) == (
        400,
        "DIGEST_INVALID",
    )
    assert await code(await client.get(f"/v2/a/b/blobs/{digest_of(b'else')}")) == (404, "BLOB_UNKNOWN")
    assert await code(await client.get(where)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert list((tmp_path / "uploads").iterdir()) == []


async def push_manifest(client: TestClient, made, tag: str, repository: str = "a/b") -> aiohttp.ClientResponse:
    headers = {"Content-Type": made.media_type}
    return await client.put(f"/v2/{repository}/manifests/{tag}", data=made.manifest, headers=headers)


async def test_a_manifest_is_there_by_tag_and_by_digest(client):
    """With its own bytes and media type; a moved tag leaves the old digest."""
    one, two = artifact({"x": b"1"}), image([archive({"data/x": b"2"})])
    for made in (one, two):
        for content in made.blobs.values():
            await push_blob(client, content)
        assert (await push_manifest(client, made, "v1")).status == 201
    reply = await client.get("/v2/a/b/manifests/v1")
    assert (await reply.read(), reply.headers["Docker-Content-Digest"]) == (two.manifest, two.digest)
    assert reply.headers["Content-Type"] == OCI_MANIFEST
    assert await (await client.get(f"/v2/a/b/manifests/{one.digest}")).read() == one.manifest
    assert (await client.head("/v2/a/b/manifests/v1")).status == 200
    assert await code(await client.get("/v2/other/manifests/v1")) == (404, "MANIFEST_UNKNOWN")


async def test_a_manifest_needs_what_it_names(client):
    """Blobs of an image and images of an index must be pushed first; a manifest that is none is refused."""
    made = artifact({"x": b"1"})
    assert await code(await push_manifest(client, made, "v1")) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert await code(await push_manifest(client, index({"amd64": made}), "v1")) == (404, "MANIFEST_BLOB_UNKNOWN")
    for body in (b"{", b"[]", b'{"schemaVersion": 1}', b'{"schemaVersion": 2, "layers": [{}]}'):
        reply = await client.put("/v2/a/manifests/v1", data=body)
        assert await code(reply) == (400, "MANIFEST_INVALID")
    reply = await client.put(f"/v2/a/manifests/{digest_of(b'?')}", data=b'{"schemaVersion": 2}')
    assert await code(reply) == (400, "DIGEST_INVALID")


async def test_tags_and_repositories_are_listed_in_pages(client):
    """In order, with a link to the next page; a deleted tag is gone."""
    for content in artifact({}).blobs.values():
        await push_blob(client, content)
    for tag in ("c", "a", "b"):
        assert (await push_manifest(client, artifact({}), tag)).status == 201
    reply = await client.get("/v2/a/b/tags/list", params={"n": "2"})
    assert await reply.json() == {"name": "a/b", "tags": ["a", "b"]}
    assert reply.headers["Link"] == '</v2/a/b/tags/list?n=2&last=b>; rel="next"'
    assert (await (await client.get("/v2/a/b/tags/list?n=2&last=b")).json())["tags"] == ["c"]
    assert (await client.delete("/v2/a/b/manifests/b")).status == 202
    assert (await (await client.get("/v2/a/b/tags/list")).json())["tags"] == ["a", "c"]
    assert (await (await client.get("/v2/_catalog")).json())["repositories"] == ["a/b"]
    assert await code(await client.get("/v2/no/tags/list")) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/UPPER/tags/list",
        "/v2/a/../../etc/tags/list",
        "/v2/a/manifests/..%2f..%2fx",
        "/v2/a/blobs/sha256:..%2f..%2fpasswd",
        "/v2/a/blobs/uploads/..%2fblobs",
        "/v2/_uploads/x/tags/list",
    ],
)
async def test_no_path_leads_out_of_the_folder(client, path):
    """Names, tags, digests and uploads are what the specification says, or an error."""
    from yarl import URL

    reply = await client.session.get(client.make_url("/").join(URL(path, encoded=True)))
    assert reply.status in (400, 404)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_with_credentials_every_request_needs_them(tmp_path):
    """401 with a challenge without, or with a wrong one; the right one opens reading and writing."""
    app = make_registry(Storage(tmp_path), {"me": "pässword"})
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = server.make_url("/v2/")
        for headers in ({}, basic("me", "wrong"), basic("you", "pässword"), {"Authorization": "Basic !"}):
            async with session.get(url, headers=headers) as reply:
                assert await code(reply) == (401, "UNAUTHORIZED")
                assert reply.headers["WWW-Authenticate"].startswith("Basic ")
        async with session.get(url, headers=basic("me", "pässword")) as reply:
            assert reply.status == 200
            assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_credentials_come_from_lines_of_a_file(tmp_path):
    """A password may hold a colon; a line of another form is named before anything is served."""
    file = tmp_path / "users"
    file.write_text("me:a:b\n\nyou:c\n")
    assert read_credentials(file) == {"me": "a:b", "you": "c"}
    file.write_text("me\n")
    with pytest.raises(CliError, match="user:password"):
        read_credentials(file)


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
async def test_the_command_serves_skopeo_and_keeps_its_folder(tmp_path):
    """`kaito registry` prints its address; skopeo pushes, and after a kill and a restart lists and pulls."""
    made = image([archive({"data/x": BLOB})])
    layout = made.write_layout(tmp_path / "oci", "v1")

    async def start(port: int) -> tuple[asyncio.subprocess.Process, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "kaito",
            "registry",
            f"--data-dir={tmp_path / 'data'}",
            f"--port={port}",
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        return process, line.split()[2].rstrip(",")

    first, address = await start(0)
    await run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{address}/skopeo/x:v1")
    first.send_signal(signal.SIGKILL)
    await first.wait()
    second, again = await start(int(address.rpartition(":")[2]))
    assert again == address
    tags = await run("skopeo", "list-tags", "--tls-verify=false", f"docker://{address}/skopeo/x")
    assert json.loads(tags)["Tags"] == ["v1"]
    copied = tmp_path / "copied"
    await run("skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/skopeo/x:v1", f"oci:{copied}:v1")
    assert all((copied / "blobs" / "sha256" / digest[7:]).read_bytes() == c for digest, c in made.blobs.items())
    second.terminate()
    assert await second.wait() == 0
