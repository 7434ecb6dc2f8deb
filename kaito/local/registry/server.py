"""The registry's HTTP API: the OCI distribution specification's pull, push and content discovery.

In: requests of docker, skopeo, oras or ourselves. Out: what the specification says, errors included. Blobs are
streamed both ways and served with ranges; chunked uploads can be resumed; what is pushed is checked against its
digest, and a manifest against the blobs that it names. With credentials, every request needs them (HTTP Basic).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from kaito.local.registry.storage import DIGEST, REPOSITORY, TAG, Storage

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MANIFEST_BYTES = 4 << 20
_CHUNK = 1 << 18
_NAME = "{name:[a-z0-9._/-]+}"


class RegistryError(Exception):
    """An answer with one of the specification's error codes."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


def make_registry(storage: Storage, credentials: Mapping[str, str] | None = None) -> web.Application:
    """The application. ``credentials`` are passwords by user; None lets everybody in."""
    api = _Api(storage)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if credentials is not None:
                _check(request, credentials)
            reply = await handler(request)
        except RegistryError as error:
            body = {"errors": [{"code": error.code, "message": error.message, "detail": None}]}
            reply = web.json_response(body, status=error.status, headers=error.headers)
        except OSError as error:
            body = {"errors": [{"code": "UNKNOWN", "message": f"the registry's disk: {error.strerror}"}]}
            reply = web.json_response(body, status=507)
        if not reply.prepared:
            reply.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        return reply

    app = web.Application(middlewares=[guard], client_max_size=_MANIFEST_BYTES)
    app.add_routes(
        [
            web.get("/v2/", api.root),
            web.get("/v2/_catalog", api.catalog),
            web.get(f"/v2/{_NAME}/tags/list", api.tags),
            web.get(f"/v2/{_NAME}/manifests/{{reference}}", api.manifest),
            web.put(f"/v2/{_NAME}/manifests/{{reference}}", api.put_manifest),
            web.delete(f"/v2/{_NAME}/manifests/{{reference}}", api.delete_manifest),
            web.post(f"/v2/{_NAME}/blobs/uploads/", api.begin),
            web.get(f"/v2/{_NAME}/blobs/uploads/{{upload}}", api.progress),
            web.patch(f"/v2/{_NAME}/blobs/uploads/{{upload}}", api.append),
            web.put(f"/v2/{_NAME}/blobs/uploads/{{upload}}", api.finish),
            web.delete(f"/v2/{_NAME}/blobs/uploads/{{upload}}", api.cancel),
            web.get(f"/v2/{_NAME}/blobs/{{digest}}", api.blob),
        ]
    )
    return app


class _Api:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def root(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async def catalog(self, request: web.Request) -> web.StreamResponse:
        return _page(request, "repositories", self._storage.repositories(), {})

    async def tags(self, request: web.Request) -> web.StreamResponse:
        name = _repository(request)
        tags = self._storage.tags(name)
        if tags is None:
            raise RegistryError(404, "NAME_UNKNOWN", f"nothing was pushed to {name}")
        return _page(request, "tags", tags, {"name": name})

    # -- manifests -----------------------------------------------------------------------------------------------

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        name, reference = _repository(request), _reference(request)
        found = self._storage.manifest(name, reference)
        if found is None:
            raise RegistryError(404, "MANIFEST_UNKNOWN", f"{name} has no {reference}")
        headers = {"Docker-Content-Digest": found.digest, "Content-Type": found.media_type}
        return web.Response(body=found.body, headers=headers | {"ETag": f'"{found.digest}"'})

    async def put_manifest(self, request: web.Request) -> web.StreamResponse:
        name, reference = _repository(request), _reference(request)
        body = await request.read()
        try:
            fields = json.loads(body)
            wanted = _children(fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(400, "MANIFEST_INVALID", "the manifest is not one") from error
        missing = [digest for digest in wanted if not DIGEST.fullmatch(digest) or not self._has(digest)]
        if missing:
            raise RegistryError(404, "MANIFEST_BLOB_UNKNOWN", f"not pushed yet: {missing[0][:100]}")
        media_type = request.headers.get("Content-Type") or str(fields.get("mediaType", ""))
        if DIGEST.fullmatch(reference) and reference != f"sha256:{hashlib.sha256(body).hexdigest()}":
            raise RegistryError(400, "DIGEST_INVALID", "the manifest has another digest")
        digest = self._storage.put_manifest(name, reference, media_type, body)
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        return web.Response(status=201, headers=headers)

    async def delete_manifest(self, request: web.Request) -> web.StreamResponse:
        if not self._storage.delete_manifest(_repository(request), _reference(request)):
            raise RegistryError(404, "MANIFEST_UNKNOWN", "there is none")
        return web.Response(status=202)

    # -- blobs ---------------------------------------------------------------------------------------------------

    def _has(self, digest: str) -> bool:
        return self._storage.blob(digest).is_file()

    async def blob(self, request: web.Request) -> web.StreamResponse:
        _repository(request)
        digest = _digest(request.match_info["digest"])
        if not self._has(digest):
            raise RegistryError(404, "BLOB_UNKNOWN", f"there is no {digest}")
        headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream"}
        return web.FileResponse(self._storage.blob(digest), headers=headers)

    async def begin(self, request: web.Request) -> web.StreamResponse:
        name = _repository(request)
        mounted = request.query.get("mount")
        if mounted and DIGEST.fullmatch(mounted) and self._has(mounted):
            return _created(name, mounted)
        upload = self._storage.begin()
        if "digest" in request.query:
            await self._write(request, upload)
            return await self._finished(request, name, upload)
        return self._accepted(name, upload, 202)

    async def progress(self, request: web.Request) -> web.StreamResponse:
        return self._accepted(_repository(request), self._upload(request), 204)

    async def append(self, request: web.Request) -> web.StreamResponse:
        name, upload = _repository(request), self._upload(request)
        begins = request.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        here = self._storage.upload(upload).stat().st_size
        if begins and begins != str(here):
            raise RegistryError(416, "BLOB_UPLOAD_INVALID", f"the next byte is {here}", {"Range": _range(here)})
        await self._write(request, upload)
        return self._accepted(name, upload, 202)

    async def finish(self, request: web.Request) -> web.StreamResponse:
        name, upload = _repository(request), self._upload(request)
        await self._write(request, upload)
        return await self._finished(request, name, upload)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        self._storage.upload(self._upload(request)).unlink(missing_ok=True)
        return web.Response(status=204)

    def _upload(self, request: web.Request) -> str:
        upload = request.match_info["upload"]
        if not upload.isalnum() or not self._storage.upload(upload).is_file():
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        return upload

    async def _write(self, request: web.Request, upload: str) -> None:
        with self._storage.upload(upload).open("ab") as file:
            async for chunk in request.content.iter_chunked(_CHUNK):
                file.write(chunk)

    async def _finished(self, request: web.Request, name: str, upload: str) -> web.StreamResponse:
        digest = _digest(request.query.get("digest", ""))
        if not await asyncio.to_thread(self._storage.finish, upload, digest):
            raise RegistryError(400, "DIGEST_INVALID", "the bytes have another digest")
        return _created(name, digest)

    def _accepted(self, name: str, upload: str, status: int) -> web.Response:
        size = self._storage.upload(upload).stat().st_size
        headers = {
            "Location": f"/v2/{name}/blobs/uploads/{upload}",
            "Docker-Upload-Uuid": upload,
            "Range": _range(size),
        }
        return web.Response(status=status, headers=headers)


def _children(manifest: Any) -> list[str]:
    """The digests that a manifest or an index needs to be there."""
    if manifest["schemaVersion"] != 2:
        raise ValueError(manifest["schemaVersion"])
    listed = [*(manifest.get("manifests") or []), *(manifest.get("layers") or [])]
    if manifest.get("config"):
        listed.append(manifest["config"])
    return [str(entry["digest"]) for entry in listed if not entry.get("urls")]


def _range(size: int) -> str:
    return f"0-{max(size - 1, 0)}"


def _created(name: str, digest: str) -> web.Response:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)


def _page(request: web.Request, key: str, items: list[str], more: Mapping[str, str]) -> web.Response:
    """A page of a list, as ``n`` and ``last`` ask."""
    last = request.query.get("last", "")
    rest = [item for item in items if item > last]
    text = request.query.get("n", "")
    count = int(text) if text.isdigit() else len(rest)
    headers = {}
    if 0 < count < len(rest):
        headers["Link"] = f'<{request.path}?n={count}&last={rest[count - 1]}>; rel="next"'
    return web.json_response({**more, key: rest[:count]}, headers=headers)


def _repository(request: web.Request) -> str:
    name = request.match_info["name"]
    if not REPOSITORY.fullmatch(name) or len(name) > 255:
        raise RegistryError(400, "NAME_INVALID", "a repository is lower-case words with slashes between")
    return name


def _reference(request: web.Request) -> str:
    reference = request.match_info["reference"]
    if not TAG.fullmatch(reference) and not DIGEST.fullmatch(reference):
        raise RegistryError(404, "MANIFEST_UNKNOWN", "neither a tag nor a sha256 digest")
    return reference


def _digest(text: str) -> str:
    if not DIGEST.fullmatch(text):
        raise RegistryError(400, "DIGEST_INVALID", "only sha256 digests are taken")
    return text


def _check(request: web.Request, credentials: Mapping[str, str]) -> None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(value).decode().partition(":")
    except ValueError:
        user = password = ""
    known = credentials.get(user)
    if scheme.lower() != "basic" or known is None or not hmac.compare_digest(known.encode(), password.encode()):
        raise RegistryError(
            401, "UNAUTHORIZED", "a user and a password are needed", {"WWW-Authenticate": 'Basic realm="kaito"'}
        )
