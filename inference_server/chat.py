"""`POST /chat`: the seed era's request and reply, over the engine's protocol.

In: a JSON body with `prompt` or `messages`. Out: `{"Result": text}`, or server-sent events with `"stream":
true`. A prompt to a model with a chat template is one user message through that template, unless
`apply_chat_template` is false (the raw continuation of v0.3). `Result` then begins with the prompt as it was
sent, unless `return_full_text` is false; for `messages` it is the assistant's text alone. What cannot be
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

from inference_server.protocol import Engine, EngineError, EngineInfo, InvalidRequest, Message, Piece, Sampling
from inference_server.replies import Refusal, json_reply, parse_body
from inference_server.sampling import GenerateKwargs, to_sampling, unsupported

PROMPT_REQUIRED = "Text generation parameter prompt required"


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
            raise Refusal(400, PROMPT_REQUIRED)
        if request.handle_long_generation == "hole":
            self.tokens = _cut(self.tokens, kwargs, info.max_model_len)
        self.sampling: Sampling = to_sampling(kwargs, len(self.tokens), info.max_model_len)
        self.tidy = bool(request.clean_up_tokenization_spaces)


async def chat(request: web.Request, engine: Engine) -> web.StreamResponse:
    """Handle one POST /chat. Raises Refusal, or an EngineError that the application turns into a reply."""
    body = parse_body(ChatRequest, await request.read())
    info = engine.info
    if info is None:
        raise Refusal(503, "Model not initialized", retry_after=5)
    prepared = Prepared(body, engine, info)
    pieces = engine.generate(
        prepared.tokens, prepared.sampling, f"chat-{uuid.uuid4().hex}", stream=bool(body.stream)
    )
    headers = {"X-Kaito-Prompt-Tokens": str(len(prepared.tokens))}
    if prepared.warnings:
        headers["Warning"] = f'299 kaito "ignored: {", ".join(prepared.warnings)}"'
    if body.stream:
        return await _stream(request, pieces, prepared, headers)
    text, tokens = "", 0
    async with aclosing(pieces) as stream:
        async for piece in stream:
            text += piece.text
            tokens += piece.tokens
    headers["X-Kaito-Completion-Tokens"] = str(tokens)
    return json_reply({"Result": prepared.echo + (tidy(text) if prepared.tidy else text)}, headers=headers)


async def _stream(
    request: web.Request, pieces: AsyncGenerator[Piece, None], prepared: Prepared, headers: dict[str, str]
) -> web.StreamResponse:
    """Each event's `Result` is the next part of what `Result` would be without streaming."""
    async with aclosing(pieces) as stream:
        # The first piece is awaited before the status line goes out, so that a refusal still is a status code.
        first = await anext(aiter(stream), None)
        reply = web.StreamResponse(
            headers=headers | {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await reply.prepare(request)
        if prepared.echo:
            await reply.write(_event({"Result": prepared.echo}))
        tokens, reason = 0, None
        try:
            while first is not None:
                tokens += first.tokens
                reason = first.finish_reason or reason
                if first.text:
                    await reply.write(_event({"Result": first.text}))
                first = await anext(aiter(stream), None)
        except EngineError as error:
            # The status is sent; an error event and no [DONE] tell a client that this is not the end of the text.
            await reply.write(b"event: error\n" + _event({"detail": str(error)}))
        else:
            usage = {"prompt_tokens": len(prepared.tokens), "completion_tokens": tokens}
            await reply.write(
                _event({"Result": "", "finish_reason": reason, "usage": usage}) + b"data: [DONE]\n\n"
            )
        await reply.write_eof()
        return reply


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
