"""Discovery: which groups, versions and resources there are, in the three forms that clients ask for.

In: the registry. Out: APIVersions, APIGroupList, APIGroup and APIResourceList documents, and the aggregated
APIGroupDiscoveryList of current clients. Pure; the registry is only read. What must never happen: a resource
here that the server does not answer for, since garbage collectors and namespace deletion walk these lists.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from manager.types import Obj

from .builtin import Subresource, subresource
from .registry import Registry, ResourceType

_GROUP_DISCOVERY = "apidiscovery.k8s.io"


def api_versions(server_address: str = "") -> Obj:
    """The document at ``/api``. ``server_address`` is ``host:port`` as clients reach it."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def api_group_list(registry: Registry) -> Obj:
    """The document at ``/apis``: every named group."""
    groups = [_group(registry, group) for group in registry.groups() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(registry: Registry, group: str) -> Obj | None:
    """The document at ``/apis/<group>``; None for a group that is not served."""
    if not group or group not in registry.groups():
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(registry, group)}


def _group(registry: Registry, group: str) -> Obj:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in registry.versions(group)]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def api_resource_list(registry: Registry, group: str, version: str) -> Obj | None:
    """The document at ``/api/v1`` or ``/apis/<group>/<version>``; None for a version that is not served."""
    types = _types(registry, group, version)
    if not types:
        return None
    resources = []
    for resource_type in sorted(types, key=lambda one: one.plural):
        resources.append(_resource(resource_type))
        resources += [_subresource(resource_type, name) for name in sorted(resource_type.subresources)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _types(registry: Registry, group: str, version: str) -> list[ResourceType]:
    return [one for one in registry.all() if one.group == group and one.version == version]


def _resource(resource_type: ResourceType) -> Obj:
    found: Obj = {
        "name": resource_type.plural,
        "singularName": resource_type.singular,
        "namespaced": resource_type.namespaced,
        "kind": resource_type.kind,
        "verbs": list(resource_type.verbs),
    }
    if resource_type.short_names:
        found["shortNames"] = list(resource_type.short_names)
    if resource_type.categories:
        found["categories"] = list(resource_type.categories)
    if "list" in resource_type.verbs:
        # what a client may use to notice that a resource is stored anew under the same name
        identity = f"{resource_type.storage_key}/{resource_type.storage_version}"
        found["storageVersionHash"] = hashlib.sha256(identity.encode()).hexdigest()[:11] + "="
    return found


def _answer(resource_type: ResourceType, name: str) -> Subresource:
    """What a subresource answers with, its kind filled in."""
    found = subresource(resource_type.plural, name)
    if found.kind:
        return found
    return Subresource(found.verbs, resource_type.group, resource_type.version, resource_type.kind)


def _subresource(resource_type: ResourceType, name: str) -> Obj:
    answer = _answer(resource_type, name)
    found: Obj = {
        "name": f"{resource_type.plural}/{name}",
        "singularName": "",
        "namespaced": resource_type.namespaced,
        "kind": answer.kind,
        "verbs": sorted(answer.verbs),
    }
    if (answer.group, answer.version) != (resource_type.group, resource_type.version):
        found["group"], found["version"] = answer.group, answer.version
    return found


def aggregated(registry: Registry, *, core: bool, version: Literal["v2", "v2beta1"] = "v2") -> Obj:
    """Everything at once, as clients since 1.26 ask for it: ``/api`` (``core``) or ``/apis``."""
    groups = [group for group in registry.groups() if (not group) == core]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{_GROUP_DISCOVERY}/{version}",
        "metadata": {},
        "items": [_discovered_group(registry, group) for group in groups],
    }


def _discovered_group(registry: Registry, group: str) -> Obj:
    versions = [
        {
            "version": version,
            "resources": [
                _discovered(one) for one in sorted(_types(registry, group, version), key=lambda one: one.plural)
            ],
            "freshness": "Current",
        }
        for version in registry.versions(group)
    ]
    return {"metadata": {"name": group, "creationTimestamp": None} if group else {}, "versions": versions}


def _kind(group: str, version: str, kind: str) -> Obj:
    return {"group": group, "version": version, "kind": kind}


def _discovered(resource_type: ResourceType) -> Obj:
    found: Obj = {
        "resource": resource_type.plural,
        "responseKind": _kind(resource_type.group, resource_type.version, resource_type.kind),
        "scope": "Namespaced" if resource_type.namespaced else "Cluster",
        "singularResource": resource_type.singular,
        "verbs": list(resource_type.verbs),
    }
    if resource_type.short_names:
        found["shortNames"] = list(resource_type.short_names)
    if resource_type.categories:
        found["categories"] = list(resource_type.categories)
    below = []
    for name in sorted(resource_type.subresources):
        answer = _answer(resource_type, name)
        below.append(
            {
                "subresource": name,
                "responseKind": _kind(answer.group, answer.version, answer.kind),
                "verbs": sorted(answer.verbs),
            }
        )
    if below:
        found["subresources"] = below
    return found
