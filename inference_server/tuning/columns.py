"""Which columns of a dataset hold what to learn, and a row of them as an example.

In: column names, the configuration, rows. Out: a ``Layout`` and ``Example``s. Pure. What the configuration names
must exist; without it the names are looked for that public datasets use. Of a conversation the assistant's words
are learnt, of a pair the completion, of a plain text everything. A dataset that has none of these is an error that
shows the columns that there are and what to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.progress import TuneFailure
from inference_server.tuning.config import DatasetConfig
from inference_server.tuning.errors import TuneError, one_line

_MESSAGES: Final = ("messages", "conversations", "conversation", "dialog", "dialogue")
_PAIRS: Final = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("context", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
)
_TEXTS: Final = ("text", "content")
_MORE: Final = ("input", "context")  # beside an instruction: what it is about
_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}
_TO_SET: Final = (
    "set DatasetConfig.messages_column to a column of conversations ([{role, content}, ...]), or context_column "
    "and response_column to two columns of text, or response_column alone to one"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of columns: of conversations, or of a prompt (None for plain text) and what follows it."""

    messages: str | None = None
    prompt: str | None = None
    response: str | None = None
    more: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: a conversation, or a text after a prompt (None: the whole text is learnt)."""

    messages: tuple[Mapping[str, str], ...] = ()
    prompt: str | None = None
    text: str = ""


class BadRow(ValueError):
    """A row that holds something else than its layout says."""


def choose_layout(columns: Sequence[str], config: DatasetConfig) -> Layout:
    """Where to look in each row. Raises TuneError."""
    if config.messages_column is not None:
        return Layout(messages=_present(config.messages_column, "messages_column", columns))
    if config.context_column is not None:
        prompt = _present(config.context_column, "context_column", columns)
        response = config.response_column or next((name for a, name in _PAIRS if name in columns), "response")
        return Layout(prompt=prompt, response=_present(response, "response_column", columns))
    if config.response_column is not None:
        return Layout(response=_present(config.response_column, "response_column", columns))
    lower = {name.lower(): name for name in reversed(columns)}
    for name in _MESSAGES:
        if name in lower:
            return Layout(messages=lower[name])
    for prompt, response in _PAIRS:
        if prompt in lower and response in lower:
            more = [lower[name] for name in _MORE if name in lower and name not in (prompt, response)]
            beside = more[0] if more and prompt in ("instruction", "question") else None
            return Layout(prompt=lower[prompt], response=lower[response], more=beside)
    for name in _TEXTS:
        if name in lower:
            return Layout(response=lower[name])
    found = ", ".join(sorted(columns)) or "none"
    raise TuneError(TuneFailure.COLUMN_MISSING, f"no column to learn from; the dataset has {found}", _TO_SET)


def _present(name: str, setting: str, columns: Sequence[str]) -> str:
    if name in columns:
        return name
    found = ", ".join(sorted(columns)) or "none"
    raise TuneError(
        TuneFailure.COLUMN_MISSING,
        f"DatasetConfig.{setting} is {name!r}, and the dataset has the columns {found}",
        f"write one of them as {setting}",
    )


def example_of(row: Mapping[str, Any], layout: Layout) -> Example | None:
    """The row as an example; None when there is nothing in it to learn. Raises BadRow."""
    if layout.messages is not None:
        return _conversation(row.get(layout.messages), layout.messages)
    response = _text(row.get(layout.response or ""), layout.response)
    if not response.strip():
        return None
    if layout.prompt is None:
        return Example(text=response)
    prompt = _text(row.get(layout.prompt), layout.prompt)
    more = _text(row.get(layout.more), layout.more) if layout.more else ""
    if more.strip():
        prompt = f"{prompt}\n\n{more}"
    return Example(prompt=prompt, text=response)


def _conversation(value: Any, column: str) -> Example | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRow(f"column {column} holds {_shape(value)} where a list of {{role, content}} belongs")
    messages = tuple(_message(item) for item in value)
    if not any(item["role"] == "assistant" and item["content"].strip() for item in messages):
        return None
    return Example(messages=messages)


def _message(item: Mapping[str, Any]) -> Mapping[str, str]:
    role = item.get("role") or item.get("from")
    content = item.get("content") if "content" in item else item.get("value")
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadRow(f"a message has {', '.join(sorted(map(str, item)))} where role and content belong, both text")
    return {"role": _ROLES.get(role.lower(), role.lower()), "content": content}


def _text(value: Any, column: str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise BadRow(f"column {column} holds {_shape(value)} where text belongs")


def _shape(value: Any) -> str:
    return f"{type(value).__name__} {one_line(repr(value), 60)}"
