"""The calls of the Azure SDK that the provider makes, one method each; the only module with an SDK client.

In: pool names, bodies, tokens. Out: the SDK's models, or a ``CloudError``. One client, one connection pool and one
credential serve the whole process. A call ends with ARM's reply: an operation is started or looked at, and never
waited for. Retried in place is only what a moment heals (a broken connection, a 5xx, each three times); 429 and
409 go up at once, because whoever paces the requests has to know.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import AsyncRetryPolicy
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.polling.base_polling import BadResponse, BadStatus
from azure.core.rest import HttpRequest
from azure.mgmt.containerservice.aio import ContainerServiceClient
from azure.mgmt.containerservice.models import AgentPool
from azure.mgmt.core.polling.async_arm_polling import AsyncARMPolling

from provisioner.azure.body import Offering
from provisioner.azure.operation import CREATE, DELETE, Operation
from provisioner.azure.pace import Pace
from provisioner.azure.pools import Pool, read_pool
from provisioner.azure.settings import AzureSettings
from provisioner.azure.translate import retry_after, to_cloud_error, translated
from provisioner.errors import CloudError, CloudUnavailable, OperationInProgress, Throttled

_RETRIES = 3
_BACKOFF = 0.8  # seconds: the first retry is immediate, then 1.6 and 3.2
_LONGEST_WAIT = 5.0  # a Retry-After beyond this is the controller's to wait for
_HEALS = frozenset({408, 500, 502, 503, 504})
_AT_ONCE = 10  # requests of one kind under way: a crowd would be sent off before the first 429 is back
_CONNECT_SECONDS, _READ_SECONDS = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How an operation stands. ``pool`` is there when a creation has succeeded, ``error`` when it failed."""

    operation: Operation
    done: bool
    pool: Pool | None = None
    error: CloudError | None = None
    look_again: float | None = None


class Arm:
    """Agent pools of one cluster. Made inside the event loop that uses it."""

    def __init__(self, settings: AzureSettings, credential: AsyncTokenCredential, *, user_agent: str) -> None:
        self._where = (settings.resource_group, settings.cluster)
        self._base = settings.arm
        self._credential = credential
        self._reading, self._writing = Pace(), Pace()
        self._at_once = {pace: asyncio.Semaphore(_AT_ONCE) for pace in (self._reading, self._writing)}
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        # A session of our own: given a CA file, the SDK would make a TLS context, and so a connection, per call.
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=100),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=True,
        )
        self._client = ContainerServiceClient(
            credential,
            settings.subscription_id,
            base_url=self._base,
            credential_scopes=[settings.cloud.scope],
            transport=AioHttpTransport(
                session=session, connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS
            ),
            retry_policy=_QuickRetry(
                retry_total=_RETRIES,
                retry_connect=_RETRIES,
                retry_read=_RETRIES,
                retry_status=_RETRIES,
                retry_backoff_factor=_BACKOFF,
            ),
            user_agent=user_agent,
        )

    def __repr__(self) -> str:
        return f"<Arm {self._base} reading={self._reading!r} writing={self._writing!r}>"

    async def close(self) -> None:
        """Close the connections and the credential."""
        await self._client.close()
        await self._credential.close()

    async def get(self, pool: str) -> Pool:
        """One pool. Raises ``NotFound``."""
        async with self._paced(self._reading):
            return read_pool(await self._client.agent_pools.get(*self._where, pool))

    async def list(self) -> list[Pool]:
        """All pools of the cluster, from all pages."""
        async with self._paced(self._reading):
            return [read_pool(pool) async for pool in self._client.agent_pools.list(*self._where)]

    async def put(self, pool: str, offering: Offering, body: dict[str, Any]) -> Progress:
        """Start a creation; never an update. Raises ``InstanceExists``."""
        look = self._look()
        async with self._paced(self._writing):
            poller = await self._client.agent_pools.begin_create_or_update(
                *self._where,
                pool,
                cast(AgentPool, body),  # a plain dict is sent as it is
                etag="*",
                match_condition=MatchConditions.IfMissing,
                polling=look,
            )
        operation = Operation(CREATE, pool, offering, poller.continuation_token())
        if not look.finished():
            return Progress(operation, False, look_again=look.look_again)
        return await self.poll(operation)

    async def delete(self, pool: str) -> Progress:
        """Start a deletion. Raises ``NotFound``."""
        look = self._look()
        async with self._paced(self._writing):
            poller = await self._client.agent_pools.begin_delete(*self._where, pool, polling=look)
        operation = Operation(DELETE, pool, Offering(""), poller.continuation_token())
        return Progress(operation, look.finished(), look_again=look.look_again)

    async def poll(self, operation: Operation) -> Progress:
        """Look once at an operation.

        Raises:
            CloudError: the operation could not be looked at; that says nothing about how it stands.
        """
        look = self._look()
        begin: Any = self._client.agent_pools.begin_create_or_update
        arguments: list[Any] = [*self._where, operation.pool, {}]
        if operation.verb == DELETE:
            begin = self._client.agent_pools.begin_delete
            del arguments[-1]
        async with self._paced(self._reading):
            poller = await begin(*arguments, polling=look, continuation_token=operation.continuation)
            await look.once()
            if not look.finished():
                return Progress(operation, False, look_again=look.look_again)
            try:
                result = await poller.result()
                return Progress(operation, True, pool=read_pool(result) if operation.verb == CREATE else None)
            except HttpResponseError as error:
                if look.status().lower() not in ("failed", "canceled"):
                    raise
                return Progress(operation, True, error=_failure(error, look.status()))

    async def read(self, path: str, **query: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """GET of any resource that the SDK's package does not cover; its JSON object and the reply's headers."""
        return await self._read(HttpRequest("GET", self._base + path, params=query))

    async def read_all(self, path: str, **query: str) -> Sequence[dict[str, Any]]:
        """The items of a list, from all its pages."""
        request = HttpRequest("GET", self._base + path, params=query)
        items: list[dict[str, Any]] = []
        while True:
            body, _ = await self._read(request)
            items += body.get("value") or []
            link = body.get("nextLink")
            if not link:
                return items
            if _origin(link) != _origin(self._base):
                raise CloudUnavailable(f"Azure's next page {link} is at another place; it is not asked")
            request = HttpRequest("GET", link)

    async def _read(self, request: HttpRequest) -> tuple[dict[str, Any], Mapping[str, str]]:
        async with self._paced(self._reading):
            reply: Any = await self._client.send_request(request)
            reply.raise_for_status()
            body = reply.json()
            if not isinstance(body, dict):
                raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of error for what cannot be read
            return body, reply.headers

    def _look(self) -> _OneLook:
        return _OneLook(origin=self._base)

    @asynccontextmanager
    async def _paced(self, pace: Pace) -> AsyncIterator[None]:
        clock = asyncio.get_running_loop().time
        async with self._at_once[pace]:
            wait, here = pace.reserve(clock())
            if here and wait > 0:
                await asyncio.sleep(wait)
                wait = pace.held(clock())
                here = wait == 0
            if not here:
                raise Throttled("Azure asked to send fewer requests", retry_after=wait)
            sent_at = clock()
            try:
                with translated():
                    yield
            except Throttled as error:
                pace.throttled(sent_at, clock(), error.retry_after)
                raise
            except CloudError:
                pace.answered()
                raise
            pace.answered()


class _QuickRetry(AsyncRetryPolicy[Any, Any]):
    """Retries what a moment heals. The SDK's own rule retries every error that carries a Retry-After."""

    def is_retry(self, settings: dict[str, Any], response: Any) -> bool:
        if response.http_response.status_code not in _HEALS:
            return False
        after = retry_after(response.http_response.headers)
        return (after or 0.0) <= _LONGEST_WAIT and super().is_retry(settings, response)


class _OneLook(AsyncARMPolling):
    """ARM's polling, one request at a time and only to ARM.

    A continuation token says which addresses are asked, with our access token in the request, and it lies on an
    object that others may edit. So an address at any other place than ARM's is refused.
    """

    def __init__(self, *, origin: str) -> None:
        super().__init__(path_format_arguments={"endpoint": origin})
        self._origin = _origin(origin)
        self.look_again: float | None = None
        self._last: Any = None

    def initialize(self, client: Any, initial_response: Any, deserialization_callback: Any) -> None:
        super().initialize(client, initial_response, deserialization_callback)
        self.look_again = retry_after(initial_response.http_response.headers)

    async def request_status(self, status_link: str) -> Any:
        if _origin(status_link) != self._origin:
            raise ValueError(f"the operation's address {status_link} is not one of Azure's Resource Manager")
        self._last = await super().request_status(status_link)
        self.look_again = retry_after(self._last.http_response.headers)
        return self._last

    async def once(self) -> None:
        """Ask how the operation stands, unless that is known already."""
        if self.finished():
            return
        try:
            await self.update_status()
        except (BadStatus, BadResponse) as error:
            raise HttpResponseError(message=str(error), response=self._last.http_response, error=error) from error


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def _failure(error: HttpResponseError, status: str) -> CloudError:
    found = to_cloud_error(error)
    if type(found) is CloudError and status.lower() == "canceled":
        return OperationInProgress("another operation on the cluster cancelled this one", code=found.code)
    return found
