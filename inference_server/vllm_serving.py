"""vLLM's own OpenAI serving classes, called without its HTTP server.

In: a running AsyncLLM, the arguments that its server would have had, decoded bodies. Out: whole answers, or
streams of server-sent events. vLLM validates, renders, generates and shapes the reply; none of that is done again.
Its FastAPI application is not built: there is no route that our own table does not name, and no layer between.
An adapter is chosen before vLLM sees the request; for the time of one call the classes see that adapter alone,
under the name that the client used.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
from vllm.entrypoints.pooling.pooling.protocol import PoolingRequest
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest
from vllm.exceptions import GenerationError, VLLMError
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from inference_server import vllm_plain
from inference_server.adapters.model import AdapterChoice
from inference_server.protocol import EngineDead, EngineError, InvalidRequest, Outlet, Pushed, Whole
from inference_server.replies import openai_error
from inference_server.streams import Parts
from inference_server.vllm_plain import Plain

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("kaito.inference_server.vllm_serving")

LoraOf = Callable[[AdapterChoice], LoRARequest | None]

_chosen: ContextVar[AdapterChoice | None] = ContextVar("kaito_adapter", default=None)

# path: the body's type, the serving object's name, its method, and what a model without it does not have
_TABLE: dict[str, tuple[Any, str, str, str]] = {
    "/v1/chat/completions": (ChatCompletionRequest, "openai_serving_chat", "create_chat_completion", "chat"),
    "/v1/completions": (CompletionRequest, "openai_serving_completion", "create_completion", "completions"),
    "/v1/embeddings": (EmbeddingRequest, "serving_embedding", "__call__", "embeddings"),
    "/v1/score": (ScoreRequest, "serving_scores", "__call__", "scores"),
    "/v1/rerank": (RerankRequest, "serving_scores", "__call__", "scores"),
    "/tokenize": (TokenizeRequest, "serving_tokenization", "create_tokenize", "a tokenizer"),
    "/detokenize": (DetokenizeRequest, "serving_tokenization", "create_detokenize", "a tokenizer"),
    "/pooling": (PoolingRequest, "serving_pooling", "__call__", "pooling"),
    "/score": (ScoreRequest, "serving_scores", "__call__", "scores"),
    "/rerank": (RerankRequest, "serving_scores", "__call__", "scores"),
}


_CONSTRAINTS = ("structured_outputs", "response_format", "tools")


class _OneAdapter(Mapping[str, LoRARequest]):
    """In place of vLLM's table of adapters: the one that this request was given, by the name it used."""

    def __init__(self, lora_of: LoraOf) -> None:
        self._lora_of = lora_of

    def __getitem__(self, name: str) -> LoRARequest:
        choice = _chosen.get()
        lora = self._lora_of(choice) if choice is not None and choice.name == name else None
        if lora is None:
            raise KeyError(name)
        return lora

    def __iter__(self) -> Iterator[str]:
        # Empty when walked: vLLM walks it to pick adapters by the media in a message.
        return iter(())

    def __len__(self) -> int:
        return 0


class OpenAiServing:
    """Implements `inference_server.protocol.OpenAI`."""

    def __init__(self, state: SimpleNamespace, lora_of: LoraOf) -> None:
        self._state = state
        self._adapters = {path: TypeAdapter(row[0]) for path, row in _TABLE.items()}
        models = state.openai_serving_models
        served = models.model_name

        def model_name(lora_request: LoRARequest | None = None) -> str:
            choice = _chosen.get()
            return choice.name if lora_request is not None and choice is not None else str(served())

        models.lora_requests = _OneAdapter(lora_of)
        models.model_name = model_name  # else answers would carry the slot's internal name

    @classmethod
    async def build(cls, llm: AsyncLLM, args: Namespace, lora_of: LoraOf) -> OpenAiServing:
        """Make vLLM's classes for what this model can do."""
        state: Any = SimpleNamespace()  # of FastAPI's State it needs only that attributes can be set
        await init_app_state(llm, state, args, await llm.get_supported_tasks())
        vllm_plain.install(
            llm, getattr(state, "openai_serving_chat", None), getattr(state, "openai_serving_completion", None)
        )
        return cls(state, lora_of)

    async def answer(
        self, path: str, body: Any, *, adapter: AdapterChoice | None = None, request_id: str | None = None
    ) -> Whole | Pushed:
        """See the protocol."""
        _, name, method, what = _TABLE[path]
        serving = getattr(self._state, name, None)
        if serving is None:
            names = self._state.openai_serving_models.base_model_paths
            return _refusal(400, f"the model {names[0].name!r} has no {what}; serve a model that does")
        headers = {} if request_id is None else {"X-Request-Id": request_id}
        try:
            request = self._adapters[path].validate_python(body)
        except ValidationError as error:
            return _invalid(error)
        except Exception as error:
            # vLLM's validators look into the raw body, and raise whatever that leads to. Nothing but the body can
            # be the reason.
            return _not_understood(path, error)
        token = _chosen.set(adapter)
        try:
            made = await getattr(serving, method)(
                request, SimpleNamespace(headers=headers, state=SimpleNamespace())
            )
        except Exception as error:
            return _failure(path, body, error)
        finally:
            _chosen.reset(token)
        if isinstance(made, ErrorResponse):
            return Whole(made.error.code, made.model_dump_json().encode())
        if isinstance(made, Plain):
            return _Answered(made, path, body)
        if hasattr(made, "__aiter__"):
            return Parts(_encoded(made))
        if hasattr(made, "model_dump_json"):
            return Whole(200, made.model_dump_json().encode())
        return await _response(made)


class _Answered:
    """A `Plain` stream whose failures are those of the protocol."""

    def __init__(self, plain: Plain, path: str, body: Any) -> None:
        self._plain = plain
        self._path = path
        self._body = body

    async def run(self, outlet: Outlet) -> None:
        """See the protocol."""
        try:
            await self._plain.run(outlet)
        except (EngineError, ConnectionError):  # ours; a reader that has gone
            raise
        except Exception as error:
            try:
                refusal = _failure(self._path, self._body, error)
            except EngineError:
                raise
            except Exception as unforeseen:
                raise EngineError(f"generation failed ({type(unforeseen).__name__})") from unforeseen
            message = orjson.loads(refusal.body)["error"]["message"]
            raise (InvalidRequest if refusal.status < 500 else EngineError)(message) from error


async def _encoded(parts: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
    try:
        async for part in parts:
            yield part.encode()
    finally:
        await parts.aclose()


async def _response(made: Any) -> Whole:
    """What the pooling classes return: a response of the web framework that their server runs on."""
    if hasattr(made, "body_iterator"):
        body = b"".join([part if isinstance(part, bytes) else part.encode() async for part in made.body_iterator])
    else:
        body = bytes(made.body)
    return Whole(made.status_code, body, (made.media_type or "application/octet-stream").partition(";")[0])


def _failure(path: str, body: Any, error: Exception) -> Whole:
    """vLLM's own words and status for a refusal. Raises EngineDead or EngineError for others."""
    if isinstance(error, EngineDeadError):
        raise EngineDead("the inference engine has died") from error
    if isinstance(error, GenerationError) and any(body.get(name) for name in _CONSTRAINTS):
        # vLLM ends a sequence whose grammar accepts no token that is left, and calls that an internal error.
        return _refusal(
            400, f"no token fits all constraints of the request ({', '.join(_CONSTRAINTS)} and others)"
        )
    if isinstance(error, EngineGenerateError):
        cause = error.__cause__
        if not isinstance(cause, ValueError | TypeError | OverflowError):
            raise EngineError("generation failed") from error
        error = cause  # found by the engine's front half while it read the request
    answer = create_error_response(error)
    if answer.error.code >= 500 and not isinstance(error, VLLMError | NotImplementedError):
        # vLLM names every error of a request that it foresees. This may be a strange body or a fault of the
        # server; to call it the client's would hide the second.
        raise error
    return Whole(answer.error.code, answer.model_dump_json().encode())


def _not_understood(path: str, error: Exception) -> Whole:
    logger.warning("request not understood path=%s error=%s", path, type(error).__name__)
    logger.debug("request not understood", exc_info=error)
    return _refusal(400, f"the request cannot be processed ({type(error).__name__}); check its fields")


def _invalid(error: ValidationError) -> Whole:
    """The first problems of a body, without repeating what was sent."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    texts = [f"{_where(item['loc'])}: {item['msg'][:300]}" for item in problems[:5]]
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    return _refusal(400, "; ".join(texts) + more, _where(problems[0]["loc"]) if problems else None)


def _where(loc: tuple[int | str, ...]) -> str:
    # Pydantic names the branches of unions too; they are no fields.
    parts = [str(part) for part in loc if not any(mark in str(part) for mark in "[](){}") and part != "str"]
    return ".".join(parts) or "body"


def _refusal(status: int, message: str, param: str | None = None) -> Whole:
    return Whole(status, orjson.dumps(openai_error(status, message, param)))
