"""What all objects of a Workspace have in common, and whether a stored object still is what was asked for.

In: desired and stored objects. Out: metadata, or a yes or no. Pure. A fingerprint of the desired object is kept on
the stored one: a comparison field by field alone would not see that a field is no longer wanted.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from api import keys
from controllers.resources import WORKSPACES
from controllers.workspace.children import FINGERPRINT
from controllers.workspace.model import Observation
from manager.types import Obj


def owned_metadata(obs: Observation, suffix: str = "") -> Obj:
    """Name, labels and the owner reference by which the object goes with its Workspace."""
    return {
        "name": obs.name + suffix,
        "namespace": obs.namespace,
        "labels": {keys.WORKSPACE_LABEL: obs.name},
        "ownerReferences": [
            {
                "apiVersion": WORKSPACES.api_version,
                "kind": WORKSPACES.kind,
                "name": obs.name,
                "uid": obs.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def with_fingerprint(desired: Obj) -> Obj:
    """The desired object with its own fingerprint as an annotation."""
    return annotated(desired, {FINGERPRINT: digest(desired)[:16]})


def annotated(desired: Obj, more: dict[str, str]) -> Obj:
    """The object with further annotations."""
    meta = desired["metadata"]
    return {**desired, "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), **more}}}


def digest(value: Any) -> str:
    """The sha256, in hex, of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_applied(desired: Obj, stored: Obj | None) -> bool:
    """Whether the stored object already holds everything of the desired one.

    Only a shortcut past a needless request: where the server normalises a value (a quantity in a template)
    the answer is no, the object is applied again, and the server finds nothing to change.
    """
    return stored is not None and _contains(stored, desired)


def _contains(stored: Any, desired: Any) -> bool:
    if isinstance(desired, dict):
        return isinstance(stored, dict) and all(
            key in stored and _contains(stored[key], value) for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(desired)
            and all(_contains(have, want) for have, want in zip(stored, desired, strict=True))
        )
    return bool(stored == desired)
