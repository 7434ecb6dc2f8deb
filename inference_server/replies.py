"""Replies in the shapes that FastAPI gave to the seed era's clients.

In: values, failures, raw bodies. Out: JSON replies; `{"detail": text}` for a refusal, `{"detail": [{type,
loc, msg, input}]}` for a body that does not fit its model. No failure leaves the server without a detail that
says what is wrong, and none repeats more than a little of what was sent.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
_ECHO_LIMIT = 200  # characters of a client's own value that an error repeats


class Refusal(Exception):
    """A reply other than 200 with a detail for the client. ``retry_after`` is in seconds."""

    def __init__(self, status: int, detail: Any, *, retry_after: int | None = None) -> None:
        super().__init__(str(detail))
        self.status = status
        self.detail = detail
        self.retry_after = retry_after

    def reply(self) -> web.Response:
        """The refusal as a response."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return json_reply({"detail": self.detail}, status=self.status, headers=headers)


def json_reply(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(
        body=orjson.dumps(value), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def parse_body(model: type[M], raw: bytes) -> M:
    """The body as a model, whatever its content type says. Raises Refusal 422."""
    if not raw.strip():
        raise Refusal(422, [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise Refusal(422, [problem | {"ctx": {"error": error.msg}}]) from None
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
