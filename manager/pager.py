"""A large collection in pages: what each page is asked for, and what happens when the server forgets the rest.

In: a function that fetches one page. Out: the whole list, or the pages one after the other, fetched ahead of the
reader. The version of the whole is that of the first page, which the server holds for all of them. A continuation
never names a resource version: its token does, and servers refuse both together. Semantics: client-go's
``tools/pager``; Kubernetes API concepts, "retrieving large results sets in chunks".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manager.errors import Gone
from manager.types import Obj

if TYPE_CHECKING:
    from manager.client import ObjectList

PAGE_SIZE = 500
_BUFFER = 10

Query = Mapping[str, str | int | bool | None]
Fetch = Callable[[Query], Awaitable["ObjectList"]]


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole list.

    Attributes:
        paginated: it came in more than one page; for a list at version ``"0"`` this shows that the server has no
            watch cache for the resource.
    """

    items: list[Obj]
    resource_version: str
    paginated: bool


class Pager:
    """See the module.

    Args:
        fetch: one page, exactly as the query says.
        page_size: of the requests whose query has no ``limit``; 0 asks for everything at once.
        full_list_if_expired: when the rest of a list has expired (410), ask for all of it once more without pages;
            otherwise :meth:`list` raises ``Gone``.
        buffer: pages that :meth:`pages` holds ready.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        page_size: int = PAGE_SIZE,
        full_list_if_expired: bool = True,
        buffer: int = _BUFFER,
    ) -> None:
        self._fetch = fetch
        self._page_size = page_size
        self._full_list_if_expired = full_list_if_expired
        self._buffer = buffer

    async def list(self, query: Query) -> Listing:
        """Everything that matches, in the server's order.

        Raises:
            ApiError: of any page; what came before is dropped. ``Gone`` of the first page always, as no full list
                can be had at its version.
        """
        items: list[Obj] = []
        version = ""
        paginated = False
        try:
            async with aclosing(self._chain(query)) as pages:
                async for page in pages:
                    if not page.continue_token and not paginated:
                        return Listing(page.items, page.resource_version, False)
                    version = version or page.resource_version
                    items += page.items
                    paginated = True
        except Gone:
            if not (paginated and self._full_list_if_expired):
                raise
            # At the version asked for at first, not at the one that has expired.
            whole = await self._fetch({**query, "limit": None})
            return Listing(whole.items, whole.resource_version, True)
        return Listing(items, version, True)

    async def pages(self, query: Query) -> AsyncGenerator[ObjectList, None]:
        """The pages in order, fetched ahead while the reader works. Who stops early stops the fetching too.

        Raises:
            ApiError: of a page, after all pages before it. An expired rest is ``Gone`` here: what was handed out
                cannot be taken back.
        """
        ready: asyncio.Queue[ObjectList | Exception | None] = asyncio.Queue(self._buffer)

        async def produce() -> None:
            try:
                async with aclosing(self._chain(query)) as chain:
                    async for page in chain:
                        await ready.put(page)
            except Exception as error:  # the reader's to handle: it is raised there
                await ready.put(error)
            else:
                await ready.put(None)

        producer = asyncio.create_task(produce(), name="pager")
        try:
            while (page := await ready.get()) is not None:
                if isinstance(page, Exception):
                    raise page
                yield page
        finally:
            producer.cancel()
            await asyncio.wait({producer})

    async def each(self, query: Query) -> AsyncGenerator[Obj, None]:
        """The objects of :meth:`pages`, one at a time: a pass over a collection that never is in memory whole."""
        async with aclosing(self.pages(query)) as pages:
            async for page in pages:
                for item in page.items:
                    yield item

    async def _chain(self, query: Query) -> AsyncGenerator[ObjectList, None]:
        """One page leads to the next."""
        asked = dict(query)
        if asked.get("limit") is None:
            asked["limit"] = self._page_size or None
        while True:
            page = await self._fetch(asked)
            yield page
            if not page.continue_token:
                return
            asked |= {"continue": page.continue_token, "resourceVersion": None, "resourceVersionMatch": None}
