"""Which webhooks concern a request: rules, scope, selectors, equivalent versions.

In: configurations as stored, and what a request is about to do. Out: the webhooks to call, in order, each with the
version of the resource that its rules name. Pure; namespaces' labels and equivalent types are arguments. CEL match
conditions are not evaluated: a webhook that has some is called as if they held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from kaito.local.apiserver.conversion import from_storage, to_storage
from kaito.local.apiserver.registry import ResourceType
from manager.selectors import selector_from
from manager.types import Obj

__all__ = ["Attributes", "Hook", "hooks_of"]

_EXEMPT = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
"""Kinds that no webhook may guard: a broken one could not be repaired any more."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request is about to do.

    Attributes:
        kind: group, version and kind of the objects; a subresource such as ``scale`` has its own.
        sent: resource and kind as the client sent them, where this is in another version.
        obj: the new state, None for DELETE; ``old``: the present one, None for CREATE and CONNECT.
    """

    operation: str
    resource: ResourceType
    name: str
    namespace: str
    kind: tuple[str, str, str]
    subresource: str = ""
    obj: Obj | None = None
    old: Obj | None = None
    user: Obj = field(default_factory=dict)
    dry_run: bool = False
    options: Obj | None = None
    sent: tuple[ResourceType, tuple[str, str, str]] | None = None

    @property
    def as_sent(self) -> tuple[ResourceType, tuple[str, str, str]]:
        """Resource and kind as the client sent them, whatever version this is in."""
        return self.sent or (self.resource, self.kind)

    def at(self, resource: ResourceType) -> Attributes:
        """The same request with its objects in another version of the resource."""
        if resource is self.resource:
            return self
        own = (self.resource.group, self.resource.version, self.resource.kind)
        sent = self.as_sent
        if self.kind != own:
            return replace(self, resource=resource, sent=sent)
        return replace(
            self,
            sent=sent,
            resource=resource,
            kind=(resource.group, resource.version, resource.kind),
            obj=None if self.obj is None else from_storage(resource, to_storage(self.resource, self.obj)),
            old=None if self.old is None else from_storage(resource, to_storage(self.resource, self.old)),
        )


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of one configuration."""

    configuration: str
    spec: Obj

    @property
    def name(self) -> str:
        """Its name, as error messages give it."""
        return str(self.spec.get("name"))

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.configuration, self.name

    @property
    def reinvocable(self) -> bool:
        """Whether it wants to see what others changed after it."""
        return self.spec.get("reinvocationPolicy") == "IfNeeded"

    @property
    def ignores_failure(self) -> bool:
        """Whether the request goes on when it cannot be asked."""
        return self.spec.get("failurePolicy") == "Ignore"

    def match(
        self, request: Attributes, namespace_labels: Obj, equivalents: Iterable[ResourceType]
    ) -> ResourceType | None:
        """The version of the resource in which it wants to be asked, or None when it is not concerned."""
        if request.resource.plural in _EXEMPT and request.resource.group == "admissionregistration.k8s.io":
            return None
        found = request.resource if self._rules(request, request.resource) else None
        if found is None and self.spec.get("matchPolicy", "Equivalent") == "Equivalent":
            found = next((one for one in equivalents if self._rules(request, one)), None)
        if found is None or not self._namespace(request, namespace_labels) or not self._object(request):
            return None
        return found

    def _rules(self, request: Attributes, resource: ResourceType) -> bool:
        scope = "Namespaced" if request.namespace and resource.namespaced else "Cluster"
        return any(
            _has(rule.get("operations"), request.operation)
            and _has(rule.get("apiGroups"), resource.group)
            and _has(rule.get("apiVersions"), resource.version)
            and rule.get("scope", "*") in ("*", scope)
            and _resource(rule.get("resources"), resource.plural, request.subresource)
            for rule in self.spec.get("rules") or ()
        )

    def _namespace(self, request: Attributes, labels: Obj) -> bool:
        """Cluster-scoped objects are in no namespace and always match, but for namespaces themselves."""
        if not request.resource.namespaced and not _is_namespace(request.resource):
            return True
        return selector_from(self.spec.get("namespaceSelector") or {}).matches(labels)

    def _object(self, request: Attributes) -> bool:
        selector = self.spec.get("objectSelector") or {}
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            return True
        chosen = selector_from(selector)
        return any(
            chosen.matches(labels_of(obj)) for obj in (request.obj, request.old) if obj and "metadata" in obj
        )


def hooks_of(configurations: Iterable[Obj]) -> list[Hook]:
    """All webhooks, by configuration name and then as listed: the order in which they are called."""
    ordered = sorted(configurations, key=lambda one: str(one["metadata"]["name"]))
    return [Hook(one["metadata"]["name"], spec) for one in ordered for spec in one.get("webhooks") or ()]


def labels_of(obj: Obj | None) -> Obj:
    """An object's labels."""
    labels: Obj = ((obj or {}).get("metadata") or {}).get("labels") or {}
    return labels


def _is_namespace(resource: ResourceType) -> bool:
    return resource.plural == "namespaces" and not resource.group


def _has(listed: Any, value: str) -> bool:
    return "*" in (listed or ()) or value in (listed or ())


def _resource(listed: Any, plural: str, subresource: str) -> bool:
    """``*`` is every resource, ``*/*`` subresources too, ``pods/*`` those of one, ``*/scale`` one of every."""
    for entry in listed or ():
        resource, _, sub = str(entry).partition("/")
        if resource in ("*", plural) and sub in ("*", subresource):
            return True
    return False
