"""One HTTP request, understood: which resource and verb it means, and its options.

In: method, decoded path, query, headers, body bytes. Out: plain values for the handlers, or a StatusError
that says what was wrong. Pure: no I/O, no registry look-ups beyond what the path says. A body is decoded
here, once, with its duplicate keys noted for field validation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml

from kaito.local.apiserver import protobuf
from kaito.local.apiserver.errors import StatusError, bad_request, invalid
from kaito.local.apiserver.fielderrors import not_supported, too_long
from manager.types import Obj

__all__ = ["Body", "Options", "Path", "decode_body", "parse_path"]


@dataclass(frozen=True, slots=True)
class Path:
    """A resource path. ``plural`` empty means the version's root (its resource list)."""

    group: str
    version: str
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""  # what follows a proxy subresource


def parse_path(path: str) -> Path | None:
    """The resource that a decoded path names, or None where it is no resource path."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 2 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 3 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    plural = rest[0] if rest else ""
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    return Path(group, version, plural, namespace, name, subresource, "/".join(rest[3:]))


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "t", "true")


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f"strconv.ParseInt: parsing {json.dumps(text)}: invalid syntax") from None


@dataclass(slots=True)
class Options:
    """The query options of any verb; each handler uses those that concern it."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    timeout_seconds: int | None = None
    watch: bool = False
    bookmarks: bool = False
    send_initial_events: bool | None = None
    dry_run: bool = False
    field_manager: str = ""
    explicit_manager: bool = False  # named by the client, not derived from its User-Agent
    field_validation: str = "Warn"
    force: bool = False
    grace_seconds: int | None = None
    propagation: str = ""
    orphan: bool | None = None
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, query: Mapping[str, str], user_agent: str) -> Options:
        """Read the query of a request.

        Raises:
            StatusError: an option has a value that it cannot have.
        """
        dry_run = query.get("dryRun", "")
        if dry_run not in ("", "All"):
            raise invalid(
                "meta.k8s.io",
                "Options",
                "",
                [not_supported("dryRun", dry_run, ["All"])],
            )
        validation = query.get("fieldValidation", "") or "Warn"
        if validation not in ("Strict", "Warn", "Ignore"):
            raise invalid(
                "meta.k8s.io",
                "Options",
                "",
                [not_supported("fieldValidation", validation, ["Ignore", "Strict", "Warn"])],
            )
        manager = query.get("fieldManager", "")
        if len(manager) > 128:
            raise invalid(
                "meta.k8s.io",
                "Options",
                "",
                [too_long("fieldManager", 128)],
            )
        initial = query.get("sendInitialEvents")
        orphan = query.get("orphanDependents")
        return cls(
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            limit=_number(query, "limit") or 0,
            continue_token=query.get("continue", ""),
            resource_version=query.get("resourceVersion", ""),
            resource_version_match=query.get("resourceVersionMatch", ""),
            timeout_seconds=_number(query, "timeoutSeconds"),
            watch=_flag(query, "watch"),
            bookmarks=_flag(query, "allowWatchBookmarks"),
            send_initial_events=None if not initial else _flag(query, "sendInitialEvents"),
            dry_run=bool(dry_run),
            field_manager=manager or _agent(user_agent),
            explicit_manager=bool(manager),
            field_validation=validation,
            force=_flag(query, "force"),
            grace_seconds=_number(query, "gracePeriodSeconds"),
            propagation=query.get("propagationPolicy", ""),
            orphan=None if not orphan else _flag(query, "orphanDependents"),
        )


def _agent(user_agent: str) -> str:
    """The field manager of a writer that names none: its program, as the real server derives it."""
    return user_agent.split("/", 1)[0][:128] or "unknown"


@dataclass(slots=True)
class Body:
    """A decoded request body."""

    value: Any
    duplicates: list[str]

    def obj(self) -> Obj:
        """The body as an object.

        Raises:
            StatusError: it is something else.
        """
        if not isinstance(self.value, dict):
            raise bad_request("the body of the request is not a JSON object")
        return self.value


_YAML = ("application/yaml", "application/apply-patch+yaml", "application/vnd.kubernetes.yaml", "text/yaml")


class _StrictLoader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: JSON's types (no dates), last of several equal keys wins, noted."""

    duplicates: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                self.duplicates.append(f'key "{key}" already set in map')
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def decode_body(raw: bytes, content_type: str, *, want_duplicates: bool = False) -> Body:
    """Decode JSON or YAML, by content type.

    Raises:
        StatusError: 400 for an undecodable body, 415 for a format that is not served.
    """
    media = content_type.split(";", 1)[0].strip().lower()
    if media == protobuf.MEDIA_TYPE:
        try:
            return Body(protobuf.decode(raw), [])
        except protobuf.ProtobufError as error:
            raise bad_request(f"couldn't decode the body of the request: {error}") from None
    if "cbor" in media:
        raise StatusError(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )
    if not raw.strip():
        raise bad_request("the body of the request is empty")
    if media in _YAML:
        return _decode_yaml(raw)
    try:
        if not want_duplicates:
            return Body(orjson.loads(raw), [])
        duplicates: list[str] = []

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(items)
            if len(found) != len(items):
                seen: set[str] = set()
                for key, _ in items:
                    if key in seen:
                        duplicates.append(f'duplicate field "{key}"')
                    seen.add(key)
            return found

        return Body(json.loads(raw, object_pairs_hook=pairs), duplicates)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"couldn't decode the body of the request: {error}") from None


def _decode_yaml(raw: bytes) -> Body:
    try:
        loader = _StrictLoader(raw)
        loader.duplicates = []
        try:
            return Body(loader.get_single_data(), loader.duplicates)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None
