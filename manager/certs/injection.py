"""Where API servers are told which authorities to trust: the ``caBundle`` fields of a few kinds.

In: a configuration as read, and the bundle. Out: a JSON patch of nothing but those fields, bound to the resource
version that was read, so that of two writers one gets a Conflict and looks again.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from manager.resources import CRDS
from manager.types import Obj, Resource

VALIDATING = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
MUTATING = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)


@dataclass(frozen=True, slots=True)
class Target:
    """One object whose ``caBundle`` fields are kept: of :data:`VALIDATING`, :data:`MUTATING`, or a CRD."""

    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.resource.plural}/{self.name}"


def validating(name: str) -> Target:
    """All webhooks of a ValidatingWebhookConfiguration."""
    return Target(VALIDATING, name)


def mutating(name: str) -> Target:
    """All webhooks of a MutatingWebhookConfiguration."""
    return Target(MUTATING, name)


def crd_conversion(name: str) -> Target:
    """The conversion webhook of a CustomResourceDefinition, once it has one."""
    return Target(CRDS, name)


def bundles(obj: Obj) -> dict[str, bytes]:
    """Every place of the object that wants a bundle, as a JSON pointer, with what is there."""
    spec = obj.get("spec") or {}
    found: dict[str, Obj] = {
        f"/webhooks/{index}/clientConfig": webhook.get("clientConfig") or {}
        for index, webhook in enumerate(obj.get("webhooks") or ())
    }
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") == "Webhook":
        client = (conversion.get("webhook") or {}).get("clientConfig")
        if client is not None:
            found["/spec/conversion/webhook/clientConfig"] = client
    return {f"{pointer}/caBundle": _decoded(client.get("caBundle")) for pointer, client in found.items()}


def trusts(obj: Obj, authority: bytes) -> bool:
    """Whether every place has this authority in its bundle."""
    return all(authority.strip() in bundle for bundle in bundles(obj).values())


def injection(obj: Obj, bundle: bytes) -> list[Obj]:
    """The JSON patch that makes every bundle this one; empty when they are."""
    encoded = base64.b64encode(bundle).decode()
    changes = [
        {"op": "add", "path": pointer, "value": encoded}
        for pointer, present in bundles(obj).items()
        if present != bundle
    ]
    if not changes:
        return []
    version = obj["metadata"]["resourceVersion"]
    return [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *changes]


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""
