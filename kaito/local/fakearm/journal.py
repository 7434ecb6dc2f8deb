"""Every request that the stand-in saw and what it answered, in order: what a test or a rehearsal asserts.

In: exchanges as they end. Out: a list, and its transcript as short lines. Tokens are kept out of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its reply. ``verb`` is what it means (put, get, ..., poll); ``status`` 0 is no reply."""

    at: float
    verb: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case, without the token
    body: Any
    pool: str
    status: int
    reply: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.pool} {self.status}".replace("  ", " ")


@dataclass
class Journal:
    """All exchanges so far."""

    exchanges: list[Exchange] = field(default_factory=list)

    def add(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def transcript(self) -> list[str]:
        """One line for each exchange: verb, pool, status."""
        return [str(exchange) for exchange in self.exchanges]

    def of(self, verb: str, *, pool: str = "", status: int = 0) -> list[Exchange]:
        """The exchanges of one verb, of one pool and with one status where those are given."""
        return [
            exchange
            for exchange in self.exchanges
            if exchange.verb == verb and pool in ("", exchange.pool) and status in (0, exchange.status)
        ]

    def counts(self) -> Counter[str]:
        """How many exchanges there were of each verb and status, for instance ``put 409``."""
        return Counter(f"{exchange.verb} {exchange.status}" for exchange in self.exchanges)

    def clear(self) -> None:
        self.exchanges.clear()
