"""Pod templates: their hash, their equality, and the pod that is made from one.

In: the ``spec.template`` of a workload. Out: deterministic names (a template always hashes the same, so a
stale cache cannot create a second ReplicaSet for it) and pod objects that name their owner. Two templates are
equal when they differ only in the hash label and in ways of saying nothing.
"""

from __future__ import annotations

import hashlib
from typing import cast

import orjson

from manager.meta import owner_reference
from manager.types import Obj

from .patching import canonical
from .pods import name_of, namespace_of

HASH_LABEL = "pod-template-hash"
REVISION_LABEL = "controller-revision-hash"

# No vowels and no digits that look like one: a hash never spells a word.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def bare_template(template: Obj) -> Obj:
    """The template as its author meant it: canonical, without hash label and server's time stamp."""
    cleaned = cast(Obj, canonical(template))
    metadata = {k: v for k, v in cleaned.get("metadata", {}).items() if k != "creationTimestamp"}
    labels = {k: v for k, v in metadata.get("labels", {}).items() if k != HASH_LABEL}
    metadata["labels"] = labels
    return {**cleaned, "metadata": {k: v for k, v in metadata.items() if v}}


def same_template(one: Obj, other: Obj) -> bool:
    """Whether both templates ask for the same pods."""
    return bare_template(one) == bare_template(other)


def template_hash(template: Obj, collisions: int = 0) -> str:
    """A short name for the template, safe in a label and in an object's name.

    ``collisions`` is the owner's count of names that were taken by something else.
    """
    text = orjson.dumps(bare_template(template), option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(text + (str(collisions).encode() if collisions else b"")).digest()
    number = int.from_bytes(digest[:4], "big")
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(number))


def with_label(template: Obj, label: str, value: str) -> Obj:
    """A copy of the template that carries one more label."""
    metadata = template.get("metadata") or {}
    return {**template, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), label: value}}}


def pod_from_template(template: Obj, owner: Obj, *, name: str | None = None) -> Obj:
    """A pod to create for ``owner``; without a name the server makes one from the owner's."""
    template_meta = template.get("metadata") or {}
    metadata: Obj = {
        "namespace": namespace_of(owner),
        "labels": dict(template_meta.get("labels") or {}),
        "ownerReferences": [owner_reference(owner, controller=True)],
    }
    if name is None:
        metadata["generateName"] = f"{name_of(owner)}-"
    else:
        metadata["name"] = name
    for field in ("annotations", "finalizers"):
        if template_meta.get(field):
            metadata[field] = template_meta[field]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": dict(template.get("spec") or {}),
    }
