"""Between a draft and its commit: a draft as webhooks see it, and what becomes of their changes.

In: a draft of the writer. Out: the attributes of its request; or the same draft with an object that webhooks
changed, made good as if the client had sent it so: unknown fields dropped, defaults filled in, the server's own
fields and the split of status and spec restored. Pure.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from kaito.local.apiserver.decoding import decode, default
from kaito.local.apiserver.hooks.matching import Attributes
from kaito.local.apiserver.requests import Body
from kaito.local.apiserver.strategy import keep_server_fields, merge_subresource, reset_status
from kaito.local.apiserver.writes import Draft, check_finalizers
from manager.types import Obj

__all__ = ["attributes", "take"]

_STAMPS = ("uid", "creationTimestamp", "generation")  # of a new object; set when it is stored


def attributes(draft: Draft, user: Obj, *, obj: Obj | None = None) -> Attributes:
    """The request that the draft stands for; ``obj`` is its object once it is complete."""
    creating = draft.old is None
    new = draft.obj if obj is None else obj
    name = draft.name
    if creating and obj is None:
        meta = {key: value for key, value in new["metadata"].items() if key not in _STAMPS}
        meta["creationTimestamp"] = None
        if draft.generated:
            meta.pop("name", None)
            name = ""
        new = new | {"metadata": meta}
    resource = draft.resource
    options: Obj = {
        "kind": "CreateOptions" if creating else "UpdateOptions",
        "apiVersion": "meta.k8s.io/v1",
    }
    if draft.options.dry_run:
        options["dryRun"] = ["All"]
    if draft.options.explicit_manager:
        options["fieldManager"] = draft.options.field_manager
    return Attributes(
        operation="CREATE" if creating else "UPDATE",
        resource=resource,
        name=name,
        namespace=draft.namespace,
        kind=(resource.group, resource.version, resource.kind),
        subresource=draft.subresource,
        obj=new,
        old=draft.old,
        user=user,
        dry_run=draft.options.dry_run,
        options=options,
    )


def take(draft: Draft, obj: Obj) -> None:
    """Let the draft be of this object, which mutating webhooks made of it.

    Raises:
        StatusError: it cannot be decoded, or it breaks a rule of objects that are being deleted.
    """
    resource, before = draft.resource, draft.obj
    quiet = replace(draft.options, field_validation="Ignore", warnings=[])
    taken = decode(resource, Body(copy.deepcopy(obj), []), quiet)
    meta = taken["metadata"]
    meta["name"] = draft.name
    if draft.old is None:
        for field in ("namespace", "managedFields", *_STAMPS):
            if field in before["metadata"]:
                meta[field] = before["metadata"][field]
            else:
                meta.pop(field, None)
        taken = default(resource, taken)
        reset_status(resource, taken)
    else:
        keep_server_fields(taken, draft.old)
        if "managedFields" in before["metadata"]:
            meta["managedFields"] = before["metadata"]["managedFields"]
        taken = merge_subresource(resource, taken, draft.old, draft.subresource)
        if not draft.subresource:
            taken = default(resource, taken)
        taken = copy.deepcopy(taken)  # parts of it are the stored object
        check_finalizers(resource, taken, draft.old)
    draft.obj = taken
