"""Server-side apply and field ownership: who set what, and what an apply adds, takes over and removes.

In: the stored object, the configuration that somebody applies or the object that somebody wrote, and the
writer's name. Out: the new object with its ``metadata.managedFields``. The rules are Kubernetes': an apply owns
exactly the fields that it lists; a field that it listed before and lists no longer is removed unless another
manager owns it; a field whose value it would change under another manager is a conflict unless forced; any
other write owns what it changed and takes it from everybody else. Pure: ``now`` is an argument and inputs are
never changed. What must never happen: an unchanged write that changes ownership or times.
"""

from __future__ import annotations

from manager.types import Obj

from .errors_patch import PatchError
from .fieldpath import EMPTY, FieldSet, Path, below, text, tree
from .managers import Identity, Managers
from .registry import ResourceType
from .structure import ANY, MISSING, Node
from .typedvalue import Comparison, compare, field_set, merge, remove, with_named_fields
from .zerovalues import with_zero_structs

__all__ = ["ApplyConflict", "apply_patch", "record_update"]

_BEFORE_FIRST_APPLY = "before-first-apply"
# fields that nobody owns: identity, and what only the server writes
_UNOWNED: FieldSet = frozenset(
    [
        ("f:apiVersion",),
        ("f:kind",),
        ("f:metadata",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "clusterName",
                "generation",
                "managedFields",
                "resourceVersion",
            )
        ),
    ]
)


class ApplyConflict(Exception):
    """Fields of an apply belong to other managers.

    ``causes`` are the entries of ``details.causes``; the text is the message of the 409.
    """

    def __init__(self, conflicts: list[tuple[Identity, Path]]) -> None:
        self.causes: list[Obj] = [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {identity.shown()}",
                "field": text(path),
            }
            for identity, path in conflicts
        ]
        super().__init__(_conflict_text(conflicts))


def _conflict_text(conflicts: list[tuple[Identity, Path]]) -> str:
    if len(conflicts) == 1:
        identity, path = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {identity.shown()}: {text(path)}"
    paths: dict[str, list[str]] = {}
    for identity, path in conflicts:
        paths.setdefault(identity.shown(), []).append(text(path))
    lines = []
    for shown in sorted(paths):
        lines.append(f"conflicts with {shown}:")
        lines += [f"- {path}" for path in paths[shown]]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)


def apply_patch(
    live: Obj | None,
    applied: Obj,
    *,
    manager: str,
    force: bool,
    resource_type: ResourceType,
    subresource: str | None,
    now: str,
) -> Obj:
    """The object after a server-side apply, before defaulting.

    Args:
        live: the stored object at the version of ``resource_type``; None when there is none yet.
        applied: the configuration, decoded; it carries no managedFields.
        manager: the ``fieldManager`` of the request.
        force: take over conflicting fields.
        resource_type: the type at the request's version.
        subresource: ``status``, ``scale`` or None.
        now: RFC 3339, in whole seconds.

    Returns:
        The merged object. It is ``live`` itself when nothing changed, ownership included.

    Raises:
        ApplyConflict: other managers own fields that would change, and ``force`` is false.
        PatchError: the configuration is malformed.
    """
    if (applied.get("metadata") or {}).get("managedFields"):
        raise PatchError(400, "metadata.managedFields must be nil")
    node = _node(resource_type)
    managers = Managers.of(live)
    if live is not None and not managers.fields:
        managers = _adopt(live, resource_type, now)
    before = managers.copy()
    current = _without_managers(live) if live is not None else {}
    config = _writable(_typed(applied, resource_type), resource_type, subresource)
    identity = Identity(manager, "Apply", resource_type.api_version, subresource or "")

    merged = merge(current, config, node)
    owned = field_set(config, node) - _UNOWNED
    last = managers.fields.get(identity, EMPTY)
    managers.fields[identity] = owned
    if last:
        # an empty container of the configuration stays, even if what it held before is removed
        merged = merge(_prune(merged, managers, last, node), config, node)
    difference = compare(_zero(current, resource_type), _zero(merged, resource_type), node)
    _settle(managers, difference, identity, force=force)
    if not owned:
        managers.forget(identity)
    if owned and (owned != last or not difference.same):
        managers.times[identity] = now
    if live is not None and difference.same and managers == before:
        return live
    return _with_managers(merged, managers)


def record_update(
    old: Obj | None,
    new: Obj,
    *,
    manager: str,
    resource_type: ResourceType,
    subresource: str | None,
    now: str,
) -> Obj:
    """The object of a create, update or patch with its ownership brought up to date.

    ``new`` is the object as it will be stored, after defaulting. Its own managedFields are the base when the
    client sent some; a list with one empty entry resets them; none means those of ``old``.
    """
    sent = (new.get("metadata") or {}).get("managedFields")
    tracked = Managers.of(new) if sent and subresource is None else Managers.of(old)
    if old is not None and not tracked.fields and not sent:
        return _without_managers(new)  # an object that nobody tracks is not tracked from the middle on
    node = _node(resource_type)
    before = _zero(_without_managers(old or {}), resource_type)
    after = _zero(_without_managers(new), resource_type)
    difference = compare(before, after, node)
    writer = Identity(manager or "unknown", "Update", resource_type.api_version, subresource or "")
    _take_over(tracked, difference, writer, now)
    return _with_managers(new, tracked)


# ---------------------------------------------------------------------- steps


def _node(resource_type: ResourceType) -> Node:
    return resource_type.schema.root if resource_type.schema is not None else ANY


def _typed(applied: Obj, resource_type: ResourceType) -> Obj:
    """The configuration as the type holds it: without unknown fields, nulls and empties that would not be stored.

    Owning what is never stored would make every apply a change.
    """
    return resource_type.schema.prune(applied) if resource_type.schema is not None else applied


def _writable(config: Obj, resource_type: ResourceType, subresource: str | None) -> Obj:
    """The part of a configuration that its endpoint lets through."""
    has_status = "status" in resource_type.subresources
    if subresource is None:
        return {key: value for key, value in config.items() if not (has_status and key == "status")}
    if subresource == "status":
        kept = dict(config)
        if resource_type.is_crd:
            return {key: value for key, value in kept.items() if key in ("apiVersion", "kind", "status")}
        kept.pop("spec", None)
        return kept
    return config


def _zero(obj: Obj, resource_type: ResourceType) -> Obj:
    return obj if resource_type.is_crd else with_zero_structs(obj, resource_type.group, resource_type.kind)


def _adopt(live: Obj, resource_type: ResourceType, now: str) -> Managers:
    """Ownership of an object that was never tracked: all of it belongs to what came before the first apply."""
    managers = Managers()
    identity = Identity(_BEFORE_FIRST_APPLY, "Update", resource_type.api_version)
    node = _node(resource_type)
    difference = compare(_zero({}, resource_type), _zero(_without_managers(live), resource_type), node)
    _take_over(managers, difference, identity, now)
    return managers


def _prune(merged: Obj, managers: Managers, last: FieldSet, node: Node) -> Obj:
    """Without the fields that the applier listed last time, lists no longer, and nobody else owns."""
    named_last = with_named_fields(last, node)
    pruned = _removed(merged, named_last, node)
    owned = frozenset().union(*managers.fields.values())
    named_merged = with_named_fields(field_set(merged, node), node)
    kept = with_named_fields(field_set(pruned, node), node) | with_named_fields(owned, node)
    pruned = _removed(merged, named_merged - kept, node)
    dangling = named_merged - with_named_fields(field_set(pruned, node), node)
    return _removed(merged, dangling & named_last, node)


def _removed(value: Obj, gone: FieldSet, node: Node) -> Obj:
    rest = remove(value, tree(gone), node)
    return rest if rest is not MISSING and isinstance(rest, dict) else {}


def _settle(managers: Managers, difference: Comparison, identity: Identity, *, force: bool) -> None:
    """Let the other managers lose what changed; refuse where they would and may not."""
    changed = difference.added | difference.modified
    conflicts = [(other, path) for other, owned in managers.others(identity) for path in sorted(owned & changed)]
    if conflicts and not force:
        raise ApplyConflict(sorted(conflicts, key=lambda conflict: (conflict[0].name, conflict[1])))
    managers.lose(changed | below(_all(managers), difference.removed), keep=identity)


def _all(managers: Managers) -> FieldSet:
    return frozenset().union(*managers.fields.values())


def _take_over(managers: Managers, difference: Comparison, identity: Identity, now: str) -> None:
    changed = difference.added | difference.modified
    managers.lose(changed | below(_all(managers), difference.removed))
    taken = changed - _UNOWNED
    if taken:
        managers.fields[identity] = managers.fields.get(identity, EMPTY) | taken
        managers.times[identity] = now
    managers.cap()


def _without_managers(obj: Obj) -> Obj:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return obj
    rest = {key: value for key, value in metadata.items() if key != "managedFields"}
    return {**obj, "metadata": rest}


def _with_managers(obj: Obj, managers: Managers) -> Obj:
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    entries = managers.encode()
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "metadata": metadata}
