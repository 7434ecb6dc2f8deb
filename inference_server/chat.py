"""`POST /chat`: the seed era's request and reply, over the engine's protocol.

In: a JSON body with `prompt` or `messages`. Out: `{"Result": text}`, or server-sent events with `"stream":
true`. A prompt to a model with a chat template is one user message through that template, unless
`apply_chat_template` is false (the raw continuation of v0.3). `Result` then begins with the prompt as it was
sent, unless `return_full_text` is false; for `messages` it is the assistant's text alone. `adapter` names one
adapter, or none (""); without it all that are configured are used at their strengths, as v0.3 did. What cannot be
honoured is named in a Warning header. Prompt text is never logged.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import orjson
from aiohttp import web
from pydantic import BaseModel

from inference_server.answering import in_time, send_stream
from inference_server.guard import read_body, ready_or_refuse, time_limit
from inference_server.health import NOT_INITIALIZED
from inference_server.protocol import Engine, EngineInfo, InvalidRequest, Message, Piece, Sampling
from inference_server.replies import Refusal, json_reply, parse_body
from inference_server.sampling import GenerateKwargs, to_sampling, unsupported
from inference_server.shim import Shim

PROMPT_REQUIRED = "Text generation parameter prompt required"
MESSAGES_REQUIRED = "Conversational parameter messages required"


class Turn(BaseModel):
    """One message of a conversation."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """The body of POST /chat. Null stands for the default everywhere, as it did in v0.3."""

    prompt: str | None = None
    messages: list[Turn] | None = None
    return_full_text: bool | None = True
    clean_up_tokenization_spaces: bool | None = False
    prefix: str | None = None
    handle_long_generation: Literal["hole"] | None = None
    generate_kwargs: GenerateKwargs | None = None
    apply_chat_template: bool | None = True
    stream: bool | None = False
    adapter: str | None = None


class Prepared:
    """A request turned into tokens: all that can be wrong with it is found here, before anything is generated."""

    def __init__(self, request: ChatRequest, engine: Engine, info: EngineInfo) -> None:
        kwargs = request.generate_kwargs or GenerateKwargs()
        self.warnings = _warnings(request, kwargs)
        self.echo = ""
        if request.prompt:
            self.tokens = _prompt_tokens(request.prompt, request, engine, info)
            if request.return_full_text is not False:
                self.echo = request.prompt
        elif request.messages:
            if not info.has_chat_template:
                raise InvalidRequest("this model has no chat template; send prompt instead of messages")
            self.tokens = engine.encode_chat([Message(turn.role, turn.content) for turn in request.messages])
        else:
            # The seed era's server was of one kind or the other; here the request says which it means.
            raise Refusal(400, PROMPT_REQUIRED if request.messages is None else MESSAGES_REQUIRED)
        if request.handle_long_generation == "hole":
            self.tokens = _cut(self.tokens, kwargs, info.max_model_len)
        self.sampling: Sampling = to_sampling(kwargs, len(self.tokens), info.max_model_len)
        self.tidy = bool(request.clean_up_tokenization_spaces)


async def chat(request: web.Request, shim: Shim) -> web.StreamResponse:
    """Handle one POST /chat. Raises Refusal, or an EngineError that the application turns into a reply."""
    ready_or_refuse(shim)
    engine, info = shim.engine, shim.engine.info
    if info is None:
        raise Refusal(503, NOT_INITIALIZED, retry_after=shim.health.retry_after())
    seconds = time_limit(request, shim)
    body = parse_body(ChatRequest, await read_body(request, shim))
    prepared = Prepared(body, engine, info)
    headers = {"X-Kaito-Prompt-Tokens": str(len(prepared.tokens))}
    if prepared.warnings:
        headers["Warning"] = f'299 kaito "ignored: {", ".join(prepared.warnings)}"'
    with shim.gate.admit(), shim.adapters.choose(body.adapter) as adapter:
        request_id = f"chat-{uuid.uuid4().hex}"
        if body.stream:
            events = Events(prepared)
            pushed = engine.push(prepared.tokens, prepared.sampling, request_id, events.of, adapter=adapter)
            return await send_stream(request, shim, pushed, failed=_failed, seconds=seconds, headers=headers)
        pieces = engine.generate(prepared.tokens, prepared.sampling, request_id, adapter=adapter)
        text, tokens = await in_time(shim, seconds, _whole(pieces))
    headers["X-Kaito-Completion-Tokens"] = str(tokens)
    return json_reply({"Result": prepared.echo + (tidy(text) if prepared.tidy else text)}, headers=headers)


async def _whole(pieces: AsyncGenerator[Piece, None]) -> tuple[str, int]:
    text, tokens = "", 0
    async with aclosing(pieces) as stream:
        async for piece in stream:
            text += piece.text
            tokens += piece.tokens
    return text, tokens


class Events:
    """The events of one answer: each `Result` is the next part of what `Result` would be without streaming."""

    def __init__(self, prepared: Prepared) -> None:
        self._prompt_tokens = len(prepared.tokens)
        self._tokens = 0
        self._before = _event({"Result": prepared.echo}) if prepared.echo else b""

    def of(self, piece: Piece) -> bytes:
        """The event of a piece; none for one without text that is not the last."""
        self._tokens += piece.tokens
        data = b""
        if piece.text:
            data = b'%bdata: {"Result":%b}\n\n' % (self._before, orjson.dumps(piece.text))
            self._before = b""
        if piece.finish_reason is None:
            return data
        usage = {"prompt_tokens": self._prompt_tokens, "completion_tokens": self._tokens}
        end = _event({"Result": "", "finish_reason": piece.finish_reason, "usage": usage})
        return b"".join((data, self._before, end, b"data: [DONE]\n\n"))


def _failed(_: int, message: str) -> bytes:
    # The status is sent; an error event and no [DONE] tell a client that this is not the end of the text.
    return b"event: error\n" + _event({"detail": message})


def tidy(text: str) -> str:
    """Remove the blanks that word-level tokenizers leave before punctuation, as transformers' clean-up does."""
    for mark in (".", "?", "!", ","):
        text = text.replace(f" {mark}", mark)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text


def _prompt_tokens(prompt: str, request: ChatRequest, engine: Engine, info: EngineInfo) -> list[int]:
    text = (request.prefix or "") + prompt
    if info.has_chat_template and request.apply_chat_template is not False:
        return engine.encode_chat([Message("user", text)])
    return engine.encode(text)


def _cut(tokens: list[int], kwargs: GenerateKwargs, max_model_len: int) -> list[int]:
    """Keep the prompt's end, so that the wanted number of new tokens fits behind it."""
    keep = max_model_len - (kwargs.max_new_tokens or 1)
    if keep < 1:
        raise InvalidRequest(f"max_new_tokens leaves no room for a prompt in {max_model_len} tokens")
    return tokens[-keep:]


def _warnings(request: ChatRequest, kwargs: GenerateKwargs) -> list[str]:
    names = [f"generate_kwargs.{_printable(name)}" for name in unsupported(kwargs)]
    if request.prompt and request.messages:
        names.append("messages (prompt was sent too)")
    return names[:20]


def _printable(name: str) -> str:
    """A client's own word, fit for a header: short, ASCII, no quotes and no line breaks."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "?" for c in name[:64])


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
