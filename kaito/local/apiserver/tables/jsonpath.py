"""The JSONPath of printer columns: ``.status.conditions[?(@.type=="Ready")].status``.

In: the expression of a CRD column (or of a scale or column path). Out: :class:`JsonPath`, whose ``find`` gives
every match in an object, in order. The subset is what CRDs use: fields (``.a``, ``['a']``, ``\\.`` for a dot
inside a name), indexes, slices, ``[*]``, ``.*``, ``..name``, and filters with ``==``, ``!=``, ``<``, ``<=``,
``>``, ``>=`` or mere existence. Parsing happens once; ``find`` never raises.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_OPERATORS: list[tuple[str, Callable[[Any, Any], bool]]] = [
    ("==", operator.eq),
    ("!=", operator.ne),
    ("<=", operator.le),
    (">=", operator.ge),
    ("<", operator.lt),
    (">", operator.gt),
]
_Step = Callable[[Any], Iterator[Any]]


class JsonPath:
    """A parsed expression.

    Raises:
        ValueError: the expression is not of the supported subset; the message names the place.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        text = expression.strip()
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
        self._steps = list(_parse(text.removeprefix("$").removeprefix("@")))

    def find(self, value: Any) -> list[Any]:
        """All matches, in document order; empty when there is none."""
        found = [value]
        for step in self._steps:
            found = [match for one in found for match in step(one)]
        return found

    def first(self, value: Any) -> Any:
        """The first match, or None."""
        return next(iter(self.find(value)), None)


def _parse(text: str) -> Iterator[_Step]:
    at = 0
    while at < len(text):
        if text.startswith("..", at):
            name, at = _name(text, at + 2)
            yield _descend(name)
        elif text[at] == ".":
            if at + 1 < len(text) and text[at + 1] == "[":
                at += 1
                continue
            if at + 1 == len(text):
                return
            name, at = _name(text, at + 1)
            yield _wildcard if name == "*" else _field(name)
        elif text[at] == "[":
            end = _closing(text, at)
            yield _bracket(text[at + 1 : end])
            at = end + 1
        else:
            name, at = _name(text, at)
            yield _field(name)


def _name(text: str, at: int) -> tuple[str, int]:
    letters = []
    while at < len(text) and text[at] not in ".[":
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
        letters.append(text[at])
        at += 1
    if not letters:
        raise ValueError(f"empty field name at {at} in {text!r}")
    return "".join(letters), at


def _closing(text: str, at: int) -> int:
    depth, quote = 0, ""
    for index in range(at, len(text)):
        letter = text[index]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
            if not depth:
                return index
    raise ValueError(f"unterminated [ in {text!r}")


def _bracket(inside: str) -> _Step:
    inside = inside.strip()
    if inside == "*":
        return _wildcard
    if inside.startswith("?(") and inside.endswith(")"):
        return _filter(inside[2:-1].strip())
    if inside[:1] in ("'", '"') and inside[-1:] == inside[:1]:
        return _field(inside[1:-1])
    if ":" in inside:
        bounds = [int(part) if part.strip() else None for part in inside.split(":")]
        return _slice(slice(*bounds))
    if re.fullmatch(r"-?\d+", inside):
        return _index(int(inside))
    raise ValueError(f"cannot understand [{inside}]")


def _field(name: str) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _wildcard(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _index(index: int) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _slice(bounds: slice) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[bounds]

    return step


def _descend(name: str) -> _Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for child in _wildcard(value):
            yield from step(child)

    return step


def _filter(text: str) -> _Step:
    left, compare, right = _comparison(text)

    def keep(item: Any) -> bool:
        a, b = left(item), right(item)
        if compare is None:
            return bool(a)
        if not a or not b:
            return False
        try:
            return compare(a[0], b[0])
        except TypeError:
            return False

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from (item for item in value if keep(item))

    return step


_Operand = Callable[[Any], list[Any]]


def _comparison(text: str) -> tuple[_Operand, Callable[[Any, Any], bool] | None, _Operand]:
    quote = ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            for sign, compare in _OPERATORS:
                if text.startswith(sign, index):
                    return _operand(text[:index]), compare, _operand(text[index + len(sign) :])
    return _operand(text), None, lambda _item: []


def _operand(text: str) -> _Operand:
    text = text.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
        literal: Any = text[1:-1]
        return lambda _item: [literal]
    if text in ("true", "false"):
        flag = text == "true"
        return lambda _item: [flag]
    if _NUMBER.fullmatch(text):
        number = float(text) if "." in text else int(text)
        return lambda _item: [number]
    if text.startswith(("@", "$", ".")):
        return JsonPath(text).find
    raise ValueError(f"cannot understand {text!r} in a filter")
