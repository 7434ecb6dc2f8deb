"""Conversion: objects of one kind, from the version they are in to the version that a client wants.

In: a ConversionReview (``apiextensions.k8s.io/v1``). Out: the same objects, in their order, in the desired
version, or one failure for all of them. Converters are synchronous functions on plain dicts, because they are
pure. A kind has a hub, through which every other version goes (spoke to hub to spoke), or converters from version
to version, or both: a direct converter wins. The framework sets ``apiVersion`` and guards the metadata: a
conversion that changes anything of it but labels and annotations would be refused by the API server with less
helpful words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import orjson

from manager.errors import ManagerError
from manager.types import Obj

log = logging.getLogger("kaito.manager.webhooks")

V1 = "apiextensions.k8s.io/v1"
_VERSIONS = (V1, "apiextensions.k8s.io/v1beta1")  # of one shape
BODY_LIMIT = 128 * 1024 * 1024
"""Bytes: a page of a list is converted in one review."""
_BURST = 50  # objects after which the rest of the process has its turn

Convert = Callable[[Obj], Obj]
"""Takes a copy of the object in the one version, which it may change, and returns it in the other."""


class ConversionError(ManagerError):
    """An object cannot be converted; the message is shown to the user."""


class Conversions:
    """The conversions of any number of kinds; also the endpoint at ``/convert``."""

    path = "/convert"
    limit = BODY_LIMIT

    def __init__(self, *, panicked: Callable[[], None] = lambda: None) -> None:
        self._hubs: dict[tuple[str, str], str] = {}
        self._direct: dict[tuple[str, str, str, str], Convert] = {}
        self.panicked = panicked

    def hub(self, group: str, kind: str, version: str) -> None:
        """Name the version that all others of the kind are converted through.

        Raises:
            ManagerError: the kind has another hub.
        """
        present = self._hubs.setdefault((group, kind), version)
        if present != version:
            raise ManagerError(f"{kind}.{group} has the hub {present}; {version} cannot be a second one")

    def spoke(self, group: str, kind: str, version: str, *, to_hub: Convert, from_hub: Convert) -> None:
        """Add a version of a kind whose hub is named.

        Raises:
            ManagerError: there is no hub, it is this version, or the version has converters.
        """
        hub = self._hubs.get((group, kind))
        if hub is None or hub == version:
            raise ManagerError(f"{kind}.{group} {version} needs a hub of another version")
        self.converter(group, kind, version, hub, to_hub)
        self.converter(group, kind, hub, version, from_hub)

    def converter(self, group: str, kind: str, source: str, target: str, convert: Convert) -> None:
        """Add a function from one version to another.

        Raises:
            ManagerError: the two are the same, or there is one.
        """
        key = (group, kind, source, target)
        if source == target:
            raise ManagerError(f"{kind}.{group}: a conversion from {source} to itself")
        if key in self._direct:
            raise ManagerError(f"{kind}.{group}: there is a conversion from {source} to {target}")
        self._direct[key] = convert

    def convert(self, obj: Obj, desired: str) -> Obj:
        """One object in the desired apiVersion. The argument is not changed.

        Raises:
            ConversionError: there is no way, or the metadata did not survive it.
        """
        present, kind = str(obj.get("apiVersion") or ""), str(obj.get("kind") or "")
        group, version = _split(present)
        wanted_group, wanted = _split(desired)
        if not kind or not version:
            raise ConversionError("an object without apiVersion or kind cannot be converted")
        if present == desired:
            raise ConversionError(f"conversion is not allowed between same type {present}, Kind={kind}")
        if group != wanted_group:
            raise ConversionError(f"{kind} cannot be converted from group {group!r} to group {wanted_group!r}")
        converted: Obj = orjson.loads(orjson.dumps(obj))
        for source, target in self._route(group, kind, version, wanted):
            converted = self._direct[group, kind, source, target](converted)
            if not isinstance(converted, dict):
                raise ConversionError(f"the conversion of {kind} from {source} to {target} gave no object")
            converted["apiVersion"] = f"{group}/{target}" if group else target
            converted["kind"] = kind
        if _identity(converted) != _identity(obj):
            raise ConversionError(
                f"the conversion of {kind} to {wanted} changed metadata beyond labels and annotations"
            )
        return converted

    def _route(self, group: str, kind: str, source: str, target: str) -> list[tuple[str, str]]:
        if (group, kind, source, target) in self._direct:
            return [(source, target)]
        hub = self._hubs.get((group, kind))
        if hub is not None:
            route = [(source, hub), (hub, target)]
            if all((group, kind, *leg) in self._direct for leg in route):
                return route
        raise ConversionError(
            f"{kind}.{group} cannot be converted from {source} to {target}: no conversion is known"
        )

    # ------------------------------------------------------------------ the endpoint

    async def answer(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """HTTP status and review: 400 for what is no review, else 200 with the result inside."""
        try:
            review = orjson.loads(body)
            request = review["request"]
            uid, desired, objects = str(request["uid"]), str(request["desiredAPIVersion"]), request["objects"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            return self.refuse(400, f"the body is no ConversionReview with a request: {error!r}")
        if not isinstance(objects, list) or not all(isinstance(obj, dict) for obj in objects):
            return self.refuse(400, "the request's objects are no list of objects")
        converted: list[Obj] = []
        try:
            for number, obj in enumerate(objects, 1):
                converted.append(self.convert(obj, desired))
                if number % _BURST == 0:
                    await asyncio.sleep(0)
            result: Obj = {"status": "Success"}
        except ConversionError as error:
            converted, result = [], {"status": "Failure", "message": str(error)}
        except Exception as error:
            self.panicked()
            log.exception("conversion failed desired=%s", desired)
            message = f"panic: {type(error).__name__}: {error} [recovered]"
            converted, result = [], {"status": "Failure", "message": message}
        response = {"uid": uid, "convertedObjects": converted, "result": result}
        version = review.get("apiVersion")
        version = version if version in _VERSIONS else V1
        return 200, orjson.dumps({"kind": "ConversionReview", "apiVersion": version, "response": response})

    def refuse(self, code: int, message: str) -> tuple[int, bytes]:
        """The answer to a body that was not read."""
        return code, orjson.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message})


def _split(api_version: str) -> tuple[str, str]:
    group, _, version = api_version.rpartition("/")
    return group, version


def _identity(obj: Obj) -> Obj:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return {"": metadata}
    return {key: value for key, value in metadata.items() if key not in ("labels", "annotations")}
