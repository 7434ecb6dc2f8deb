"""Performing checks and hooks: httpGet, tcpSocket and exec, for probes and for preStop and postStart.

In: an action (the object that holds `httpGet`, `tcpSocket` or `exec`), where the container listens and how
to run a command in it. Out: (ok, message), in the kubelet's words. A refused connection is a result, never
an exception. gRPC checks are refused when the container is created (`unsupported`), not discovered as
failures later.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from manager.types import Obj

_BODY_LIMIT = 10 * 1024
_MESSAGE_LIMIT = 400

# Runs a command beside the container's main process: (exit code, its output).
RunCommand = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]


@dataclass(frozen=True, slots=True)
class Target:
    """The container that is checked."""

    host: str
    ports: Mapping[str, int]
    run: RunCommand


def target_ports(container: Obj) -> dict[str, int]:
    """The container's named ports."""
    return {p["name"]: int(p["containerPort"]) for p in container.get("ports") or [] if p.get("name")}


def unsupported(container: Obj) -> str | None:
    """Why the container's probes cannot be performed here, or None."""
    for field in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "grpc" in (container.get(field) or {}):
            return f"{field}: gRPC probes are not supported on a local node; use httpGet, tcpSocket or exec"
    return None


class Prober:
    """Performs actions; owns one HTTP session, which ignores proxies and certificates."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def perform(self, action: Obj, target: Target) -> tuple[bool, str]:
        """Perform one action; (ok, message)."""
        try:
            if http := action.get("httpGet"):
                return await self._http(http, target)
            if tcp := action.get("tcpSocket"):
                return await _tcp(tcp.get("host") or target.host, _port(tcp["port"], target))
            if command := action.get("exec"):
                code, output = await target.run(command.get("command") or [])
                return code == 0, output[-_MESSAGE_LIMIT:] or f"command exited with code {code}"
            if sleep := action.get("sleep"):
                await asyncio.sleep(float(sleep.get("seconds") or 0))
                return True, ""
        except ValueError as err:
            return False, str(err)
        return False, f"unsupported handler {sorted(action)}"

    async def _http(self, http: Obj, target: Target) -> tuple[bool, str]:
        host, port = http.get("host") or target.host, _port(http["port"], target)
        scheme = str(http.get("scheme") or "HTTP").lower()
        path = str(http.get("path") or "/")
        url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
        headers = {"User-Agent": "kube-probe/kaito", "Accept": "*/*"}
        headers.update({h["name"]: h.get("value", "") for h in http.get("httpHeaders") or []})
        if self._session is None:
            insecure = ssl.create_default_context()
            insecure.check_hostname = False
            insecure.verify_mode = ssl.CERT_NONE
            connector = aiohttp.TCPConnector(force_close=True, ssl=insecure)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        try:
            async with self._session.get(url, headers=headers) as reply:
                body = await reply.content.read(_BODY_LIMIT)
                if 200 <= reply.status < 400:
                    return True, ""
                text = body.decode(errors="replace").strip()[:_MESSAGE_LIMIT]
                detail = f": {text}" if text else ""
                return False, f"HTTP probe failed with statuscode: {reply.status}{detail}"
        except (aiohttp.ClientError, OSError) as err:
            return False, f'Get "{url}": {_cause(err)}'


async def _tcp(host: str, port: int) -> tuple[bool, str]:
    try:
        _reader, writer = await asyncio.open_connection(host, port)
    except OSError as err:
        return False, f"dial tcp {host}:{port}: {_cause(err)}"
    writer.close()
    return True, ""


def _cause(err: BaseException) -> str:
    number = getattr(getattr(err, "os_error", err), "errno", None)
    return os.strerror(number).lower() if number else str(err) or type(err).__name__


def _port(value: object, target: Target) -> int:
    if isinstance(value, int):
        return value
    text = str(value)
    if text.isdigit():
        return int(text)
    if text in target.ports:
        return target.ports[text]
    raise ValueError(f"couldn't find port: {text!r} in the container")
