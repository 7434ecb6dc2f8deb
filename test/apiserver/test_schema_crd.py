"""Rules that a CustomResourceDefinition must keep before it is served."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from kaito.local.apiserver.schema import validate_crd

CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "foos.ex.io"},
    "spec": {
        "group": "ex.io",
        "scope": "Namespaced",
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}
                        },
                    }
                },
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
            }
        ],
    },
}
AT = "spec.versions[0].schema.openAPIV3Schema"
A = f"{AT}.properties[spec].properties[a]"


def changed(change: Callable[[Any, Any, Any], object]) -> dict[str, Any]:
    crd = deepcopy(CRD)
    version = crd["spec"]["versions"][0]
    change(crd, version, version["schema"]["openAPIV3Schema"])
    return crd


def field(schema: dict[str, Any]) -> Callable[[Any, Any, Any], object]:
    return lambda crd, version, root: root["properties"]["spec"]["properties"].update(a=schema)


BROKEN: list[tuple[Callable[[Any, Any, Any], object], str]] = [
    (
        lambda c, v, s: c["metadata"].update(name="x.y.z"),
        'metadata.name: Invalid value: "x.y.z": must be spec.names.plural+"."+spec.group',
    ),
    (
        lambda c, v, s: c.update(metadata={"name": "foos.foo"}, spec=c["spec"] | {"group": "foo"}),
        'spec.group: Invalid value: "foo": should be a domain with at least one dot',
    ),
    (
        lambda c, v, s: c["spec"].update(scope="X"),
        'spec.scope: Unsupported value: "X": supported values: "Cluster", "Namespaced"',
    ),
    (
        lambda c, v, s: c["spec"]["names"].update(listKind="Foo"),
        'spec.names.listKind: Invalid value: "Foo": kind and listKind may not be the same',
    ),
    (
        lambda c, v, s: v.update(storage=False),
        'spec.versions: Invalid value: ["v1"]: must have exactly one version marked as storage version',
    ),
    (lambda c, v, s: v.pop("schema"), f"{AT}: Required value"),
    (lambda c, v, s: s.pop("type"), f"{AT}.type: Required value: must not be empty at the root"),
    (
        lambda c, v, s: s["properties"].update(
            metadata={"type": "object", "properties": {"labels": {"type": "object"}}}
        ),
        f"{AT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, "
        "but metadata is implicitly specified",
    ),
    (field({}), f"{A}.type: Required value: must not be empty for specified object fields"),
    (field({"type": "zzz"}), f'{A}.type: Unsupported value: "zzz"'),
    (field({"type": "array"}), f"{A}.items: Required value: must be specified"),
    (
        field({"type": "array", "items": {}}),
        f"{A}.items.type: Required value: must not be empty for specified array items",
    ),
    (
        field({"type": "string", "default": 3}),
        f'{A}.default: Invalid value: "integer":  in body must be of type string: "integer"',
    ),
    (
        field({"type": "string", "pattern": "("}),
        f'{A}.pattern: Invalid value: "(": must be a valid regular expression',
    ),
    (
        field({"type": "array", "uniqueItems": True, "items": {"type": "string"}}),
        f"{A}.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity ",
    ),
    (
        field(
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}}},
            }
        ),
        f"{A}.items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, "
        "so it must have a default or be a required property",
    ),
    (
        field({"type": "string", "oneOf": [{"type": "string"}]}),
        f"{A}.oneOf[0].type: Forbidden: must be empty to be structural",
    ),
    (
        lambda c, v, s: v["additionalPrinterColumns"][0].update(type="zz"),
        'spec.versions[0].additionalPrinterColumns[0].type: Invalid value: "zz": must be one of '
        "boolean,date,integer,number,string",
    ),
    (
        lambda c, v, s: v["additionalPrinterColumns"][0].update(jsonPath=".a["),
        'spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: ".a["',
    ),
    (
        lambda c, v, s: v["subresources"].update(
            scale={"specReplicasPath": ".status.x", "statusReplicasPath": ".status.r"}
        ),
        'spec.versions[0].subresources.scale.specReplicasPath: Invalid value: ".status.x": '
        "should be a json path under .spec",
    ),
    (
        lambda c, v, s: c["spec"].update(conversion={"strategy": "Webhook"}),
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
    ),
    (
        lambda c, v, s: c.update(status={"storedVersions": ["v0"]}),
        'status.storedVersions[0]: Invalid value: "v0": must appear in spec.versions',
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_definition_is_refused(change: Callable[[Any, Any, Any], object], message: str) -> None:
    """Each broken rule is named once, at its place."""
    found = [str(problem) for problem in validate_crd(changed(change))]
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_sound_definition_is_accepted() -> None:
    """A structural definition has no problems, CEL rules included."""
    assert validate_crd(CRD) == []
    rules = {"type": "object", "properties": {}, "x-kubernetes-validations": [{"rule": "has(self.x)"}]}
    assert validate_crd(changed(field(rules))) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda c, v, s: c["spec"].update(scope="Cluster"), "spec.scope"),
        (lambda c, v, s: c["spec"]["names"].update(kind="Bar", listKind="BarList"), "spec.names.kind"),
    ],
)
def test_what_objects_depend_on_cannot_change(change: Callable[[Any, Any, Any], object], path: str) -> None:
    """Scope and names of a stored definition are immutable."""
    found = validate_crd(changed(change), CRD)
    assert [(problem.path, problem.message.endswith("field is immutable")) for problem in found] == [(path, True)]
