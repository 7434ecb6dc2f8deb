"""One call of one webhook: where it is, whom to trust there, what to say, whether the answer is one.

In: a ``clientConfig`` and a review. Out: the answer as decoded JSON, or :class:`CallFailed`, which the failure
policy decides about. A Service is resolved to an address that its EndpointSlices or Endpoints offer; the
certificate must be that of the Service's name all the same. Connections are kept per bundle of authorities, so
that a new bundle always means a new handshake.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from kaito.local.apiserver.storage import Storage
from manager.types import Obj

__all__ = ["CallFailed", "Caller"]

_CONTEXTS = 64  # bundles that are remembered; a roll-over needs three
_MAX_ANSWER = 8 * 1024 * 1024


class CallFailed(Exception):
    """The webhook gave no answer that counts."""


@dataclass(frozen=True, slots=True)
class _Place:
    url: str  # as it is named, for messages
    address: str  # as it is dialled
    service: str | None = None  # whose certificate is expected, where it is not the address's


class Caller:
    """Calls webhooks for one server. Closed with it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            if self._session.connector is not None:
                await self._session.connector.close(abort_ssl=True)
            await self._session.close()
            self._session = None

    async def ask(self, client_config: Obj, review: Obj, seconds: float) -> Obj:
        """The whole answer to a review, as decoded JSON.

        Raises:
            CallFailed: nobody there, not trusted, too late, not 200, no JSON object.
        """
        place = self._place(client_config, f"timeout={seconds:g}s")
        context = self._context(str(client_config.get("caBundle") or ""))
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if place.service is not None:
            headers["Host"] = place.service
        try:
            async with (
                asyncio.timeout(seconds),
                session.post(
                    place.address,
                    data=orjson.dumps(review),
                    headers=headers,
                    ssl=context,
                    server_hostname=place.service,
                    allow_redirects=False,
                ) as answer,
            ):
                body = await answer.content.read(_MAX_ANSWER)
                status = answer.status
        except TimeoutError:
            raise CallFailed(f'failed to call webhook: Post "{place.url}": context deadline exceeded') from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise CallFailed(f'failed to call webhook: Post "{place.url}": {_words(error)}') from error
        if status != 200:
            text = body[:200].decode(errors="replace")
            raise CallFailed(f"failed to call webhook: the server answered {status}: {text!r}")
        try:
            decoded = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise CallFailed(f"failed to call webhook: the answer is no JSON: {error}") from None
        if not isinstance(decoded, dict):
            raise CallFailed("failed to call webhook: the answer is no object")
        return decoded

    def _context(self, bundle: str) -> ssl.SSLContext:
        found = self._contexts.get(bundle)
        if found is None:
            try:
                pem = base64.b64decode(bundle).decode() if bundle else None
                found = ssl.create_default_context(cadata=pem)
            except (ValueError, ssl.SSLError) as error:
                raise CallFailed(f"failed to call webhook: unable to load root certificates: {error}") from None
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            self._contexts[bundle] = found
        return found

    # ------------------------------------------------------------------ where it is

    def _place(self, config: Obj, query: str) -> _Place:
        url = config.get("url")
        if url:
            text = str(url)
            full = f"{text}{'&' if '?' in text else '?'}{query}"
            return _Place(full, full)
        service = config.get("service") or {}
        name, namespace = str(service.get("name")), str(service.get("namespace"))
        path = "/" + str(service.get("path") or "").lstrip("/")
        port = int(service.get("port") or 443)
        host = f"{name}.{namespace}.svc"
        address = self._endpoint(name, namespace, port)
        return _Place(f"https://{host}:{port}{path}?{query}", f"https://{address}{path}?{query}", host)

    def _endpoint(self, name: str, namespace: str, port: int) -> str:
        found = self._storage.get("services", namespace, name)
        if found is None:
            raise CallFailed(f'failed to call webhook: service "{name}" not found')
        spec = found.obj.get("spec") or {}
        entry = next((one for one in spec.get("ports") or () if one.get("port") == port), None)
        if entry is None:
            raise CallFailed(f'failed to call webhook: no service port {port} found for service "{name}"')
        port_name = str(entry.get("name") or "")
        slices = [
            record.obj
            for record in self._storage.all("discovery.k8s.io/endpointslices", namespace)
            if (record.obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == name
        ]
        offers = [offer for one in slices for offer in _of_slice(one, port_name)]
        if not offers:
            endpoints = self._storage.get("endpoints", namespace, name)
            offers = _of_endpoints(endpoints.obj, port_name) if endpoints else []
        if not offers:
            raise CallFailed(f'failed to call webhook: no endpoints available for service "{name}"')
        return offers[0]


def _of_slice(obj: Obj, port_name: str) -> list[str]:
    port = _port(obj.get("ports"), port_name)
    return [
        f"{address}:{port}"
        for endpoint in obj.get("endpoints") or ()
        if port and (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
    ]


def _of_endpoints(obj: Obj, port_name: str) -> list[str]:
    return [
        f"{address['ip']}:{port}"
        for subset in obj.get("subsets") or ()
        if (port := _port(subset.get("ports"), port_name))
        for address in subset.get("addresses") or ()
    ]


def _port(ports: Any, name: str) -> int | None:
    return next((one.get("port") for one in ports or () if str(one.get("name") or "") == name), None)


def _words(error: Exception) -> str:
    """What a user can act on, in the words that the real server uses where there are some."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: x509: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
