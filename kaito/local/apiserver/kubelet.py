"""Logs, exec and attach: requests handed on to the node agent of the pod.

In: a pod's record, the subresource, the client's query. Out: the agent's answer, streamed; WebSocket messages
are copied both ways as they are, subprotocol included. The agent is found through the Node's address and
daemon endpoint, spoken to over TLS, and shown a bearer token and a client certificate. Its own certificate is
not verified, as by a real API server that is given no kubelet CA.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from kaito.local.apiserver.errors import StatusError, bad_request, not_found
from kaito.local.apiserver.podspec import all_containers
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.storage import Storage
from kaito.local.pki import KeyPair
from manager.types import Obj

__all__ = ["KubeletProxy"]

_log = logging.getLogger("kaito.local.apiserver.kubelet")
_CHUNK = 64 * 1024
_CONNECT_SECONDS = 10.0
_MAX_MESSAGE = 4 * 1024 * 1024
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


class KubeletProxy:
    """Talks to node agents for one server."""

    def __init__(
        self, storage: Storage, pods: ResourceType, nodes: ResourceType, *, token_file: Path, certificate: KeyPair
    ) -> None:
        self._storage = storage
        self._pods = pods
        self._nodes = nodes
        self._token_file = token_file
        self._certificate = certificate
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End all connections to agents."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(self._certificate.certificate, self._certificate.key)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                auto_decompress=False,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        try:
            token = self._token_file.read_text().strip()
        except OSError:
            return {}  # an agent that wants one says 401, which the client then sees
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _pod(self, namespace: str, name: str) -> Obj:
        record = self._storage.get("pods", namespace, name)
        if record is None:
            raise not_found(self._pods, name)
        return record.obj

    def _base(self, pod: Obj) -> str:
        node_name = (pod.get("spec") or {}).get("nodeName")
        if not node_name:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        record = self._storage.get("nodes", "", node_name)
        if record is None:
            raise not_found(self._nodes, node_name)
        status = record.obj.get("status") or {}
        addresses = {a.get("type"): a.get("address") for a in status.get("addresses") or ()}
        address = addresses.get("InternalIP") or addresses.get("Hostname")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if not address or not port:
            raise StatusError(
                503, "ServiceUnavailable", f"node {node_name} has not told where its agent listens; is it running?"
            )
        return f"https://{address}:{port}"

    def _container(self, pod: Obj, wanted: str) -> str:
        spec = pod.get("spec") or {}
        name = pod["metadata"]["name"]
        present = [c["name"] for c in all_containers(spec)] + [
            c["name"] for c in spec.get("ephemeralContainers") or ()
        ]
        if wanted:
            if wanted not in present:
                raise bad_request(f"container {wanted} is not valid for pod {name}")
            return wanted
        main = [c["name"] for c in spec.get("containers") or ()]
        if len(main) == 1:
            return str(main[0])
        chosen = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER)
        if chosen in main:
            return str(chosen)
        raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]")

    def _url(self, kind: str, namespace: str, name: str, query: Mapping[str, str]) -> str:
        pod = self._pod(namespace, name)
        path = f"/{kind}/{namespace}/{name}/{self._container(pod, query.get('container', ''))}"
        base = self._base(pod)
        rest = [(key, value) for key, value in _items(query) if key != "container"]
        return f"{base}{path}" + (f"?{urlencode(rest)}" if rest else "")

    async def logs(
        self, request: web.BaseRequest, namespace: str, name: str, query: Mapping[str, str]
    ) -> web.StreamResponse:
        """Stream a container's log."""
        url = self._url("containerLogs", namespace, name, query)
        try:
            reply = await self._client().get(url, headers=self._headers())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(url, error) from error
        async with reply:
            if reply.status != 200:
                raise await _agent_error(reply)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            try:
                async for chunk in reply.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientError as error:
                _log.info("log stream broke url=%s error=%s", url, error)
            await response.write_eof()
            return response

    async def stream(
        self, request: web.BaseRequest, kind: str, namespace: str, name: str, query: Mapping[str, str]
    ) -> web.StreamResponse:
        """Join a client's WebSocket with the agent's for exec or attach; there is no port-forward."""
        if kind == "portforward":
            raise bad_request(
                "no port-forward here: every ClusterIP and pod address answers on this machine itself"
            )
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request(f"{kind} needs a WebSocket (kubectl 1.31 or newer); the SPDY protocol is not served")
        offered = [
            protocol.strip()
            for value in request.headers.getall("Sec-WebSocket-Protocol", ())
            for protocol in value.split(",")
        ]
        url = self._url(kind, namespace, name, query)
        try:
            agent = await self._client().ws_connect(
                url, headers=self._headers(), protocols=offered, max_msg_size=_MAX_MESSAGE, autoping=True
            )
        except aiohttp.WSServerHandshakeError as error:
            raise StatusError(error.status, "", f"the node agent refused: {error.message}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(url, error) from error
        async with agent:
            client = web.WebSocketResponse(
                protocols=[agent.protocol] if agent.protocol else (), max_msg_size=_MAX_MESSAGE
            )
            await client.prepare(request)
            upward = asyncio.create_task(_copy(client, agent))
            downward = asyncio.create_task(_copy(agent, client))
            try:
                # Either end closing ends the session: all data before its close frame has been copied by then.
                await asyncio.wait((upward, downward), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (upward, downward):
                    task.cancel()
                await asyncio.gather(upward, downward, return_exceptions=True)
            await client.close(code=_close_code(agent.close_code))
            return client


Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _copy(source: Socket, sink: Socket) -> None:
    try:
        async for message in source:
            if message.type is aiohttp.WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await sink.send_str(message.data)
            else:
                return
    except (ConnectionError, aiohttp.ClientError):
        return  # the other side is gone; the session ends


def _close_code(code: int | None) -> int:
    """What may be sent on: the codes for "none given" and "broken" only exist inside an implementation."""
    if code is None or code == 1005:
        return 1000
    return 1011 if code in (1006, 1015) else code


def _items(query: Mapping[str, str]) -> list[tuple[str, str]]:
    return list(query.items())  # a MultiDict yields repeated keys (command=sh&command=-c) one by one


def _unreachable(url: str, error: BaseException) -> StatusError:
    where = url.split("/", 3)[2]
    why = f"error dialing the node agent at {where}: {error or type(error).__name__}"
    return StatusError(500, "InternalError", why)


async def _agent_error(reply: aiohttp.ClientResponse) -> StatusError:
    text = (await reply.content.read(_CHUNK)).decode(errors="replace").strip()
    reasons = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}
    if reply.status == 401:
        return StatusError(500, "InternalError", "the node agent does not accept this server's token")
    return StatusError(reply.status, reasons.get(reply.status, "InternalError"), text or f"HTTP {reply.status}")
