"""The seam between the HTTP shim and whatever generates text: plain types, errors, and the `Engine` protocol.

In: token ids and sampling parameters. Out: pieces of text with counts of tokens. The engine owns the model,
its processes and its memory; the shim owns connections. No type of the engine's library crosses this seam, so
the shim's tests run against a scripted engine, and a change of engine touches one module.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from inference_server.adapters.model import AdapterChoice, AdapterSlot


class EngineError(Exception):
    """Anything that the engine reports. The text is fit for a person."""


class EngineMissing(EngineError):
    """The engine's package is not installed. The text names the command that installs it."""


class EngineFailed(EngineError):
    """The engine did not start; trying again with the same settings will fail again."""


class EngineDead(EngineError):
    """The engine was running and has died. Only a new process helps."""


class InvalidRequest(EngineError):
    """This request cannot be served as it is; the engine is well."""


class UnknownAdapter(InvalidRequest):
    """The request names an adapter that is not there. The text names those that are, or why this one is not."""


class AdapterRefused(InvalidRequest):
    """The engine will not take this adapter, as an attempt to load it or a request for it; the engine is well."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. Neutral values mean "off"; ``temperature`` 0 is greedy; ``top_k`` 0 is off."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of one answer. ``tokens`` counts what this piece adds, the end token included."""

    text: str
    tokens: int
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was started. ``max_model_len`` is in tokens; ``facts`` are further lines for the start-up report."""

    max_model_len: int
    has_chat_template: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    max_num_seqs: int = 16  # requests in one batch; the others wait
    names: tuple[str, ...] = ()  # of the base model; empty: as the settings say
    version: str = ""
    leader: str | None = None  # another node answers, this one computes a part


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine does now. ``steps`` grows with everything that it reports."""

    unfinished: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Whole:
    """A complete answer of the OpenAI API."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Outlet(Protocol):
    """Where the events of one streamed answer go: a connection. One writer at a time."""

    @property
    def free(self) -> bool:
        """Whether ``write`` would hand everything on at once. False until the first ``send`` has returned."""
        ...

    def write(self, data: bytes) -> None:
        """Send whole events, not none, while ``free``. Never waits."""
        ...

    async def send(self, data: bytes) -> None:
        """Send whole events at the reader's pace. Raises ConnectionError if the reader has gone."""
        ...

    async def end(self, data: bytes = b"") -> None:
        """Send the last events and the regular end."""
        ...


class Pushed(Protocol):
    """A streamed answer that has not begun. It is run at most once."""

    async def run(self, outlet: Outlet) -> None:
        """Answer, from the first event to the regular end. Cancelling aborts the generation.

        Raises InvalidRequest, EngineDead or, for anything else of the engine's, EngineError; and ConnectionError
        if the reader has gone. Whatever it raises, the generation is over.
        """
        ...


class OpenAI(Protocol):
    """The engine's own implementation of the OpenAI API, without a socket."""

    async def answer(
        self, path: str, body: Any, *, adapter: AdapterChoice | None = None, request_id: str | None = None
    ) -> Whole | Pushed:
        """The answer to the decoded JSON ``body`` at ``path``; server-sent events if it asks for a stream.

        Cancelling the task aborts the generation. A refusal is a `Whole` in OpenAI's shape; raises EngineDead or,
        for a failure that is not the request's, EngineError.
        """
        ...


class Engine(Protocol):
    """One model, loaded once."""

    @property
    def info(self) -> EngineInfo | None:
        """None until ``start`` has returned."""
        ...

    @property
    def errored(self) -> bool:
        """True when a started engine can no longer answer."""
        ...

    @property
    def load(self) -> Load:
        """What it does now. Costs nothing."""
        ...

    @property
    def openai(self) -> OpenAI | None:
        """None until ``start`` has returned."""
        ...

    async def start(self, model: Path | None = None) -> EngineInfo:
        """Load the model, from the folder that it was fetched to if that is another than the settings name.

        The event loop stays free meanwhile. Raises EngineMissing or EngineFailed.
        """
        ...

    async def stop(self) -> None:
        """Release everything, processes included. May be called at any time, also twice."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text. Raises InvalidRequest."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own template, ready for the answer. Raises InvalidRequest."""
        ...

    async def load_adapter(self, slot: AdapterSlot) -> None:
        """Make the slot ready, beside requests that run. Raises AdapterRefused or EngineDead."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Free the slot of that name, which no request may be using. Unknown names are no error."""
        ...

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        *,
        adapter: AdapterChoice | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answer, as a rule in one piece. Closing the iterator aborts the generation.

        ``adapter`` None is the base model, as is a choice without a slot. A slot that is not loaded is refused
        (AdapterRefused). Raises InvalidRequest, EngineDead or, for anything else, EngineError.
        """
        ...

    def push(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        request_id: str,
        event: Callable[[Piece], bytes],
        *,
        adapter: AdapterChoice | None = None,
    ) -> Pushed:
        """The same in many pieces, as soon as they are made. ``event`` makes bytes of a piece, or none.

        Pieces that the reader does not take are merged.
        """
        ...
