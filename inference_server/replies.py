"""Replies in the shapes that clients know: FastAPI's for the seed era's routes, OpenAI's for the others.

In: values, failures, raw bodies. Out: JSON replies; `{"detail": text}` for a refusal, `{"detail": [{type,
loc, msg, input}]}` for a body that does not fit its model; `{"error": {message, type, param, code}}` under
OpenAI's paths. No failure leaves the server without words that say what is wrong, and none repeats more than a
little of what was sent.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
_ECHO_LIMIT = 200  # characters of a client's own value that an error repeats
_ERROR_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    429: "requests",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}
_ERROR_CODES: dict[int, str] = {401: "invalid_api_key", 429: "rate_limit_exceeded"}  # elsewhere the status itself


class Refusal(Exception):
    """A reply other than 200 with a detail for the client.

    ``retry_after`` is in seconds; ``extra`` stands beside the detail; ``param`` names the field of an OpenAI body;
    ``close`` ends the connection, whose rest of a body nobody wants to read.
    """

    def __init__(
        self,
        status: int,
        detail: Any,
        *,
        retry_after: int | None = None,
        extra: dict[str, Any] | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(str(detail))
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.extra = extra or {}
        self.param = param
        self.headers = headers or {}
        self.close = close

    def reply(self, *, openai: bool = False) -> web.Response:
        """The refusal as a response."""
        headers = dict(self.headers)
        if self.retry_after:
            headers["Retry-After"] = str(self.retry_after)
        value: dict[str, Any] = {"detail": self.detail} | self.extra
        if openai:
            value = openai_error(self.status, str(self.detail), self.param)
            value["error"] |= self.extra
        reply = json_reply(value, status=self.status, headers=headers)
        if self.close:
            reply.force_close()
        return reply


def openai_error(status: int, message: str, param: str | None = None) -> dict[str, dict[str, Any]]:
    """OpenAI's error body."""
    kind = _ERROR_TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
    code: int | str = _ERROR_CODES.get(status, status)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def json_reply(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(
        body=orjson.dumps(value), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def parse_json(raw: bytes) -> Any:
    """The body as a value, whatever its content type says. Raises Refusal 422 in FastAPI's shape."""
    if not raw.strip():
        raise Refusal(422, [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise Refusal(422, [problem | {"ctx": {"error": error.msg}}]) from None


def parse_body(model: type[M], raw: bytes) -> M:
    """The body as a model. Raises Refusal 422."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        problem = {
            "type": "model_attributes_type",
            "loc": ["body"],
            "msg": "Input should be a valid dictionary or object to extract fields from",
            "input": _short(value),
        }
        raise Refusal(422, [problem])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Refusal(422, [_problem(item) for item in error.errors(include_url=False)[:20]]) from None


def _problem(item: Any) -> dict[str, Any]:
    problem = {
        "type": item["type"],
        "loc": ["body", *item["loc"]],
        "msg": item["msg"],
        "input": _short(item["input"]),
    }
    if "ctx" in item:
        problem["ctx"] = {name: _short(value) for name, value in item["ctx"].items()}
    return problem


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= _ECHO_LIMIT else value[:_ECHO_LIMIT] + "..."
    text = orjson.dumps(value, default=str).decode()
    return value if len(text) <= _ECHO_LIMIT else text[:_ECHO_LIMIT] + "..."
