"""The client against scripted servers: errors, retries, secrets, what is sent, who is told of writes."""

from __future__ import annotations

import asyncio
import gzip
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from manager import errors
from manager.client import Client, FieldValidation, PatchType
from manager.config import RestConfig
from manager.errors import api_error
from manager.resources import CONFIGMAPS, NODES, PODS
from manager.testing.raw import Exchange, RawServer, answering
from manager.testing.scripted import Script, config_map, failing, listing, watching
from manager.transport import Transport
from manager.types import Obj, Resource
from manager.writes import Write


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", errors.MethodNotAllowed),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Gone),
        (415, "UnsupportedMediaType", errors.UnsupportedMediaType),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (502, "", errors.ServerError),
    ],
)
async def test_an_answer_becomes_the_error_of_its_kind(
    client: Client, script: Script, status: int, reason: str, kind: type[errors.ApiError]
) -> None:
    """Status code and reason choose the class; the server's words are kept."""
    script.lists = [failing(status, reason, "the server's words")]
    with pytest.raises(kind) as caught:
        await client.get(CONFIGMAPS, "a", "n")

    assert (caught.value.status, caught.value.message) == (status, "the server's words")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_retry_after_is_obeyed(client: Client, script: Script, status: int) -> None:
    """A 429 or 5xx that names a time is tried again after it, writes too, and succeeds."""
    later = failing(status, headers={"Retry-After": "0"})
    script.lists = [later, later, listing("a"), later, listing("a")]

    assert len((await client.list(CONFIGMAPS)).items) == 1
    await client.create(CONFIGMAPS, {"metadata": {"name": "a"}}, namespace="n")
    assert [seen["method"] for seen in script.seen] == ["GET"] * 3 + ["POST"] * 2


async def test_retry_after_is_obeyed_ten_times(client: Client, script: Script) -> None:
    """The eleventh answer is the caller's, with the time in it."""
    script.lists = [failing(429, headers={"Retry-After": "0"})] * 20
    with pytest.raises(errors.TooManyRequests) as caught:
        await client.list(CONFIGMAPS)

    assert (len(script.seen), caught.value.retry_after) == (11, 0.0)


@pytest.mark.looptime
async def test_retry_after_is_waited_for() -> None:
    """The time is in seconds, and a minute at most is waited for it."""
    answers = [(0, "3"), (0, "100000"), (0, "")]
    exchanges: list[float] = []

    class Still(Transport):
        async def _exchange(self, *_: Any) -> Any:
            exchanges.append(asyncio.get_running_loop().time())
            _, wait = answers.pop(0)
            return (503 if wait else 200), ({"Retry-After": wait} if wait else {}), b"{}"

    await Still(RestConfig(server="http://x"), user_agent="x").request("GET", "/")

    assert [round(time - exchanges[0]) for time in exchanges] == [0, 3, 63]


@pytest.mark.parametrize(
    ("status", "headers"), [(503, {}), (429, {"Retry-After": "soon"}), (404, {"Retry-After": "0"})]
)
async def test_an_error_without_a_time_is_not_retried(
    client: Client, script: Script, status: int, headers: dict[str, str]
) -> None:
    """Nothing promises that the request had no effect, so it is the caller's to decide."""
    script.lists = [failing(status, headers=headers), listing("a")]
    with pytest.raises(errors.ApiError):
        await client.list(CONFIGMAPS)

    assert len(script.seen) == 1


async def test_foreign_exceptions_do_not_get_out_of_a_watch(client: Client, script: Script) -> None:
    """A line that is not JSON ends the watch with this room's own error."""

    async def nonsense(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"<html>\n")
        return response

    script.watches = [nonsense]
    with pytest.raises(errors.ConnectionFailed):
        _ = [event async for event in client.watch(CONFIGMAPS)]


async def test_a_line_of_many_megabytes_is_one_event(client: Client, script: Script) -> None:
    """An object larger than any buffer arrives whole."""
    large = config_map("large", "11", blob="x" * 6_000_000)
    script.watches = [watching(("ADDED", large))]

    events = [event async for event in client.watch(CONFIGMAPS)]

    assert len(events[0].object["data"]["blob"]) == 6_000_000


async def test_the_token_is_sent_and_never_shown(
    client: Client, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """The bearer token is in the header, and in no repr and no log."""
    caplog.set_level(logging.DEBUG)
    sent: list[str] = []

    async def record(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers["Authorization"])
        return await failing(401, "Unauthorized")(request)

    script.lists = [record]
    with pytest.raises(errors.Unauthorized) as caught:
        await client.get(CONFIGMAPS, "a", "n")

    assert sent == ["Bearer secret-token"]
    assert "secret-token" not in f"{client!r} {client.config!r} {caught.value!r} {caplog.text}"


async def test_cancelling_a_watch_closes_it_at_once(client: Client, script: Script) -> None:
    """A task that waits for events ends when it is cancelled."""
    script.watches = [watching(hold=True)]

    async def consume() -> None:
        async for _ in client.watch(CONFIGMAPS):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    async with asyncio.timeout(1):
        await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()


# ------------------------------------------------------------------ lists


async def test_an_expired_continuation_is_answered_with_one_whole_list(client: Client, script: Script) -> None:
    """The second page's token is too old, so everything is asked for once more, without pages."""
    script.lists = [listing("a", cont="more"), failing(410, "Expired"), listing("a", "b")]

    assert [obj["metadata"]["name"] for obj in (await client.list(CONFIGMAPS)).items] == ["a", "b"]
    assert [(seen.get("limit"), seen.get("continue")) for seen in script.seen] == [
        ("500", None),
        ("500", "more"),
        (None, None),
    ]


async def test_a_table_is_refused(client: Client, script: Script) -> None:
    """A server that answers with a Table does not give the objects that were asked for."""

    async def table(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": []})

    script.lists = [table]
    with pytest.raises(errors.ApiError, match="Table") as caught:
        await client.list(CONFIGMAPS)

    assert caught.value.status == 406


async def test_only_metadata_is_kept_of_a_server_that_sends_more(client: Client, script: Script) -> None:
    """A server that does not know PartialObjectMetadata cannot slip contents into a metadata-only client."""
    script.lists = [listing("a")]
    (item,) = (await client.metadata_only().list(CONFIGMAPS)).items

    assert sorted(item) == ["apiVersion", "kind", "metadata"]


# ------------------------------------------------------------------ what is sent


async def sent(call: Callable[[Client], Awaitable[Any]], **options: Any) -> bytes:
    """The one request that the call makes."""
    async with (
        RawServer(answering) as server,
        Client(RestConfig(server=server.url, token="t"), **options) as client,
    ):
        await call(client)
    (request,) = server.requests
    return request.replace(f"127.0.0.1:{server.port}".encode(), b"HOST")


async def test_a_request_is_what_is_needed_and_no_more() -> None:
    """The bytes of a status patch."""
    request = await sent(
        lambda c: c.patch(PODS, "p", {"status": {"phase": "Ü"}}, namespace="n", subresource="status"),
        user_agent="kaito/1",
    )

    assert (
        request
        == (
            "PATCH /api/v1/namespaces/n/pods/p/status?fieldManager=kaito HTTP/1.1\r\n"
            "Host: HOST\r\nUser-Agent: kaito/1\r\nAccept-Encoding: gzip\r\nAuthorization: Bearer t\r\n"
            "Accept: application/json\r\nContent-Type: application/merge-patch+json\r\n"
            'Content-Length: 25\r\n\r\n{"status":{"phase":"Ü"}}'
        ).encode()
    )


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda c: c.get(NODES, "a", "ignored"), "GET /api/v1/nodes/a"),
        (lambda c: c.get(NODES, "a", resource_version="0"), "GET /api/v1/nodes/a?resourceVersion=0"),
        (lambda c: c.get(NODES, "system:node é?#"), "GET /api/v1/nodes/system%3Anode%20%C3%A9%3F%23"),
        (lambda c: c.get(NODES, "system:node"), "GET /api/v1/nodes/system:node"),
        (lambda c: c.request("GET", "/a b?x=1&y=ü", query={"z": True}), "GET /a%20b?x=1&y=%C3%BC&z=true"),
        (lambda c: c.create(NODES, {}), "POST /api/v1/nodes?fieldManager=kaito"),
        (lambda c: c.create(NODES, {}, field_manager=""), "POST /api/v1/nodes"),
        (
            lambda c: c.create(
                NODES, {}, field_manager="a b", dry_run=True, field_validation=FieldValidation.STRICT
            ),
            "POST /api/v1/nodes?fieldManager=a+b&dryRun=All&fieldValidation=Strict",
        ),
        (
            lambda c: c.apply(NODES, {"metadata": {"name": "a"}}, force=False),
            "PATCH /api/v1/nodes/a?fieldManager=kaito&fieldValidation=Strict&force=false",
        ),
        (lambda c: c.delete(NODES, "a"), "DELETE /api/v1/nodes/a"),
        (
            lambda c: c.delete_all_of(PODS, "n", label_selector="a in (b,c)"),
            "DELETE /api/v1/namespaces/n/pods?labelSelector=a+in+%28b%2Cc%29",
        ),
    ],
)
async def test_the_request_line(call: Callable[[Client], Awaitable[Any]], line: str) -> None:
    """Paths and queries are encoded once, defaults are there, and what was not asked for is not."""
    assert (await sent(call)).decode().split("\r\n")[0] == f"{line} HTTP/1.1"


async def test_all_options_of_a_delete_are_in_its_body() -> None:
    """A server that sees a body ignores the query."""
    request = await sent(
        lambda c: c.delete(
            NODES, "a", propagation="Foreground", grace_seconds=0, uid="u", resource_version="7", dry_run=True
        )
    )

    assert request.partition(b"\r\n\r\n")[2] == (
        b'{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Foreground","gracePeriodSeconds":0,'
        b'"preconditions":{"uid":"u","resourceVersion":"7"},"dryRun":["All"]}'
    )


async def test_what_is_applied_keeps_its_owner_s_object() -> None:
    """managedFields are left out of what is sent, not out of the object."""
    obj: Obj = {"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}}
    request = await sent(lambda c: c.apply(NODES, obj))

    assert b"managedFields" not in request
    assert obj == {"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}}


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get(PODS, "a"),
        lambda c: c.get(PODS, "", "n"),
        lambda c: c.get(PODS, "../secrets/x", "n"),
        lambda c: c.get(PODS, "..", "n"),
        lambda c: c.get(PODS, "a%2fb", "n"),
        lambda c: c.get(PODS, "a", "../../x"),
        lambda c: c.list(PODS, "a/b"),
        lambda c: c.delete(PODS, "", "n"),
        lambda c: c.replace(PODS, {}),
        lambda c: c.apply(PODS, {"metadata": {"namespace": "n"}}),
        lambda c: c.apply(PODS, {"metadata": {"name": "a", "namespace": "n"}}, field_manager=""),
        lambda c: c.create(PODS, {}, namespace="n", subresource="eviction"),
        lambda c: c.patch(PODS, "a", {"a": {1, 2}}, namespace="n"),
        lambda c: c.create(PODS, {"a": 2**70}, namespace="n"),
        lambda c: c.create(PODS, {1: "a"}, namespace="n"),
        lambda c: c.create(PODS, {"a": math}, namespace="n"),
        lambda c: c.request("GET", "/", headers={"X": "a\r\nY: b"}),
    ],
)
async def test_what_cannot_be_meant_is_not_sent(call: Callable[[Client], Awaitable[Any]]) -> None:
    """A name that is missing or leads elsewhere, a namespace that is missing, a body that is not JSON."""
    async with RawServer(answering) as server, Client(RestConfig(server=server.url)) as client:
        with pytest.raises(errors.InvalidRequest):
            await call(client)

    assert server.requests == []


async def test_answers_may_be_compressed_and_in_chunks() -> None:
    """Large answers of API servers are."""
    body = gzip.compress(b'{"kind": "ConfigMap", "data": {"a": "' + b"x" * 300_000 + b'"}}')

    async def handle(exchange: Exchange) -> None:
        while await exchange.request():
            await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n")
            await exchange.send(b"Transfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 100):
                part = body[start : start + 100]
                await exchange.send(b"%x\r\n%s\r\n" % (len(part), part))
            await exchange.send(b"0\r\n\r\n")

    async with RawServer(handle) as server, Client(RestConfig(server=server.url)) as client:
        for _ in range(2):
            assert len((await client.get(CONFIGMAPS, "a", "n"))["data"]["a"]) == 300_000

    assert server.connections == 1


# ------------------------------------------------------------------ warnings


@pytest.mark.acceptance("FW-G10")
async def test_the_words_of_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Each text once, whatever the header looks like, also with errors and streams; other codes are not ours."""
    values = [
        '299 - "one"',
        '299 - "one"',
        '299 kube "two \\"quoted\\"" "Thu, 01 Jan 1970 00:00:00 GMT"',
        '299 - "three", 299 - "four"',
        '199 - "not this"',
        "nonsense",
        '299 - ""',
    ]
    lines = "".join(f"Warning: {value}\r\n" for value in values)
    statuses = ["200 OK", "403 No", "200 OK"]

    async def handle(exchange: Exchange) -> None:
        while await exchange.request():
            await exchange.answer(status=statuses.pop(0), headers=lines)

    heard: list[str] = []
    async with RawServer(handle) as server, Client(RestConfig(server=server.url), on_warning=heard.append) as c:
        await c.get(NODES, "a")
        with pytest.raises(errors.Forbidden):
            await c.get(NODES, "a")
        _ = [line async for line in c.stream_lines("/log")]

    assert heard == ["one", 'two "quoted"', "three", "four"]
    assert caplog.text == ""


# ------------------------------------------------------------------ who is told of writes


class Told:
    """A WriteObserver that notes what it is told, and whether the request had been sent by then."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.notes: list[tuple[Any, ...]] = []

    def began(self, write: Write) -> object:
        self.notes.append(("began", write, len(self.server.requests)))
        return write

    def ended(self, token: object, answer: Obj | None) -> None:
        self.notes.append(("ended", token, answer))


OBJ: Obj = {"metadata": {"name": "a", "namespace": "n"}}


@pytest.mark.parametrize(
    ("call", "write"),
    [
        (lambda c: c.create(PODS, OBJ), Write("create", PODS, "n", "a")),
        (
            lambda c: c.create(PODS, {"metadata": {"generateName": "a-"}}, namespace="n"),
            Write("create", PODS, "n", ""),
        ),
        (lambda c: c.replace(PODS, OBJ), Write("update", PODS, "n", "a")),
        (lambda c: c.replace(PODS, OBJ, subresource="status"), Write("update", PODS, "n", "a", "status")),
        (lambda c: c.patch(PODS, "a", {}, namespace="n"), Write("patch", PODS, "n", "a")),
        (lambda c: c.patch(NODES, "a", {}, namespace="n"), Write("patch", NODES, "", "a")),
        (lambda c: c.patch_status(PODS, OBJ, {"b": 1}), Write("patch", PODS, "n", "a", "status")),
        (lambda c: c.apply(PODS, OBJ, dry_run=True), Write("apply", PODS, "n", "a", None, True)),
        (
            lambda c: c.with_defaults(dry_run=True).delete(PODS, "a", "n"),
            Write("delete", PODS, "n", "a", None, True),
        ),
        (lambda c: c.in_namespace("n").delete(PODS, "a"), Write("delete", PODS, "n", "a")),
        (
            lambda c: c.create(PODS, {}, name="a", namespace="n", subresource="eviction"),
            Write("create", PODS, "n", "a", "eviction"),
        ),
    ],
)
async def test_an_observer_is_told_before_and_after_each_write(
    call: Callable[[Client], Awaitable[Any]], write: Write
) -> None:
    """Before it is sent, and then with the answer; also when it was set after views were made."""
    async with RawServer(answering) as server, Client(RestConfig(server=server.url)) as client:
        told = Told(server)
        client.write_observer = told
        await call(client)

    assert told.notes == [("began", write, 0), ("ended", write, {})]


async def test_an_observer_is_told_of_failures_and_cancellations_too() -> None:
    """Every write that began ends, without an answer."""

    async def handle(exchange: Exchange) -> None:
        request = await exchange.request()
        if b"/hang" in request:
            await asyncio.sleep(3600)
        await exchange.answer(b"{}" if b"/refused" in request else b"nonsense", status="409 No")

    async with RawServer(handle) as server:
        told = Told(server)
        async with Client(RestConfig(server=server.url), write_observer=told) as client:
            with pytest.raises(errors.Conflict):
                await client.patch(NODES, "refused", {})
            task = asyncio.create_task(client.patch(NODES, "hang", {}))
            while len(server.requests) < 2:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with pytest.raises(errors.InvalidRequest):
                await client.patch(NODES, "unsendable", {"a": {1}})

    assert [note[0] for note in told.notes] == ["began", "ended"] * 3
    assert [note[2] for note in told.notes if note[0] == "ended"] == [None] * 3


async def test_an_observer_is_not_told_of_reads_and_collections() -> None:
    """What is not a write of one object is none of its business."""
    async with RawServer(answering) as server:
        told = Told(server)
        async with Client(RestConfig(server=server.url), write_observer=told) as client:
            await client.get(NODES, "a")
            await client.list(NODES)
            await client.delete_all_of(PODS, "n")
            assert await client.patch_status(PODS, OBJ, {}) is OBJ

    assert told.notes == []


# ------------------------------------------------------------------ errors, views


@pytest.mark.acceptance("FW-G08")
@pytest.mark.parametrize(
    ("message", "manager"),
    [
        ('conflict with "kubectl" using v1', "kubectl"),
        ('conflict with "a b" with subresource "status" using apps/v1 at 2020-01-01T00:00:00Z', "a b"),
        ('conflict with "one \\"quoted\\" \\\\ name" using v1', 'one "quoted" \\ name'),
    ],
)
def test_the_other_manager_is_read_from_the_server_s_words(message: str, manager: str) -> None:
    """There is no field for it."""
    causes = [{"reason": "FieldManagerConflict", "message": message, "field": ".spec.a"}] * 2
    error = api_error(409, {"kind": "Status", "reason": "Conflict", "details": {"causes": causes}})

    assert isinstance(error, errors.ApplyConflict)
    assert error.managers == (manager,)
    assert [(cause.field, cause.message) for cause in error.causes] == [(".spec.a", message)] * 2


def test_an_ordinary_conflict_is_not_one_of_managers() -> None:
    """Nor do odd details make it one."""
    for details in ({}, {"causes": None}, {"causes": [1]}, {"causes": [{"reason": "x"}]}):
        error = api_error(409, {"reason": "Conflict", "details": details})
        assert type(error) is errors.Conflict


async def test_views_say_what_they_are_and_close_nothing() -> None:
    """A view shares the connections of its client, which closes them."""
    async with RawServer(answering) as server, Client(RestConfig(server=server.url)) as client:
        view = client.in_namespace("n").metadata_only().with_defaults(dry_run=True, field_manager="m")
        assert repr(view) == f"<Client {server.url} as m in n metadata-only dry-run>"
        assert repr(client) == f"<Client {server.url} as kaito>"
        await view.close()
        await view.delete(PODS, "a")
        await client.get(NODES, "a")

    assert server.connections == 1


async def test_a_name_of_a_subresource_may_be_anything() -> None:
    """Kinds of bodies that are known need not be given; others are the object's."""
    approval = Resource(
        "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", False
    )
    request = await sent(lambda c: c.replace(approval, {"metadata": {"name": "a"}}, subresource="approval"))
    token = await sent(lambda c: c.create(PODS, {}, name="a", namespace="n", subresource="token"))
    own = await sent(
        lambda c: c.create(PODS, {"apiVersion": "x/v1"}, name="a", namespace="n", subresource="eviction")
    )

    assert b'"kind":"CertificateSigningRequest"' in request
    assert b'"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"' in token
    assert b'"apiVersion":"x/v1","kind":"Eviction"' in own


@pytest.mark.parametrize("type", list(PatchType))
async def test_each_patch_says_its_type(type: PatchType) -> None:
    """In its content type."""
    request = await sent(lambda c: c.patch(NODES, "a", [] if type is PatchType.JSON else {}, type=type))

    assert f"Content-Type: {type.value}\r\n".encode() in request
