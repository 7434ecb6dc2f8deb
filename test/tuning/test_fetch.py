"""Datasets from the web: resumed, checked, bounded, and never from where nothing may be fetched."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult
from aiohttp.test_utils import TestServer

from api.progress import TuneFailure
from inference_server.tuning.addresses import GuardedResolver
from inference_server.tuning.errors import TuneError
from inference_server.tuning.fetch import FetchRules, fetch_all, names_of

CONTENT = bytes(range(256)) * 4096  # 1 MiB
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Site:
    """A web server whose one file is served as a test says."""

    port: int = 0
    handler: Handler | None = None
    seen: list[web.Request] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1", path: str = "/train.jsonl") -> str:
        """An address on it."""
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """See the class."""
    found = Site()

    async def serve(request: web.Request) -> web.StreamResponse:
        found.seen.append(request)
        assert found.handler is not None
        return await found.handler(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    server = TestServer(app)
    await server.start_server()
    found.port = server.port or 0
    yield found
    await server.close()


async def whole(_: web.Request) -> web.StreamResponse:
    """The file, without ranges."""
    return web.Response(body=CONTENT)


def breaking(etags: Sequence[str], *, ranges: bool = True) -> Handler:
    """Breaks off in the middle at the first request. The file has one ETag a request, the last one for ever."""
    count = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal count
        etag = etags[min(count, len(etags) - 1)]
        count += 1
        begin, status = 0, 200
        if ranges and "Range" in request.headers and request.headers.get("If-Range") == etag:
            begin, status = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
        reply = web.StreamResponse(status=status, headers={"ETag": etag})
        reply.content_length = len(CONTENT) - begin
        if status == 206:
            reply.headers["Content-Range"] = f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}"
        await reply.prepare(request)
        if count == 1:
            await reply.write(CONTENT[:500_000])
            assert request.transport is not None
            request.transport.close()
            return reply
        await reply.write(CONTENT[begin:])
        return reply

    return handler


def rules(**changes: Any) -> FetchRules:
    """Quick, and from anywhere unless a test says otherwise."""
    return FetchRules(**{"private": True, "first_delay": 0.001, "attempts": 3, **changes})


async def refused(site: Site, folder: Path, **changes: Any) -> TuneError:
    """The error of a download that cannot succeed."""
    with pytest.raises(TuneError) as caught:
        await fetch_all([changes.pop("url", site.url())], folder, rules(**changes))
    return caught.value


async def test_a_download_that_broke_off_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    """The second request asks for the rest of the same version, and the file is whole."""
    site.handler = breaking(['"one"'])
    seen: list[tuple[int, int | None]] = []

    (path,) = await fetch_all([site.url()], tmp_path, rules(), on_bytes=lambda done, of: seen.append((done, of)))

    assert path.read_bytes() == CONTENT
    assert path.name == "train.jsonl"
    second = site.seen[1].headers
    assert (second["Range"].startswith("bytes="), second["If-Range"]) == (True, '"one"')
    assert second["Range"] != "bytes=0-"
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(("etags", "ranges"), [(['"one"', '"two"'], True), (['"one"'], False), (["W/weak"], True)])
async def test_what_cannot_be_gone_on_with_is_begun_anew(
    site: Site, tmp_path: Path, etags: list[str], ranges: bool
) -> None:
    """A file that changed, a server without ranges, a version that cannot be told: the result is whole."""
    site.handler = breaking(etags, ranges=ranges)

    (path,) = await fetch_all([site.url()], tmp_path, rules())

    assert path.read_bytes() == CONTENT


async def test_a_finished_download_is_not_repeated(site: Site, tmp_path: Path) -> None:
    """After a restart a complete file is taken as it is, even when the signature in its address is a new one."""
    site.handler = whole
    await fetch_all([site.url() + "?sig=1"], tmp_path, rules())

    (path,) = await fetch_all([site.url() + "?sig=2"], tmp_path, rules())

    assert len(site.seen) == 1
    assert path.read_bytes() == CONTENT


async def test_several_files_keep_apart(site: Site, tmp_path: Path) -> None:
    """Two addresses with one file name become two files."""
    site.handler = whole

    paths = await fetch_all([site.url(path="/a/x.csv"), site.url(path="/b/x.csv")], tmp_path, rules())

    assert [path.name for path in paths] == ["x.csv", "1-x.csv"]
    assert all(path.read_bytes() == CONTENT for path in paths)


def test_names_of_files_are_harmless() -> None:
    """Names come from paths alone, lose what a shell or a folder could trip over, and are never hidden."""
    urls = ["https://h/a/../..%2fetc%2f.passwd?download=true", "https://h/", "https://h/data%20set.parquet?x=/y"]

    assert names_of(urls) == ["passwd", "data", "data_set.parquet"]


async def test_what_is_not_there_is_said_at_once(site: Site, tmp_path: Path) -> None:
    """404 fails without a second try, and repeating the run does not help."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    site.handler = handler

    error = await refused(site, tmp_path, url=site.url() + "?sig=secret")

    assert (error.reason, error.temporary, len(site.seen)) == (TuneFailure.DATASET_NOT_FOUND, False, 1)
    assert "404" in error.message
    assert "secret" not in error.message


async def test_a_server_in_trouble_is_tried_again(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """503 is retried; when it stays, the run may succeed later. A signature is never logged."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    site.handler = handler
    with caplog.at_level(logging.DEBUG, "kaito"):
        error = await refused(site, tmp_path, url=site.url() + "?sig=secret")

    assert (error.reason, error.temporary, len(site.seen)) == (TuneFailure.DATASET_NOT_FOUND, True, 3)
    assert "secret" not in caplog.text + str(error)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_dataset_has_a_largest_size(site: Site, tmp_path: Path, announced: bool) -> None:
    """Too many bytes are refused, by the announced length or when they come; nothing is left under the name."""

    async def handler(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        if announced:
            reply.content_length = len(CONTENT)
        await reply.prepare(request)
        await reply.write(CONTENT)
        return reply

    site.handler = handler

    error = await refused(site, tmp_path, most=1000)

    assert error.reason is TuneFailure.DATASET_INVALID
    assert "--max-dataset-bytes" in error.next_step
    assert not (tmp_path / "train.jsonl").exists()


async def test_a_checksum_is_kept_to(site: Site, tmp_path: Path) -> None:
    """Another digest than was asked for fails and leaves nothing; the right one passes."""
    site.handler = whole
    digest = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(TuneError, match="SHA-256"):
        await fetch_all([site.url()], tmp_path, rules(), sha256=["0" * 64])
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]

    (path,) = await fetch_all([site.url()], tmp_path, rules(), sha256=[digest.upper()])

    assert path.read_bytes() == CONTENT


# ------------------------------------------------------------------ addresses


HERE = "here"  # the test's own server, taken for a public one


class Names(GuardedResolver):
    """A resolver with answers of its own: one for each lookup of a name, the last one for ever."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__(self._find)
        self.answers = {"public.test": [HERE], **answers}
        self.lookups: list[str] = []

    async def _find(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        address = self.answers[host][0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port))]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As the guard does, but for HERE."""
        self.lookups.append(host)
        found = self.answers[host]
        try:
            if found[0] != HERE:
                return await super().resolve(host, port, family)
        finally:
            del found[: len(found) > 1]
        here: ResolveResult = {
            "hostname": host,
            "host": "127.0.0.1",
            "port": port,
            "family": socket.AF_INET,
            "proto": 6,
            "flags": socket.AI_NUMERICHOST,
        }
        return [here]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://169.254.169.254/metadata/identity",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706433:{port}/",
        "http://localhost:{port}/secret",
        "http://inner.test:{port}/secret",
        "http://inner6.test:{port}/secret",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_to_where_nothing_may_be_fetched_is_not_followed(
    site: Site, tmp_path: Path, target: str
) -> None:
    """Each hop is judged, names by what they resolve to: the second request is never made."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target.format(port=site.port)})

    site.handler = handler
    names = Names({"inner.test": ["10.0.0.1"], "inner6.test": ["fd00::1"]})

    error = await refused(site, tmp_path, url=site.url("public.test"), private=False, resolver=names)

    assert error.reason is TuneFailure.DATASET_REFUSED
    assert "--allow-private-dataset-urls" in error.next_step
    assert len(site.seen) == 1


async def test_a_name_that_changes_its_mind_gains_nothing(site: Site, tmp_path: Path) -> None:
    """A name that led to a public server at the first attempt and to a private one at the next is refused then."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    site.handler = handler
    names = Names({"rebound.test": [HERE, "10.0.0.1"]})

    error = await refused(site, tmp_path, url=site.url("rebound.test"), private=False, resolver=names)

    assert error.reason is TuneFailure.DATASET_REFUSED
    assert "rebound.test resolves to 10.0.0.1" in error.message
    assert len(site.seen) == 1


async def test_the_connection_goes_to_the_address_that_was_judged(site: Site, tmp_path: Path) -> None:
    """A name is looked up once for each connection: there is no second lookup that could answer otherwise."""
    site.handler = whole
    names = Names({"once.test": [HERE, "10.0.0.1"]})

    (path,) = await fetch_all([site.url("once.test")], tmp_path, rules(private=False, resolver=names))

    assert path.read_bytes() == CONTENT
    assert names.lookups == ["once.test"]


async def test_one_private_address_among_many_is_enough() -> None:
    """A name with a public and a private address is refused, whichever comes first."""

    async def lookup(_: str, port: int) -> Sequence[tuple[Any, ...]]:
        addresses = [(socket.AF_INET, "93.184.215.14"), (socket.AF_INET, "10.1.2.3")]
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for kind, address in addresses]

    with pytest.raises(Exception, match="private address"):
        await GuardedResolver(lookup).resolve("mixed.test", 80)


async def test_private_addresses_may_be_allowed(site: Site, tmp_path: Path) -> None:
    """With the flag the very same address is fetched from; without it, it is not."""
    site.handler = whole

    error = await refused(site, tmp_path, private=False)
    (path,) = await fetch_all([site.url()], tmp_path, rules(private=True))

    assert error.reason is TuneFailure.DATASET_REFUSED
    assert path.read_bytes() == CONTENT
