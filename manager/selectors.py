"""Label and field selectors: parsed once, then matched against objects.

In: the string form of a query (``a=b,c!=d,e in (f,g),!h``) or the structured form of a spec (matchLabels and
matchExpressions). Out: selectors with ``matches``, whose ``str()`` is the canonical query. Semantics: Kubernetes
"labels and selectors", "field selectors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from manager.types import Obj

_SET = re.compile(r"^(?P<key>[^\s!=<>(),]+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)$")
_COMPARE = re.compile(r"^(?P<key>[^\s!=<>(),]+)\s*(?P<op>==|=|!=|>|<)\s*(?P<value>[^\s!=<>(),]*)$")
_EXISTS = re.compile(r"^(?P<not>!?)\s*(?P<key>[^\s!=<>(),]+)$")
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": ">", "Lt": "<"}


class SelectorError(ValueError):
    """A selector that cannot be parsed; the message names the part."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: str  # in, notin, exists, !, >, <
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy it. A missing label satisfies ``notin`` and ``!``."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case _:
                return value is not None and _compare(value, self.operator, self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "notin" if len(self.values) == 1:
                return f"{self.key}!={self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold; none at all matches everything."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether the labels satisfy every requirement."""
        return not self.nothing and all(requirement.matches(labels or {}) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return self.nothing or bool(self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


NOTHING = LabelSelector(nothing=True)
"""Matches no object: what a missing selector means in most specs."""


def parse_label_selector(text: str | None) -> LabelSelector:
    """The selector of a query string; empty matches everything.

    Raises:
        SelectorError: a part is not a requirement.
    """
    return LabelSelector(tuple(_requirement(part) for part in _split(text or "")))


def selector_from(selector: Mapping[str, object] | None) -> LabelSelector:
    """The selector of a spec's ``matchLabels`` and ``matchExpressions``; None matches nothing, ``{}`` everything.

    Raises:
        SelectorError: an expression has an unknown operator.
    """
    if selector is None:
        return NOTHING
    found: list[Requirement] = []
    match_labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    if not isinstance(match_labels, Mapping) or not isinstance(expressions, list):
        raise SelectorError("matchLabels must be a map and matchExpressions a list")
    found += [Requirement(str(key), "in", (str(value),)) for key, value in sorted(match_labels.items())]
    for expression in expressions:
        operator = _OPERATORS.get(expression.get("operator"))
        if operator is None:
            raise SelectorError(f"unknown operator {expression.get('operator')!r}")
        found.append(Requirement(expression["key"], operator, tuple(expression.get("values") or ())))
    return LabelSelector(tuple(found))


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Exact comparisons of fields, such as ``spec.nodeName=a,status.phase!=Failed``."""

    terms: tuple[tuple[str, str, bool], ...] = ()  # path, value, whether equal is wanted

    def matches(self, obj: Obj) -> bool:
        """Whether all terms hold; a missing field counts as empty."""
        return all((field_value(obj, path) == value) == equal for path, value, equal in self.terms)

    def __str__(self) -> str:
        return ",".join(f"{path}{'=' if equal else '!='}{value}" for path, value, equal in self.terms)


def parse_field_selector(text: str | None) -> FieldSelector:
    """The selector of a query string; empty matches everything.

    Raises:
        SelectorError: a part is not a comparison.
    """
    terms = []
    for part in filter(None, (piece.strip() for piece in (text or "").split(","))):
        found = re.fullmatch(r"([^=!]+?)\s*(==|=|!=)\s*(.*)", part)
        if found is None:
            raise SelectorError(f"invalid field selector: {part!r}")
        terms.append((found[1].strip(), found[3].strip(), found[2] != "!="))
    return FieldSelector(tuple(terms))


def field_value(obj: Obj, path: str) -> str:
    """A field by its dotted path, as a field selector compares it."""
    value: object = obj
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return ""
        value = value.get(part)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _split(text: str) -> list[str]:
    """At the commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _requirement(part: str) -> Requirement:
    if found := _SET.match(part):
        return Requirement(found["key"], found["op"], tuple(value.strip() for value in found["values"].split(",")))
    if found := _COMPARE.match(part):
        operator = {"=": "in", "==": "in", "!=": "notin"}.get(found["op"], found["op"])
        return Requirement(found["key"], operator, (found["value"],))
    if found := _EXISTS.match(part):
        return Requirement(found["key"], "!" if found["not"] else "exists")
    raise SelectorError(f"unable to parse requirement: {part!r}")


def _compare(value: str, operator: str, bound: str) -> bool:
    try:
        return int(value) > int(bound) if operator == ">" else int(value) < int(bound)
    except ValueError:
        return False
