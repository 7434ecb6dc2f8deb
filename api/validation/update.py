"""The rules for a change of a Workspace: what was decided on creation stays, and what is new must hold.

In: the stored object and the new one. Fields written as null or left out are the same. Adapters, the tuning
data set's location and its output may change; a deletion in progress is never held up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api import keys
from api.model import Obj
from api.validation.create import validate_create
from api.validation.rules import mapping, same_json
from api.validation.switches import DEFAULT, Switches
from api.validation.violation import Violation
from api.validation.world import UNSEEN, World

_NEW_WORKSPACE = "create another workspace for that"


def validate_update(old: Obj, new: Obj, *, switches: Switches = DEFAULT, world: World = UNSEEN) -> list[Violation]:
    """What is wrong with replacing ``old`` by ``new``; nothing is an empty list.

    A change of status and of metadata other than annotations is never refused, not even of an object that today's
    rules would not admit: finalizers must stay removable.
    """
    if unchanged(old, new):
        return []
    found = [
        *_halves(old, new),
        *_resource(old, new, switches),
        *_inference(old, new),
        *_tuning(old, new, switches),
        *_annotations(old, new),
    ]
    if found:
        return found
    # An old object may break rules that came later; only what this change brings is held against it.
    before = {(item.path, item.message) for item in validate_create(old, switches=switches, world=world)}
    created = validate_create(new, switches=switches, world=world)
    return [item for item in created if (item.path, item.message) not in before]


def unchanged(old: Obj, new: Obj) -> bool:
    """Whether a change is none that the rules are about."""
    return bool(_meta(new).get("deletionTimestamp")) or _judged(old) == _judged(new)


def _judged(obj: Obj) -> Obj:
    halves = {key: obj.get(key) for key in ("resource", "inference", "tuning")}
    return {**halves, "annotations": dict(_annotations_of(obj))}


def _meta(obj: Obj) -> Mapping[str, Any]:
    return mapping(obj.get("metadata")) or {}


def _annotations_of(obj: Obj) -> Mapping[str, Any]:
    """The annotations that rules are about; a hash that a controller notes is none."""
    found = mapping(_meta(obj).get("annotations")) or {}
    return {key: value for key, value in found.items() if key.startswith(f"{keys.KAITO_GROUP}/")}


def _halves(old: Obj, new: Obj) -> Iterator[Violation]:
    for half in ("inference", "tuning"):
        if (old.get(half) is None) != (new.get(half) is None):
            yield Violation(half, f"{half.capitalize()} field cannot be toggled once set", _NEW_WORKSPACE)


def _resource(old: Obj, new: Obj, switches: Switches) -> Iterator[Violation]:
    before, after = mapping(old.get("resource")) or {}, mapping(new.get("resource")) or {}
    for name in ("count", "instanceType", "labelSelector", "partition"):
        if same_json(before.get(name), after.get(name)):
            continue
        if name == "instanceType" and not after.get(name) and not switches.node_auto_provisioning:
            continue  # nodes are brought along now: what named their type may go
        yield Violation(f"resource.{name}", "field is immutable", _NEW_WORKSPACE)


def _inference(old: Obj, new: Obj) -> Iterator[Violation]:
    before, after = mapping(old.get("inference")), mapping(new.get("inference"))
    if before is None or after is None:
        return
    if not same_json(_defaulted(before.get("preset")), _defaulted(after.get("preset"))):
        yield Violation("inference.preset", "field is immutable", _NEW_WORKSPACE)
    if (before.get("template") is None) != (after.get("template") is None):
        yield Violation(
            "inference.template", "field cannot be unset/set if it was set/unset", "its content may change"
        )


def _tuning(old: Obj, new: Obj, switches: Switches) -> Iterator[Violation]:
    before, after = mapping(old.get("tuning")), mapping(new.get("tuning"))
    if before is None or after is None:
        return
    if not same_json(_defaulted(before.get("preset")), _defaulted(after.get("preset"))):
        yield Violation("tuning.preset", "Preset cannot be changed", _NEW_WORKSPACE)
    if str(before.get("method") or "").lower() != str(after.get("method") or "").lower():
        yield Violation("tuning.method", "Method cannot be changed", _NEW_WORKSPACE)
    if switches.fixed_tuning_data:
        for name in ("input", "output"):
            if not same_json(before.get(name), after.get(name)):
                yield Violation(f"tuning.{name}", f"{name.capitalize()} cannot be changed", _NEW_WORKSPACE)
        return
    names = [(mapping(half.get("input")) or {}).get("name") for half in (before, after)]
    if not same_json(names[0], names[1]):
        yield Violation("tuning.input.name", "field is immutable", _NEW_WORKSPACE)


def _annotations(old: Obj, new: Obj) -> Iterator[Violation]:
    key = keys.MODEL_STREAMING
    if _annotations_of(old).get(key) != _annotations_of(new).get(key):
        yield Violation(f"metadata.annotations[{key}]", "field is immutable", _NEW_WORKSPACE)


def _defaulted(preset: object) -> object:
    """A preset with its default written out, so that spelling the default is not a change."""
    return {"accessMode": "public", **preset} if isinstance(preset, dict) else preset
