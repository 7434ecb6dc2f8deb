"""The nouns that every other module of the framework speaks in: objects, resources, requests, results.

Objects are plain JSON dicts. What comes out of a cache is shared by all readers and must not be changed; whoever
wants to change one builds a patch instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

Obj = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One REST resource of an API server: where its objects live and what they are called."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects: ``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> str:
        """``Kind`` or ``Kind.group``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of one object, or of its subresource.

        Args:
            namespace: None means all namespaces; ignored for cluster-scoped resources.
            name: None means the collection.
            subresource: such as ``status``; needs a name.
        """
        parts = ["/api", self.version] if not self.group else ["/apis", self.group, self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
            if subresource:
                parts.append(subresource)
        return "/".join(parts)


class Request(NamedTuple):
    """What a reconciler is asked to look at: the key of one object, never its content.

    A tuple, because queues hash and compare it several times per event.
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile asks for next.

    Attributes:
        requeue_after: seconds until the same key is looked at again without any event; None: only on events.
        priority: of the next look, whatever leads to it; None keeps the priority that the key had.
        requeue: look again after the key's back-off, as after an error. Deprecated: ``requeue_after`` says when.
        error: a failure that is reported rather than raised, so that it can come with a priority. It beats
            ``requeue_after`` and ``requeue``.
    """

    requeue_after: float | None = None
    priority: int | None = None
    requeue: bool = False
    error: Exception | None = None
