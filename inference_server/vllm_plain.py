"""Streams of plain text on OpenAI's routes, without vLLM's models of each token.

In: vLLM's serving objects. Out: the same objects, whose stream generators answer a plain request with a `Pushed`.
For each token vLLM builds and serialises three pydantic models that differ in one text. A plain request (one
answer, no tools, no log-probabilities, no counts in between) needs that once: its first and its last events are
made by vLLM's own generator, and those between are the first with another text. So the shape is vLLM's, whatever
its release. A request that is not plain gets vLLM's generator for all of its events.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import orjson

from inference_server.protocol import EngineError, Outlet
from inference_server.vllm_push import Push

_MARK = f"@{uuid.uuid4().hex}@"  # stands for the text in the pattern of an event
_CREATED = re.compile(rb'"created":\d+')
_call: ContextVar[tuple[tuple[Any, ...], dict[str, Any]] | None] = ContextVar("kaito_call", default=None)

Replay = Callable[[Any], AsyncIterator[str]]


class Client:
    """vLLM's engine client that also remembers what it was last called with."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **named: Any) -> Any:
        """As AsyncLLM's. Nothing begins before the generator is asked for something, if ever it is."""
        _call.set(((prompt, sampling_params, request_id), named))
        return self._llm.generate(prompt, sampling_params, request_id, **named)


class Plain:
    """Implements `Pushed` for one plain request. ``leading`` events stand before the first text."""

    def __init__(self, llm: Any, replay: Replay, leading: int) -> None:
        called = _call.get()
        if called is None:
            raise EngineError("vLLM's serving classes did not call the engine")
        self._push = Push(llm, self._event, self._last, *called)
        self._replay = replay
        self._leading = leading
        self._pattern: tuple[bytes, bytes] | None = None
        self._created = b""
        self._tokens: list[int] = []  # of the events that vLLM's generator did not see
        self._first: Any = None

    async def run(self, outlet: Outlet) -> None:
        """See the protocol."""
        await self._push.run(outlet)

    def _event(self, output: Any) -> bytes:
        answer = output.outputs[0]
        if self._pattern is None:
            return self._begin(output, answer)
        self._tokens += answer.token_ids
        return b"".join((self._pattern[0], orjson.dumps(answer.text)[1:-1], self._pattern[1]))

    def _begin(self, output: Any, answer: Any) -> bytes:
        if not answer.text and not answer.token_ids:
            return b""  # a long prompt is being read
        text, answer.text = answer.text, _MARK
        parts = [part.encode() for part in drained(self._replay(output))]
        before, mark, after = parts[self._leading].partition(_MARK.encode())
        found = _CREATED.search(before)
        if not mark or not found:
            raise EngineError("vLLM's stream has a shape that is not known here")
        self._first, self._pattern, self._created = output, (before, after), found[0]
        self._tokens += answer.token_ids
        return b"".join((*parts[: self._leading], before, orjson.dumps(text)[1:-1], after))

    def _last(self, output: Any) -> bytes:
        if self._pattern is None:
            return b"".join(part.encode() for part in drained(self._replay(output)))
        answer = output.outputs[0]
        # The counts of the whole answer are those of its end for a generator that sees only the end.
        answer.token_ids = [*self._tokens, *answer.token_ids]
        output.prompt_token_ids = output.prompt_token_ids or self._first.prompt_token_ids
        output.num_cached_tokens = self._first.num_cached_tokens
        parts = list(drained(self._replay(output)))[self._leading :]
        return _CREATED.sub(self._created, "".join(parts).encode())


def install(llm: Any, chat: Any, completion: Any) -> None:
    """Make these serving objects, either of which may be absent, answer plain requests with `Plain`."""
    if chat is not None:
        chat.engine_client = Client(llm)
        chat.chat_completion_stream_generator = _chat_streams(llm, chat)
    if completion is not None:
        completion.engine_client = Client(llm)
        completion.completion_stream_generator = _completion_streams(llm, completion)


def _chat_streams(llm: Any, serving: Any) -> Callable[..., Any]:
    theirs = serving.chat_completion_stream_generator
    reads_text = _reads_text(serving)

    def streams(request: Any, results: Any, *others: Any, **named: Any) -> Any:
        if reads_text or request.tools or request.logprobs or request.return_prompt_text or _counts(request):
            return theirs(request, results, *others, **named)
        return Plain(llm, lambda output: theirs(request, _feed(output), *others, **named), 1)

    return streams


def _completion_streams(llm: Any, serving: Any) -> Callable[..., Any]:
    theirs = serving.completion_stream_generator

    def streams(request: Any, inputs: Any, results: Any, *others: Any, **named: Any) -> Any:
        if len(inputs) > 1 or request.logprobs is not None or _counts(request):
            return theirs(request, inputs, results, *others, **named)
        return Plain(llm, lambda output: theirs(request, inputs, _feed((0, output)), *others, **named), 0)

    return streams


def _reads_text(serving: Any) -> bool:
    """Whether a parser of this model may turn text into something else although a request has no tools."""
    parser = serving.parser_cls
    if serving.enable_log_outputs:
        return True
    if parser is None:
        return False
    generic = parser.__mro__[1].__name__ == "DelegatingParser" and "parse_delta" not in vars(parser)
    return not generic or parser.reasoning_parser_cls is not None


def _counts(request: Any) -> bool:
    """Whether each event differs in more than its text, or there are several answers."""
    options = request.stream_options
    return bool(
        (request.n or 1) > 1
        or request.use_beam_search
        or request.echo
        or request.return_token_ids
        or (options is not None and options.continuous_usage_stats)
    )


async def _feed(item: Any) -> AsyncGenerator[Any, None]:
    yield item


def drained(parts: AsyncIterator[str]) -> list[str]:
    """All parts of an iterator that never waits. Raises EngineError if it does."""
    found: list[str] = []
    while True:
        step: Any = parts.__anext__()
        try:
            step.send(None)
        except StopIteration as done:
            found.append(done.value)
        except StopAsyncIteration:
            return found
        else:
            step.close()
            raise EngineError("vLLM's stream waits for something that is not known here")
