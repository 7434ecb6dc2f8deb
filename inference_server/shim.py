"""What the handlers share: one engine, its adapters, and what guards them.

In: the parts, made by `server`. Out: the same parts under one name. No behaviour but the choice of an adapter by
OpenAI's `model`; no state but what the parts own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from api.adapters import ObservedAdapters
from inference_server.adapters.model import AdapterChoice, Adapters
from inference_server.gate import Gate
from inference_server.health import Health
from inference_server.metrics import Metrics
from inference_server.protocol import Engine, UnknownAdapter


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds of one request; 0 seconds: no limit."""

    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    request_seconds: float = 0.0
    stall_seconds: float = 60.0
    sequences: int = 1024  # prompts times answers of one request


class BaseOnly:
    """Implements `Adapters` for a server that was started without any."""

    async def start(self) -> None:
        """Nothing to follow."""

    async def stop(self) -> None:
        """Nothing to end."""

    def observed(self) -> ObservedAdapters:
        """None."""
        return ObservedAdapters()

    def choose(self, name: str | None) -> AdapterChoice:
        """The base model for None and "". Raises UnknownAdapter for a name."""
        if name:
            raise UnknownAdapter(f"there is no adapter {name[:200]!r}: this server was started without adapters")
        return AdapterChoice(name or "")

    def names(self) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(slots=True)
class Shim:
    """One server's parts."""

    engine: Engine
    adapters: Adapters
    gate: Gate
    health: Health
    metrics: Metrics
    model_name: str
    limits: Limits = field(default_factory=Limits)
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)
    started_at: float = field(default_factory=time.time)

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names of the base model, the one that answers show first."""
        info = self.engine.info
        return (info.names if info else ()) or (self.model_name,)

    def choose_by_model(self, model: object) -> AdapterChoice:
        """The base model or one adapter, as OpenAI's ``model`` says. Raises UnknownAdapter."""
        if not isinstance(model, str) or model == "" or model in self.base_names:
            return self.adapters.choose("")  # a wrong type is for the schema to refuse
        try:
            return self.adapters.choose(model)
        except UnknownAdapter as error:
            served = ", ".join([*self.base_names, *self.adapters.names()])
            raise UnknownAdapter(
                f"The model {model[:200]!r} does not exist; served are {served} ({error})"
            ) from None
