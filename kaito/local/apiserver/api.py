"""The root of the HTTP interface: who asks, what for, and how failures look.

In: every HTTP request. Out: a response; whatever goes wrong inside becomes a Status object, never a traceback
at the client. Health and version are open, everything else needs an identity. Discovery and OpenAPI documents
come from the registry; the large ones are made in a thread and kept until a CRD changes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import platform
from collections import Counter
from collections.abc import Callable
from urllib.parse import unquote

import orjson
from aiohttp import web

from kaito.local.apiserver import discovery, openapi
from kaito.local.apiserver.auth import Authenticator, Identity
from kaito.local.apiserver.definitions import KUBERNETES_VERSION
from kaito.local.apiserver.deletion import rfc3339
from kaito.local.apiserver.errors import StatusError, bad_request, method_not_allowed
from kaito.local.apiserver.handlers import Call, Handlers, add_warnings, json_response
from kaito.local.apiserver.registry import Registry, ResourceType
from kaito.local.apiserver.requests import Path, parse_path
from kaito.local.apiserver.reviews import answer, is_review
from kaito.local.apiserver.storage import WriteFailed
from kaito.local.apiserver.subresources import SPECIAL, Subresources, bind
from manager.types import Obj

__all__ = ["Api"]

_log = logging.getLogger("kaito.local.apiserver.api")
_OPEN = ("/healthz", "/livez", "/readyz", "/version")
_ASKED_FOR = web.RequestKey("asked_for", tuple[str, str])  # resource and subresource, for the metrics
_AGGREGATED = "APIGroupDiscoveryList"


class Api:
    """Answers requests for one server."""

    def __init__(
        self,
        registry: Registry,
        handlers: Handlers,
        subresources: Subresources,
        authenticator: Authenticator,
        clock: Callable[[], dt.datetime],
    ) -> None:
        self._registry = registry
        self._handlers = handlers
        self._subresources = subresources
        self._authenticator = authenticator
        self._clock = clock
        self._documents: dict[str, tuple[bytes, str]] = {}
        self._document_lock = asyncio.Lock()
        self._served: Counter[tuple[str, str, str, int]] = Counter()
        self._generation = 0
        self.address = ""

    def types_changed(self) -> None:
        """A CRD came, changed or went: documents made before say the wrong thing."""
        self._documents.clear()
        self._generation += 1

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            response = await self._route(request)
        except StatusError as error:
            failed_response = json_response(orjson.dumps(error.body()), error.code, error.headers)
            add_warnings(failed_response, error.warnings)
            response = failed_response
        except web.HTTPRequestEntityTooLarge:
            too_large = StatusError(413, "RequestEntityTooLarge", "the request body is larger than 3 MiB")
            response = json_response(orjson.dumps(too_large.body()), 413)
        except WriteFailed as error:
            failed = StatusError(500, "InternalError", str(error))
            response = json_response(orjson.dumps(failed.body()), 500)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("request failed method=%s path=%s", request.method, request.path)
            failed = StatusError(500, "InternalError", f"Internal error occurred: {type(error).__name__}: {error}")
            response = json_response(orjson.dumps(failed.body()), 500)
        self._served[request.method, *request.get(_ASKED_FOR, ("", "")), response.status] += 1
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path  # decoded by aiohttp
        if path.startswith(_OPEN):
            return self._open(path)
        identity = self._authenticator.identify(request.headers.get("Authorization", ""), _certificate(request))
        clean = path.rstrip("/")
        if clean in ("/api", "/apis"):
            return self._discovery_root(request, core=clean == "/api")
        if clean.startswith("/openapi/"):
            return await self._openapi(request, clean)
        if clean == "/metrics":
            return self._metrics()
        if not clean:
            paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3"]
            return json_response(orjson.dumps({"paths": [*paths, "/readyz", "/version"]}))
        if clean.startswith("/apis/") and clean.count("/") == 2:
            found = discovery.api_group(self._registry, clean.rpartition("/")[2])
            return _document(found)
        parsed = parse_path(request.url.raw_path if "%" in request.url.raw_path else path)
        if parsed is None:
            raise _no_such_path()
        if "%" in request.url.raw_path:
            parsed = Path(*(unquote(part) for part in _fields(parsed)))
        if not parsed.plural:
            return _document(discovery.api_resource_list(self._registry, parsed.group, parsed.version))
        return await self._resource(request, parsed, identity)

    # ------------------------------------------------------------------ resources

    async def _resource(self, request: web.BaseRequest, path: Path, identity: Identity) -> web.StreamResponse:
        resource = self._registry.lookup(path.group, path.version, path.plural)
        if resource is None:
            raise _no_such_path()
        request[_ASKED_FOR] = path.plural, path.subresource if path.subresource in resource.subresources else ""
        if path.namespace and not resource.namespaced:
            raise _no_such_path()
        if path.subresource and path.subresource not in resource.subresources:
            raise _no_such_path()
        call = Call(request, path, resource, self._clock, identity.user_info())
        if resource.verbs == ("create",):
            return await self._virtual(call, identity)
        if resource.namespaced and not path.namespace and (path.name or request.method not in ("GET", "HEAD")):
            raise method_not_allowed()
        if path.subresource in SPECIAL:
            return await self._subresources.handle(call)
        return await self._handlers.handle(call)

    async def _virtual(self, call: Call, identity: Identity) -> web.Response:
        """Types that are posted and never stored: reviews, and bindings by their old path."""
        resource = call.resource
        if call.request.method != "POST":
            raise method_not_allowed()
        body = (await call.body()).obj()
        if is_review(resource):
            reviewed = answer(resource, body, identity, self._authenticator.token)
            return call.respond(call.renderer.object(resource, reviewed), 201)
        if resource.plural == "bindings":
            name = str((body.get("metadata") or {}).get("name") or "")
            if not name:
                raise bad_request("metadata.name: Required value")
            pods = self._type("", "v1", "pods")
            bind(self._handlers.storage, pods, call.namespace, name, body, rfc3339(self._clock()))
            status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
            return call.respond(call.renderer.object(resource, status), 201)
        raise method_not_allowed()

    def _type(self, group: str, version: str, plural: str) -> ResourceType:
        found = self._registry.lookup(group, version, plural)
        assert found is not None  # noqa: S101 - built in
        return found

    # ------------------------------------------------------------------ everything else

    def _open(self, path: str) -> web.Response:
        if path == "/version":
            return json_response(orjson.dumps(_version()))
        if path.split("/", 2)[1] not in ("healthz", "livez", "readyz"):
            raise _no_such_path()
        return web.Response(text="ok")

    def _discovery_root(self, request: web.BaseRequest, *, core: bool) -> web.Response:
        accept = request.headers.get("Accept", "")
        for clause in accept.split(","):
            if f"as={_AGGREGATED}" not in clause.replace(" ", ""):
                if clause.strip().startswith(("application/json", "*/*")):
                    break
                continue
            version = "v2beta1" if "v=v2beta1" in clause.replace(" ", "") else "v2"
            document = discovery.aggregated(self._registry, core=core, version=version)  # type: ignore[arg-type]
            body = orjson.dumps(document)
            etag = '"' + hashlib.sha256(body).hexdigest().upper() + '"'
            headers = {
                "Content-Type": f"application/json;g=apidiscovery.k8s.io;v={version};as={_AGGREGATED}",
                "ETag": etag,
                "Vary": "Accept",
                "Cache-Control": "public",
            }
            if request.headers.get("If-None-Match") == etag:
                return web.Response(status=304, headers={"ETag": etag})
            return web.Response(body=body, headers=headers)
        if core:
            return _document(discovery.api_versions(self.address))
        return _document(discovery.api_group_list(self._registry))

    async def _openapi(self, request: web.BaseRequest, path: str) -> web.Response:
        if path == "/openapi/v3":
            make: Callable[[], Obj | None] = lambda: openapi.v3_index(self._registry)  # noqa: E731
        elif path == "/openapi/v2":
            accept = request.headers.get("Accept", "*/*")
            if "json" not in accept and "*/*" not in accept:
                raise StatusError(406, "NotAcceptable", "only application/json is served")
            make = lambda: openapi.v2(self._registry)  # noqa: E731
        else:
            name = path.removeprefix("/openapi/v3/")
            make = lambda: openapi.v3_document(self._registry, name)  # noqa: E731
        async with self._document_lock:
            generation = self._generation
            found = self._documents.get(path)
            if found is None:
                body = await asyncio.to_thread(_encoded, make)
                if body is None:
                    raise _no_such_path()
                found = body, '"' + hashlib.sha256(body).hexdigest().upper() + '"'
                if generation == self._generation:
                    self._documents[path] = found
        body, etag = found
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return json_response(body, headers={"ETag": etag, "Vary": "Accept", "Cache-Control": "no-cache, private"})

    def _metrics(self) -> web.Response:
        lines = ["# HELP apiserver_request_total Requests answered.", "# TYPE apiserver_request_total counter"]
        for (verb, resource, part, code), count in sorted(self._served.items()):
            labels = f'code="{code}",resource="{resource}",subresource="{part}",verb="{verb}"'
            lines.append(f"apiserver_request_total{{{labels}}} {count}")
        lines += ["# HELP apiserver_storage_objects Objects stored.", "# TYPE apiserver_storage_objects gauge"]
        for resource, count in sorted(self._handlers.storage.counts().items()):
            lines.append(f'apiserver_storage_objects{{resource="{resource}"}} {count}')
        lines += [
            "# HELP apiserver_longrunning_requests Open watches.",
            "# TYPE apiserver_longrunning_requests gauge",
        ]
        lines.append(f'apiserver_longrunning_requests{{verb="WATCH"}} {self._handlers.open_watches}')
        return web.Response(text="\n".join(lines) + "\n")


def _encoded(make: Callable[[], Obj | None]) -> bytes | None:
    value = make()
    return None if value is None else orjson.dumps(value)


def _fields(path: Path) -> tuple[str, ...]:
    return path.group, path.version, path.plural, path.namespace, path.name, path.subresource, path.rest


def _certificate(request: web.BaseRequest) -> dict[str, object] | None:
    transport = request.transport
    return transport.get_extra_info("peercert") if transport is not None else None


def _document(found: Obj | None) -> web.Response:
    if found is None:
        raise _no_such_path()
    return json_response(orjson.dumps(found))


def _no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


def _version() -> Obj:
    major, minor, *_ = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}+kaito",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": f"python{platform.python_version()}",
        "platform": "linux/amd64" if platform.machine() == "x86_64" else f"linux/{platform.machine()}",
    }
