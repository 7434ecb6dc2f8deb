"""OpenAPI documents: what kubectl looks for in them is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kaito.local.apiserver import openapi
from kaito.local.apiserver.registry import Registry

Obj = dict[str, Any]
CRD: Obj = {
    "metadata": {"name": "things.ex.io"},
    "spec": {
        "group": "ex.io",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A thing.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "description": "How big."},
                                    "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]},
                                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    found.add_crd(CRD)
    return found


def references(raw: Any) -> Iterator[str]:
    if isinstance(raw, dict):
        if isinstance(raw.get("$ref"), str):
            yield raw["$ref"]
        for value in raw.values():
            yield from references(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from references(value)


def patches(document: Obj, kind: str) -> list[Obj]:
    """The PATCH operations on a kind."""
    found = [item["patch"] for item in document["paths"].values() if "patch" in item]
    return [one for one in found if one["x-kubernetes-group-version-kind"]["kind"] == kind]


@pytest.mark.parametrize(
    ("name", "kind"), [("apis/apps/v1", "Deployment"), ("api/v1", "Pod"), ("apis/ex.io/v1", "Thing")]
)
def test_kubectl_finds_that_the_server_validates_and_dry_runs(registry: Registry, name: str, kind: str) -> None:
    """The PATCH operations of a kind list fieldValidation, dryRun, fieldManager and force, in both documents."""
    document = openapi.v3_document(registry, name)
    assert document is not None
    for found in (patches(document, kind), patches(openapi.v2(registry), kind)):
        assert found
        names = {parameter["name"] for parameter in found[0]["parameters"]}
        assert {"fieldValidation", "dryRun", "fieldManager", "force"} <= names


def test_strategic_merge_is_offered_for_built_in_kinds_only(registry: Registry) -> None:
    """kubectl sends the patch type that the document lists, and custom resources take no strategic merge."""
    strategic = "application/strategic-merge-patch+json"
    for name, kind, offered in (("apis/apps/v1", "Deployment", True), ("apis/ex.io/v1", "Thing", False)):
        document = openapi.v3_document(registry, name)
        assert document is not None
        assert (strategic in patches(document, kind)[0]["requestBody"]["content"]) == offered
        assert (strategic in patches(openapi.v2(registry), kind)[0]["consumes"]) == offered


@pytest.mark.parametrize("name", ["apis/apps/v1", "api/v1", "apis/ex.io/v1", "apis/apiextensions.k8s.io/v1"])
def test_every_reference_of_a_document_leads_somewhere(registry: Registry, name: str) -> None:
    """No $ref dangles: clients resolve all of them before they look at anything."""
    document = openapi.v3_document(registry, name)
    assert document is not None
    schemas = document["components"]["schemas"]
    assert {ref.removeprefix("#/components/schemas/") for ref in references(document)} <= set(schemas)


def test_the_swagger_document_is_closed_and_plain(registry: Registry) -> None:
    """Swagger 2.0 has no dangling references, no list types and no junctors."""
    document = openapi.v2(registry)
    definitions = document["definitions"]
    assert {ref.removeprefix("#/definitions/") for ref in references(document)} <= set(definitions)

    def check(raw: Any) -> None:
        if isinstance(raw, dict):
            assert not isinstance(raw.get("type"), list)
            for value in raw.values():
                check(value)
        elif isinstance(raw, list):
            for value in raw:
                check(value)

    check(definitions["io.k8s.api.core.v1.PodSpec"])
    thing = definitions["io.ex.v1.Thing"]
    assert thing["x-kubernetes-group-version-kind"] == [{"group": "ex.io", "version": "v1", "kind": "Thing"}]
    assert "anyOf" not in thing["properties"]["spec"]["properties"]["port"]


def test_descriptions_reach_explain(registry: Registry) -> None:
    """Schemas keep the descriptions of their fields, for built-in kinds and custom resources."""
    document = openapi.v3_document(registry, "apis/ex.io/v1")
    assert document is not None
    thing = document["components"]["schemas"]["io.ex.v1.Thing"]
    assert thing["properties"]["spec"]["properties"]["size"]["description"] == "How big."
    assert thing["properties"]["metadata"]["allOf"][0]["$ref"].endswith("ObjectMeta")
    apps = openapi.v3_document(registry, "apis/apps/v1")
    assert apps is not None
    spec = apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]
    assert spec["properties"]["replicas"]["description"]


def test_the_index_changes_with_what_is_served(registry: Registry) -> None:
    """The URL of a group version's document carries a hash of its content; unknown ones have none."""
    index = openapi.v3_index(registry)["paths"]
    assert index["apis/apps/v1"] == openapi.v3_index(Registry())["paths"]["apis/apps/v1"]
    assert index["apis/ex.io/v1"]["serverRelativeURL"].startswith("/openapi/v3/apis/ex.io/v1?hash=")
    changed = {**CRD, "spec": {**CRD["spec"], "versions": [{**CRD["spec"]["versions"][0], "schema": {}}]}}
    registry.add_crd(changed)
    assert openapi.v3_index(registry)["paths"]["apis/ex.io/v1"] != index["apis/ex.io/v1"]
    for unknown in ("apis/nope/v1", "api/v2", "apis/v1", "nonsense", "api/apps/v1"):
        assert openapi.v3_document(registry, unknown) is None


def test_operations_have_names_of_their_own(registry: Registry) -> None:
    """operationId is unique, which client generators rely on."""
    items = openapi.v2(registry)["paths"].values()
    names = [one["operationId"] for item in items for key, one in item.items() if key != "parameters"]
    assert len(names) == len(set(names))
