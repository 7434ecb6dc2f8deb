"""Discovery documents, and the registry that they show."""

from __future__ import annotations

from typing import Any

import pytest

from kaito.local.apiserver import discovery
from kaito.local.apiserver.registry import Registry, builtin_types, version_priority

Obj = dict[str, Any]


def crd(*versions: str, plural: str = "workspaces", kind: str = "Workspace", **spec: Any) -> Obj:
    return {
        "metadata": {"name": f"{plural}.kaito.sh"},
        "spec": {
            "group": "kaito.sh",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "shortNames": ["wk"]},
            "versions": [
                {
                    "name": name,
                    "served": True,
                    "storage": index == 0,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"},
                    },
                }
                for index, name in enumerate(versions)
            ],
            **spec,
        },
    }


def resources(document: Obj | None) -> dict[str, Obj]:
    assert document is not None
    return {one["name"]: one for one in document["resources"]}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("", "v1", "pods"), {"shortNames": ["po"], "categories": ["all"], "kind": "Pod", "namespaced": True}),
        (("", "v1", "nodes"), {"shortNames": ["no"], "namespaced": False, "singularName": "node"}),
        (("", "v1", "endpoints"), {"singularName": "endpoints", "shortNames": ["ep"]}),
        (("apps", "v1", "deployments"), {"shortNames": ["deploy"], "categories": ["all"]}),
        (("apiextensions.k8s.io", "v1", "customresourcedefinitions"), {"shortNames": ["crd", "crds"]}),
        (("networking.k8s.io", "v1", "ingresses"), {"singularName": "ingress", "shortNames": ["ing"]}),
        (("authorization.k8s.io", "v1", "selfsubjectaccessreviews"), {"verbs": ["create"]}),
        (("discovery.k8s.io", "v1", "endpointslices"), {"kind": "EndpointSlice"}),
    ],
)
def test_resources_have_the_names_that_clients_spell_out(key: tuple[str, str, str], expected: Obj) -> None:
    """Short names, categories, scope and verbs are those of Kubernetes."""
    found = resources(discovery.api_resource_list(Registry(), key[0], key[1]))[key[2]]
    assert {name: found.get(name) for name in expected} == expected


def test_subresources_answer_with_their_own_kinds() -> None:
    """Scale, eviction, token and log are listed with group, version and kind of what they exchange."""
    apps = resources(discovery.api_resource_list(Registry(), "apps", "v1"))
    assert apps["deployments/scale"] | {} == {
        "name": "deployments/scale",
        "singularName": "",
        "namespaced": True,
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
        "verbs": ["get", "patch", "update"],
    }
    core = resources(discovery.api_resource_list(Registry(), "", "v1"))
    assert (core["pods/eviction"]["group"], core["pods/eviction"]["kind"]) == ("policy", "Eviction")
    assert core["pods/log"]["verbs"] == ["get"]
    assert core["pods/log"]["kind"] == "Pod"


def test_custom_resources_appear_and_vanish() -> None:
    """A CRD's group is there while it is served; its preferred version is the most mature one."""
    registry = Registry()
    registry.add_crd(crd("v1alpha1", "v1beta1"))
    group = discovery.api_group(registry, "kaito.sh")
    assert group is not None
    assert [one["version"] for one in group["versions"]] == ["v1beta1", "v1alpha1"]
    assert group["preferredVersion"] == {"groupVersion": "kaito.sh/v1beta1", "version": "v1beta1"}
    assert set(resources(discovery.api_resource_list(registry, "kaito.sh", "v1alpha1"))) == {
        "workspaces",
        "workspaces/status",
        "workspaces/scale",
    }
    registry.remove_crd("workspaces.kaito.sh")
    assert discovery.api_group(registry, "kaito.sh") is None
    assert discovery.api_resource_list(registry, "kaito.sh", "v1alpha1") is None


def test_all_versions_of_a_custom_resource_share_storage() -> None:
    """Storage is found under one key, at the storage version."""
    registry = Registry()
    types = registry.add_crd(crd("v1alpha1", "v1beta1"))
    assert {one.storage_key for one in types} == {"kaito.sh/workspaces"}
    assert {one.storage_api_version for one in types} == {"kaito.sh/v1alpha1"}
    assert [one.version for one in types if one.is_storage_version] == ["v1alpha1"]


def test_a_changed_definition_replaces_what_it_served() -> None:
    """Versions that are no longer served are gone after an update of the CRD."""
    registry = Registry()
    registry.add_crd(crd("v1alpha1", "v1beta1"))
    registry.add_crd(crd("v1beta1"))
    assert registry.lookup("kaito.sh", "v1alpha1", "workspaces") is None
    assert registry.by_kind("kaito.sh", "v1beta1", "Workspace") is registry.lookup(
        "kaito.sh", "v1beta1", "workspaces"
    )


def test_both_groups_of_events_share_storage() -> None:
    """Events are one thing, served in two shapes."""
    registry = Registry()
    core, new = registry.lookup("", "v1", "events"), registry.lookup("events.k8s.io", "v1", "events")
    assert core is not None
    assert new is not None
    assert core.storage_key == new.storage_key == "events"
    assert new.storage_api_version == "v1"


def test_a_built_in_resource_cannot_be_taken_over() -> None:
    """A CRD of a built-in group, version and plural is refused."""
    broken = crd("v1", plural="deployments", kind="Deployment", group="apps")
    with pytest.raises(ValueError, match="built in"):
        Registry().add_crd(broken)


def test_every_built_in_kind_has_a_schema() -> None:
    """No row of the table misses its definition."""
    for one in builtin_types():
        assert one.schema is not None
        assert one.schema.root.properties, one.group_kind


def test_the_aggregated_form_says_the_same_as_the_lists() -> None:
    """Groups, versions, resources, verbs and subresources agree between the old and the new form."""
    registry = Registry()
    registry.add_crd(crd("v1alpha1"))
    for core in (True, False):
        document = discovery.aggregated(registry, core=core)
        assert document["apiVersion"] == "apidiscovery.k8s.io/v2"
        for group in document["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                old = resources(discovery.api_resource_list(registry, name, version["version"]))
                new = {}
                for one in version["resources"]:
                    new[one["resource"]] = one["verbs"]
                    for below in one.get("subresources", ()):
                        new[f"{one['resource']}/{below['subresource']}"] = below["verbs"]
                assert {key: value["verbs"] for key, value in old.items()} == new
    assert discovery.aggregated(registry, core=True, version="v2beta1")["apiVersion"].endswith("/v2beta1")


def test_the_root_documents() -> None:
    """/api names v1 and how to reach the server; /apis lists every named group once."""
    assert (
        discovery.api_versions("127.0.0.1:6443")["serverAddressByClientCIDRs"][0]["serverAddress"]
        == "127.0.0.1:6443"
    )
    groups = [one["name"] for one in discovery.api_group_list(Registry())["groups"]]
    assert len(groups) == len(set(groups))
    assert {"apps", "batch", "events.k8s.io", "coordination.k8s.io"} <= set(groups)
    assert "" not in groups


def test_versions_sort_as_kubernetes_sorts_them() -> None:
    """Stable before beta before alpha, higher numbers first, other names last."""
    names = ["foo1", "v1alpha1", "v2", "v1beta2", "v10", "v1", "v1beta1", "v11alpha2", "v12alpha1"]
    assert sorted(names, key=version_priority) == [
        "v10",
        "v2",
        "v1",
        "v1beta2",
        "v1beta1",
        "v12alpha1",
        "v11alpha2",
        "v1alpha1",
        "foo1",
    ]
