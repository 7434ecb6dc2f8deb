"""Conversion by webhook: synchronous steps that need objects in another version, and the calls that supply them.

In: a step, that is a function that may find an object unconverted. Out: its result, once every object it asks for
has been converted; or the StatusError that the real server gives. Many objects go in one review. Of what comes
back only labels and annotations of the metadata count; all else of it is the original's. Semantics:
apiextensions' webhook converter.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import TypeVar

from kaito.local.apiserver.errors import StatusError
from kaito.local.apiserver.hooks.calling import Caller, CallFailed
from kaito.local.apiserver.hooks.table import Table, Unconverted
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.storage import Record
from manager.types import Obj

__all__ = ["Converter"]

T = TypeVar("T")
_SECONDS = 30.0
_BATCH = 500
_FREE = ("labels", "annotations")


class Converter:
    """Has objects converted, for one server."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def run(self, step: Callable[[], T]) -> T:
        """The step's result. It may be called several times, and must have no effect while it raises Unconverted.

        Raises:
            StatusError: the webhook could not be asked, or refused.
        """
        while True:
            try:
                return step()
            except Unconverted as need:
                await self._fill(need.table, [need.obj], need.target)

    async def prepare(self, resource: ResourceType, records: Iterable[Record]) -> None:
        """Have these stored objects ready in the version of the resource, in few calls.

        Raises:
            StatusError: as :meth:`run`.
        """
        table = resource.table
        if table is None or resource.is_storage_version:
            return
        missing = table.missing([record.obj for record in records], resource.api_version)
        for start in range(0, len(missing), _BATCH):
            await self._fill(table, missing[start : start + _BATCH], resource.api_version)

    async def _fill(self, table: Table, objects: list[Obj], target: str) -> None:
        kind = f"{objects[0].get('apiVersion')}, Kind={objects[0].get('kind')}"
        version = next((one for one in table.review_versions if one in ("v1", "v1beta1")), "v1")
        uid = str(uuid.uuid4())
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": {"uid": uid, "desiredAPIVersion": target, "objects": objects},
        }
        try:
            answer = await self._caller.ask(table.client_config, review, _SECONDS)
            converted = _converted(answer, uid, objects, target)
        except CallFailed as error:
            raise StatusError(500, "", f"conversion webhook for {kind} failed: {error}") from error
        for obj, made in zip(objects, converted, strict=True):
            table.learn(obj, target, made)


def _converted(answer: Obj, uid: str, objects: list[Obj], target: str) -> list[Obj]:
    response = answer.get("response")
    if not isinstance(response, dict):
        raise CallFailed("the answer has no response")
    if response.get("uid") != uid:
        raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        raise CallFailed(str(result.get("message") or "the webhook gave no reason"))
    made = response.get("convertedObjects") or []
    if len(made) != len(objects):
        raise CallFailed(f"the webhook returned {len(made)} objects, expected {len(objects)}")
    return [_checked(obj, new, target) for obj, new in zip(objects, made, strict=True)]


def _checked(obj: Obj, new: Obj, target: str) -> Obj:
    if new.get("apiVersion") != target or new.get("kind") != obj.get("kind"):
        found = f"{new.get('apiVersion')}, Kind={new.get('kind')}"
        raise CallFailed(f"the webhook returned {found}, expected {target}, Kind={obj.get('kind')}")
    before, after = obj.get("metadata") or {}, new.get("metadata") or {}
    for field in ("name", "namespace", "uid"):
        if before.get(field) != after.get(field):
            raise CallFailed(f"the webhook changed metadata.{field}")
    kept = {key: value for key, value in before.items() if key not in _FREE}
    return new | {"metadata": kept | {key: after[key] for key in _FREE if after.get(key)}}
