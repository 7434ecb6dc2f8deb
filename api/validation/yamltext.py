"""YAML out of a ConfigMap: anybody's text, read with bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api.model import Obj
from api.validation.rules import mapping

_LONGEST: Final = 256 * 1024  # characters; the settings of an engine are a page


class Unreadable(Exception):
    """The text is not there, or is not a YAML mapping; the message says which."""


def section(maps: Mapping[str, Obj | None], name: str, key: str) -> dict[str, Any] | None:
    """The mapping under ``key`` of a ConfigMap; None for a ConfigMap that nobody looked for.

    Raises:
        Unreadable: see the class.
    """
    if name not in maps:
        return None
    found = maps[name]
    if found is None:
        raise Unreadable(f"ConfigMap {name} does not exist in the workspace's namespace")
    text = (mapping(found.get("data")) or {}).get(key)
    if not isinstance(text, str):
        raise Unreadable(f"ConfigMap {name} has no key {key}")
    if len(text) > _LONGEST:
        raise Unreadable(f"{key} in ConfigMap {name} is longer than {_LONGEST} characters")
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        parsed = yaml.load(text, Loader=loader)  # noqa: S506 - one of the two safe loaders
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise Unreadable(f"{key} in ConfigMap {name} is not YAML{where}") from error
    if not isinstance(parsed, dict):
        raise Unreadable(f"{key} in ConfigMap {name} is not a mapping")
    return parsed
