"""How an agent pool is called, and to which pool a node belongs.

In: a Machine's uid, a providerID, a Node. Out: pool names. AKS takes ``^[a-z][a-z0-9]{0,11}$``. A pool of ours is
called after a hash of its Machine's uid: whatever dies when, a Machine can only ever ask for that one pool, and a
namesake that is made later asks for another. Pure.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from collections.abc import Mapping
from typing import Any

from provisioner.errors import InvalidRequest

POOL_LABELS = ("kubernetes.azure.com/agentpool", "agentpool")  # AKS writes both on every node of a pool
_VALID = re.compile(r"[a-z][a-z0-9]{0,11}")
_HASH_CHARS = 11  # of 32 values each: 55 bits
# AKS writes the resource group in lower case on some nodes and as it was given on others.
_PROVIDER_ID = re.compile(
    r"azure:///subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/"
    r"virtualMachineScaleSets/aks-(?P<pool>[a-z0-9]+)-\d+-vmss[^/]*/virtualMachines/[^/]+",
    re.IGNORECASE,
)


def pool_name(uid: str) -> str:
    """The pool of the Machine with this uid."""
    digest = b32encode(hashlib.sha256(uid.encode()).digest()).decode().lower()
    return "k" + digest[:_HASH_CHARS]


def check_pool_name(name: str) -> str:
    """``name`` when AKS takes it. Raises ``InvalidRequest``."""
    if _VALID.fullmatch(name):
        return name
    raise InvalidRequest(
        f"agent pool name ({name}) is invalid: it must match ^[a-z][a-z0-9]{{0,11}}$", code="InvalidName"
    )


def pool_of_provider_id(provider_id: str) -> str:
    """The pool whose node has this providerID; empty when it is no node of an AKS scale set."""
    match = _PROVIDER_ID.fullmatch(provider_id)
    return match["pool"].lower() if match else ""


def instance_name(uid: str, provider_id: str = "") -> str:
    """The pool of a Machine; one that has a node already keeps the pool of that node, whoever made it.

    Raises:
        InvalidRequest: the providerID is another cloud's. Guessing a name here would lose the real instance.
    """
    if not provider_id:
        return pool_name(uid)
    if pool := pool_of_provider_id(provider_id):
        return pool
    raise InvalidRequest(
        f"providerID {provider_id} is not that of an AKS node",
        code="InvalidProviderID",
        next_step="Let the provisioner of that cloud serve this Machine.",
    )


def pool_of_node(node: Mapping[str, Any]) -> str:
    """The pool that this Node object belongs to; empty when it belongs to none, or its labels disagree."""
    labels = (node.get("metadata") or {}).get("labels") or {}
    named = {labels[key] for key in POOL_LABELS if labels.get(key)}
    if len(named) == 1:
        return str(named.pop())
    return "" if named else pool_of_provider_id(str((node.get("spec") or {}).get("providerID") or ""))
