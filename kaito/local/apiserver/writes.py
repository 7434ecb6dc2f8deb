"""Create, update, patch and delete: from a request's object to a committed record.

In: a resource type, a decoded body, the options of a request. Out: the stored object, or a StatusError and
nothing changed. A write has two halves. ``draft_*`` reads the current state and makes the wanted one
(decoding rules, patches, defaults, the split of status and spec). ``commit`` completes, validates and stores
it, and fails with Conflict when the state that the draft saw has changed; between the two, admission webhooks
may run. Each half is synchronous, so nothing interleaves with it.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kaito.local.apiserver.admission import Admission
from kaito.local.apiserver.conversion import from_storage, to_storage
from kaito.local.apiserver.copying import copied
from kaito.local.apiserver.crd_rules import validate_crd
from kaito.local.apiserver.crds import CRDS, CrdKeeper
from kaito.local.apiserver.decoding import check_fields, check_kind, decode, default, own
from kaito.local.apiserver.deletion import DeleteOptions, decide, is_finished, rfc3339
from kaito.local.apiserver.errors import (
    StatusError,
    already_exists,
    apply_conflict,
    bad_request,
    conflict,
    invalid,
    method_not_allowed,
    not_found,
)
from kaito.local.apiserver.fielderrors import FieldError, forbidden, required
from kaito.local.apiserver.immutability import validate_change
from kaito.local.apiserver.managedfields import ApplyConflict, apply_patch
from kaito.local.apiserver.patching import PatchError, json_merge, json_patch, strategic_merge
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.requests import Body, Options
from kaito.local.apiserver.storage import Exists, Missing, Record, Stale, Storage
from kaito.local.apiserver.strategy import (
    bump_generation,
    generate_name,
    keep_server_fields,
    merge_subresource,
    reset_status,
    stamp_new,
)
from kaito.local.apiserver.validation import validate_metadata, validate_new
from manager.types import Obj

__all__ = ["Deleted", "Draft", "Outcome", "Writer", "check_finalizers"]

_UNCONDITIONAL = "must be specified for an update"
APPLY = "application/apply-patch+yaml"
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    APPLY,
)


@dataclass(slots=True)
class Draft:
    """The wanted state of one object, before admission and validation."""

    resource: ResourceType
    namespace: str
    name: str
    subresource: str
    options: Options
    obj: Obj
    record: Record | None  # the state it was made from; None creates
    old: Obj | None  # the same, at the request's version
    generated: bool = False  # its name was made here


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write led to, as stored."""

    obj: Obj
    created: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete led to: the last or the new state, as stored, and whether the object is gone."""

    obj: Obj
    gone: bool


class Writer:
    """All writes of one server go through here."""

    def __init__(
        self,
        storage: Storage,
        admission: Admission,
        crds: CrdKeeper,
        *,
        clock: Callable[[], dt.datetime],
        chance: random.Random | None = None,
    ) -> None:
        self._storage = storage
        self._admission = admission
        self._crds = crds
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - names, not secrets

    def _now(self) -> str:
        return rfc3339(self._clock())

    # ------------------------------------------------------------------ drafts

    def draft_create(
        self, resource: ResourceType, namespace: str, body: Body, options: Options, *, managed: bool = False
    ) -> Draft:
        """A new object from a request body."""
        obj = decode(resource, body, options)
        meta = obj["metadata"]
        if resource.namespaced:
            if meta.setdefault("namespace", namespace) not in ("", namespace):
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
        elif meta.get("namespace"):
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        generated = not meta.get("name") and bool(meta.get("generateName"))
        if generated:
            meta["name"] = generate_name(str(meta["generateName"]), self._chance)
        name = str(meta.get("name") or "")
        if self._crds.terminating(resource):
            raise method_not_allowed("create not allowed while custom resource definition is terminating")
        if resource.namespaced:
            self._admission.check_namespace(resource, namespace, name)
        obj = default(resource, obj)
        if not managed:
            obj = own(resource, None, obj, "", options, self._now())
        stamp_new(resource, obj, namespace=namespace, now=self._now())
        reset_status(resource, obj)
        return Draft(resource, namespace, name, "", options, obj, None, None, generated)

    def draft_update(
        self, resource: ResourceType, namespace: str, name: str, subresource: str, body: Body, options: Options
    ) -> Draft:
        """A whole new state (PUT)."""
        obj = decode(resource, body, options)
        record = self._record(resource, namespace, name)
        if obj["metadata"].get("name", name) != name:
            raise bad_request(
                f"the name of the object ({obj['metadata']['name']}) does not match the name on the URL ({name})"
            )
        obj["metadata"]["name"] = name
        if resource.namespaced and obj["metadata"].get("namespace") not in (None, "", namespace):
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if resource.is_crd and not obj["metadata"].get("resourceVersion"):
            problem = FieldError(
                "metadata.resourceVersion", "FieldValueInvalid", f"Invalid value: 0x0: {_UNCONDITIONAL}"
            )
            raise invalid(resource.group, resource.kind, name, [problem])
        return self._change(resource, record, subresource, obj, options)

    def draft_patch(
        self,
        resource: ResourceType,
        namespace: str,
        name: str,
        subresource: str,
        content_type: str,
        body: Body,
        options: Options,
    ) -> Draft:
        """A state made from the current one by a patch; server-side apply may create."""
        kind = content_type.split(";", 1)[0].strip().lower()
        if kind not in _PATCHES or (kind == _PATCHES[2] and resource.is_crd):
            served = [p for p in _PATCHES if not (resource.is_crd and p == _PATCHES[2])]
            raise StatusError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(served),
            )
        if kind == APPLY:
            return self._draft_apply(resource, namespace, name, subresource, body, options)
        record = self._record(resource, namespace, name)
        live = from_storage(resource, record.obj)
        try:
            if kind == _PATCHES[0]:
                patched = json_patch(live, body.value)
            elif kind == _PATCHES[1]:
                patched = json_merge(live, body.obj())
            elif resource.schema is not None:
                patched = strategic_merge(live, body.obj(), resource.schema)
            else:
                patched = json_merge(live, body.obj())
        except PatchError as error:
            reason = {400: "BadRequest", 413: "RequestEntityTooLarge", 422: "Invalid"}.get(error.status, "")
            raise StatusError(error.status, reason, error.message) from error
        if patched.get("apiVersion") != resource.api_version or patched.get("kind") != resource.kind:
            raise bad_request("a patch cannot change apiVersion or kind")
        given = (patched.get("metadata") or {}).get("name")
        if given != name:
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        obj = decode(resource, Body(copied(patched), body.duplicates), options)
        return self._change(resource, record, subresource, obj, options)

    def _draft_apply(
        self, resource: ResourceType, namespace: str, name: str, subresource: str, body: Body, options: Options
    ) -> Draft:
        if not options.explicit_manager:
            problem = required("fieldManager", "is required for apply patch")
            raise invalid("meta.k8s.io", "PatchOptions", "", [problem])
        applied = body.obj()
        check_kind(resource, applied)
        meta = applied.setdefault("metadata", {})
        if meta.setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
            )
        if meta.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if resource.namespaced and meta.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        check_fields(resource, applied, body.duplicates, options)
        record = self._storage.get(resource.storage_key, namespace, name)
        if record is None and subresource:
            raise not_found(resource, name)
        if record is None and meta.get("uid"):
            why = (
                f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing object was found"
            )
            raise conflict(resource, name, why)
        live = from_storage(resource, record.obj) if record else None
        try:
            merged = apply_patch(
                live,
                applied,
                manager=options.field_manager,
                force=options.force,
                resource_type=resource,
                subresource=subresource or None,
                now=self._now(),
            )
        except ApplyConflict as error:
            raise apply_conflict(str(error), error.causes) from error
        except PatchError as error:
            raise StatusError(error.status, "BadRequest", error.message) from error
        merged = copied(merged)
        if record is None:
            merged["metadata"].pop("resourceVersion", None)
            fields = merged["metadata"].get("managedFields")
            draft = self.draft_create(resource, namespace, Body(merged, []), options, managed=True)
            if fields is not None:
                draft.obj["metadata"]["managedFields"] = fields
            return draft
        if "resourceVersion" in meta:
            merged["metadata"]["resourceVersion"] = meta["resourceVersion"]
        decoded = decode(resource, Body(merged, []), options)
        return self._change(resource, record, subresource, decoded, options, managed=True)

    def _record(self, resource: ResourceType, namespace: str, name: str) -> Record:
        record = self._storage.get(resource.storage_key, namespace, name)
        if record is None:
            raise not_found(resource, name)
        return record

    def _change(
        self,
        resource: ResourceType,
        record: Record,
        subresource: str,
        obj: Obj,
        options: Options,
        *,
        managed: bool = False,
    ) -> Draft:
        """The draft of an update, whatever its form; ``obj`` is decoded and ours."""
        old = from_storage(resource, record.obj)
        wanted = obj["metadata"].get("resourceVersion")
        if wanted and wanted != str(record.revision):
            raise conflict(resource, record.name)
        uid, known = obj["metadata"].get("uid"), old["metadata"].get("uid")
        if uid and uid != known:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {known}"
            raise conflict(resource, record.name, why)
        keep_server_fields(obj, old)
        obj = merge_subresource(resource, obj, old, subresource)
        if not subresource:
            obj = default(resource, obj)
        obj = copied(obj)  # parts of it are the stored object
        check_finalizers(resource, obj, old)
        if not managed:
            obj = own(resource, old, obj, subresource, options, self._now())
        return Draft(resource, record.namespace, record.name, subresource, options, obj, record, old)

    # ------------------------------------------------------------------ commit

    def commit(self, draft: Draft) -> Outcome:
        """Complete, validate and store a draft.

        Raises:
            StatusError: it is not valid, or what it was made from has changed (409 Conflict).
        """
        self._complete(draft)
        stored = to_storage(draft.resource, draft.obj)
        if draft.record is None:
            return self._create(draft, stored)
        return self._update(draft, stored)

    def rehearse(self, draft: Draft) -> Obj:
        """The object that a commit of the draft would store, complete and valid; nothing is stored or changed.

        Raises:
            StatusError: it is not valid.
        """
        trial = replace(draft, obj=copied(draft.obj))
        self._complete(trial)
        return trial.obj

    def _complete(self, draft: Draft) -> None:
        resource, obj, old = draft.resource, draft.obj, draft.old
        now = self._now()
        if old is not None:
            bump_generation(resource, obj, old, draft.subresource)
        if draft.subresource in ("", "status") or resource.kind == "CustomResourceDefinition":
            name_problems = validate_metadata(resource, obj)
            if name_problems:
                raise invalid(resource.group, resource.kind, draft.name, name_problems)
            if not draft.subresource or resource.plural == "customresourcedefinitions":
                self._validate_early(resource, obj, old, draft.name)
                self._admission.admit(resource, obj, old, now=now)
            self._validate(resource, obj, old, draft)

    def _validate_early(self, resource: ResourceType, obj: Obj, old: Obj | None, name: str) -> None:
        """What must hold before admission may look into the object."""
        if resource.kind != "CustomResourceDefinition":
            return
        problems = validate_crd(obj, old)
        if problems:
            raise invalid(resource.group, resource.kind, name, problems)

    def _validate(self, resource: ResourceType, obj: Obj, old: Obj | None, draft: Draft) -> None:
        problems: list[FieldError] = resource.schema.validate(obj) if resource.schema else []
        if not problems and not draft.subresource and not resource.is_crd:
            problems = validate_new(resource, obj)
            if old is not None:
                problems += validate_change(resource, obj, old)
        if problems:
            raise invalid(resource.group, resource.kind, draft.name, problems)

    def _create(self, draft: Draft, stored: Obj) -> Outcome:
        resource = draft.resource
        key = resource.storage_key
        if self._storage.get(key, draft.namespace, draft.name) is not None:
            raise already_exists(resource, draft.name)
        if draft.options.dry_run:
            return Outcome(stored, created=True)
        try:
            record = self._storage.create(key, draft.namespace, draft.name, stored)
        except Exists:
            raise already_exists(resource, draft.name) from None
        return Outcome(record.obj, created=True)

    def _update(self, draft: Draft, stored: Obj) -> Outcome:
        resource, record = draft.resource, draft.record
        assert record is not None  # noqa: S101 - the caller's branch
        stored["metadata"]["resourceVersion"] = str(record.revision)
        if _same(stored, record.obj):
            return Outcome(record.obj)
        if draft.options.dry_run:
            return Outcome(stored)
        key = resource.storage_key
        try:
            if is_finished(stored):
                record = self._storage.delete(
                    key, draft.namespace, draft.name, expected=record.revision, final=stored
                )
            else:
                record = self._storage.update(key, draft.namespace, draft.name, stored, expected=record.revision)
        except Stale:
            raise conflict(resource, draft.name) from None
        except Missing:
            raise not_found(resource, draft.name) from None
        return Outcome(record.obj)

    # ------------------------------------------------------------------ delete

    def delete(self, resource: ResourceType, namespace: str, name: str, options: DeleteOptions) -> Deleted:
        """Remove an object, or start its graceful removal."""
        record = self._record(resource, namespace, name)
        self._admission.check_delete(resource, name)
        meta = record.obj["metadata"]
        if options.uid and options.uid != meta.get("uid"):
            why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {meta.get('uid')}"
            raise conflict(resource, name, why)
        if options.resource_version and options.resource_version != str(record.revision):
            why = (
                f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
                f"ResourceVersion in object meta: {record.revision}"
            )
            raise conflict(resource, name, why)
        verdict = decide(resource, record.copy(), options, self._clock())
        if options.dry_run or (verdict.obj is None and not verdict.remove):
            return Deleted(verdict.obj or record.obj, verdict.remove)
        key = resource.storage_key
        if verdict.obj is not None and key == CRDS:
            self._admission.admit(resource, verdict.obj, record.obj, now=self._now())
        if verdict.remove:
            record = self._storage.delete(key, namespace, name, expected=record.revision, final=verdict.obj)
        elif verdict.obj is not None:
            record = self._storage.update(key, namespace, name, verdict.obj, expected=record.revision)
        return Deleted(record.obj, verdict.remove)


def check_finalizers(resource: ResourceType, obj: Obj, old: Obj) -> None:
    """Refuse new finalizers on an object that is being deleted."""
    if not old["metadata"].get("deletionTimestamp"):
        return
    known = set(old["metadata"].get("finalizers") or ())
    added = [name for name in obj["metadata"].get("finalizers") or () if name not in known]
    if added:
        listed = ", ".join(f'"{name}"' for name in added)
        why = (
            "no new finalizers can be added if the object is being deleted, found new finalizers "
            f"[]string{{{listed}}}"
        )
        raise invalid(
            resource.group, resource.kind, old["metadata"]["name"], [forbidden("metadata.finalizers", why)]
        )


def _same(new: Obj, old: Obj) -> bool:
    """Whether a write changes nothing but the times in managedFields."""
    if new.keys() != old.keys() or any(new[key] != old[key] for key in new if key != "metadata"):
        return False
    mine, theirs = new["metadata"], old["metadata"]
    if {k: v for k, v in mine.items() if k != "managedFields"} != {
        k: v for k, v in theirs.items() if k != "managedFields"
    }:
        return False
    return _without_times(mine.get("managedFields")) == _without_times(theirs.get("managedFields"))


def _without_times(entries: Any) -> list[Obj]:
    return [{k: v for k, v in entry.items() if k != "time"} for entry in entries or ()]
