"""Webhooks that an API server on this machine can call: a server on loopback with an authority of its own.

In: handlers, registered at paths as in a program. Out: a running :class:`WebhookServer`, and the ``clientConfig``
that makes an API server call one of its paths, as envtest's install options do. A configuration says nothing about
namespaces unless told to: on a server that is shared, give each webhook a ``namespaceSelector``.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from manager.certs.pems import make_authority, make_serving
from manager.certs.serving import ServingCertificate
from manager.types import Obj, Resource
from manager.webhooks.server import WebhookServer

_DAY = dt.timedelta(days=1)


class LocalWebhooks:
    """See the module. ``async with`` starts and stops the server.

    Args:
        certificate: what the server shows; made, with its authority, when None.
        names: that the made certificate is for, besides the loopback's.
    """

    def __init__(self, certificate: ServingCertificate | None = None, *, names: Sequence[str] = ()) -> None:
        self.ca = b""
        if certificate is None:
            now = dt.datetime.now(dt.UTC)
            authority = make_authority("local-webhooks", not_before=now - _DAY, not_after=now + _DAY)
            all_names = ["localhost", "127.0.0.1", *names]
            pair = make_serving(authority, all_names, not_before=now - _DAY, not_after=now + _DAY)
            certificate = ServingCertificate()
            certificate.load(pair.cert, pair.key)
            self.ca = authority.cert
        self.server = WebhookServer(host="127.0.0.1", port=0, certificate=certificate)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.server.run(), name="local-webhooks")
        ready = asyncio.create_task(self.server.ready())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None  # noqa: S101 - entered
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def url(self, path: str) -> str:
        """The address of a path."""
        assert self.server.address is not None  # noqa: S101 - entered
        return f"https://127.0.0.1:{self.server.address[1]}{path}"

    def client_config(self, path: str) -> Obj:
        """What goes into a webhook's or a conversion's ``clientConfig``."""
        config: Obj = {"url": self.url(path)}
        if self.ca:
            config["caBundle"] = base64.b64encode(self.ca).decode()
        return config

    def webhook(
        self,
        name: str,
        path: str,
        resource: Resource,
        *,
        operations: Sequence[str] = ("CREATE", "UPDATE", "DELETE"),
        subresource: str = "",
        **fields: Any,
    ) -> Obj:
        """One entry of ``webhooks`` for a resource; ``fields`` are the API's and win."""
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        rule = {
            "apiGroups": [resource.group],
            "apiVersions": [resource.version],
            "resources": [plural],
            "operations": list(operations),
        }
        return {
            "name": name,
            "clientConfig": self.client_config(path),
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
            **fields,
        }
