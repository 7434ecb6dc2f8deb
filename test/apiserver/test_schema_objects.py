"""Schemas at work: unknown fields, pruning, defaults and validation, for built-in kinds and custom resources."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito.local.apiserver.schema import Schema

DEPLOYMENT = Schema.builtin("apps", "v1", "Deployment")
POD = Schema.builtin("", "v1", "Pod")


def thing(**properties: Any) -> Schema:
    """A custom resource whose spec has these properties."""
    return Schema.from_crd(
        {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    )


def problems(schema: Schema, **spec: Any) -> list[str]:
    return [str(problem) for problem in schema.validate({"apiVersion": "a/v1", "kind": "T", "spec": spec})]


KEYED = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
}
ONE_OF = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
}
# property, value, what Kubernetes 1.36 answers
VALUES: list[tuple[dict[str, Any], Any, str]] = [
    ({"type": "integer"}, "x", 'Invalid value: "string": spec.f in body must be of type integer: "string"'),
    (
        {"type": "integer", "maximum": 10},
        11,
        "Invalid value: 11: spec.f in body should be less than or equal to 10",
    ),
    (
        {"type": "integer", "minimum": 0},
        -1,
        "Invalid value: -1: spec.f in body should be greater than or equal to 0",
    ),
    ({"type": "integer"}, 1.5, 'Invalid value: "number": spec.f in body must be of type integer: "number"'),
    ({"type": "string", "enum": ["p", "q"]}, "z", 'Unsupported value: "z": supported values: "p", "q"'),
    ({"type": "string", "maxLength": 3}, "abcd", "Too long: may not be more than 3 bytes"),
    (
        {"type": "string", "minLength": 2},
        "a",
        'Invalid value: "a": spec.f in body should be at least 2 chars long',
    ),
    (
        {"type": "string", "pattern": "^[a-z]+$"},
        "AB",
        "Invalid value: \"AB\": spec.f in body should match '^[a-z]+$'",
    ),
    (
        {"x-kubernetes-int-or-string": True},
        True,
        'Invalid value: "boolean": spec.f in body must be of type integer,string: "boolean"',
    ),
    (
        {"type": "string", "format": "date-time"},
        "nope",
        'Invalid value: "nope": spec.f in body must be of type date-time: "nope"',
    ),
    (
        {"type": "array", "items": {"type": "integer"}},
        {},
        'Invalid value: "object": spec.f in body must be of type array: "object"',
    ),
    (
        {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        ["a", "a"],
        'Duplicate value: "a"',
    ),
    (KEYED, [{"name": "a"}, {"name": "a"}], 'Duplicate value: {"name":"a"}'),
    (KEYED, [{}], "Required value"),
    (
        {"type": "array", "maxItems": 1, "items": {"type": "string"}},
        ["a", "b"],
        "Too many: 2: must have at most 1 items",
    ),
    (
        ONE_OF,
        {"a": "1", "b": "2"},
        'Invalid value: "": "spec.f" must validate one and only one schema (oneOf). Found 2 valid alternatives',
    ),
]


@pytest.mark.parametrize(("schema", "value", "message"), VALUES)
def test_a_wrong_value_is_named_in_kubernetes_words(schema: dict[str, Any], value: Any, message: str) -> None:
    """A value that breaks a rule of its schema gives exactly one problem, worded as the real server words it."""
    found = problems(thing(f=schema), f=value)
    assert len(found) == 1
    assert found[0].endswith(": " + message)


GOOD: list[tuple[dict[str, Any], Any]] = [
    ({"type": "integer"}, 3.0),
    ({"type": "number"}, 3),
    ({"x-kubernetes-int-or-string": True}, "50%"),
    ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, 5),
    ({"type": "string", "nullable": True}, None),
    ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"any": [1, {"thing": None}]}),
    ({"type": "string", "format": "date-time"}, "2024-02-29T01:02:03.5Z"),
    ({"type": "string", "format": "made-up"}, "anything"),
    (KEYED, [{"name": "a"}, {"name": "b"}]),
    (ONE_OF, {"a": "1"}),
]


@pytest.mark.parametrize(("schema", "value"), GOOD)
def test_a_right_value_is_accepted(schema: dict[str, Any], value: Any) -> None:
    """Values that the schema allows give no problem."""
    assert problems(thing(f=schema), f=value) == []


def test_the_path_of_a_problem_leads_into_lists() -> None:
    """A problem inside a list names the index, and a cause carries path, reason and message."""
    schema = thing(f={"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}})
    found = schema.validate({"spec": {"f": [{"n": 1}, {"n": "x"}]}})
    assert [problem.path for problem in found] == ["spec.f[1].n"]
    assert found[0].cause()["reason"] == "FieldValueTypeInvalid"


def test_defaults_fill_what_is_absent_and_never_overwrite() -> None:
    """Nested and list defaults apply where the parent is there; a null that is not allowed counts as absent."""
    schema = thing(
        a={"type": "string", "default": "x"},
        b={"type": "object", "properties": {"c": {"type": "integer", "default": 1}}},
        d={"type": "object", "default": {}, "properties": {"e": {"type": "integer", "default": 2}}},
        f={"type": "array", "items": {"type": "object", "properties": {"g": {"type": "integer", "default": 3}}}},
        n={"type": "string"},
        m={"type": "string", "nullable": True},
    )
    given_object = {"spec": {"b": {"c": 9}, "f": [{}, {"g": 0}], "a": None, "n": None, "m": None}}
    assert schema.default(given_object) == {
        "spec": {"a": "x", "b": {"c": 9}, "d": {"e": 2}, "f": [{"g": 3}, {"g": 0}], "m": None}
    }
    assert given_object["spec"]["a"] is None


def test_an_object_with_nothing_to_default_comes_back_itself() -> None:
    """Defaulting copies nothing that it does not change."""
    obj = {"spec": {"a": "1", "b": [{"c": 2}]}}
    schema = thing(
        a={"type": "string", "default": "x"},
        b={"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer"}}}},
    )
    assert schema.default(obj) is obj


def test_pruning_keeps_what_the_schema_knows_or_preserves() -> None:
    """Unknown fields go, at any depth; below preserved places and embedded resources they stay."""
    schema = thing(
        known={"type": "object", "properties": {"a": {"type": "string"}}},
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        map={"type": "object", "additionalProperties": {"type": "string"}},
        embedded={
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        },
    )
    obj = {
        "apiVersion": "a/v1",
        "kind": "T",
        "metadata": {"name": "x", "nonsense": 1},
        "extra": 1,
        "spec": {
            "known": {"a": "1", "b": 2},
            "free": {"x": {"y": 1}},
            "map": {"k": "v"},
            "embedded": {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"z": 1}, "bad": 1},
        },
    }
    assert schema.prune(obj) == {
        "apiVersion": "a/v1",
        "kind": "T",
        "metadata": {"name": "x"},
        "spec": {
            "known": {"a": "1"},
            "free": {"x": {"y": 1}},
            "map": {"k": "v"},
            "embedded": {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"z": 1}},
        },
    }
    assert schema.decode_problems(obj) == [
        'unknown field "extra"',
        'unknown field "metadata.nonsense"',
        'unknown field "spec.embedded.bad"',
        'unknown field "spec.known.b"',
    ]


def test_a_custom_resource_without_a_schema_keeps_everything() -> None:
    """No schema means preserved data, while metadata keeps its type."""
    schema = Schema.from_crd(None)
    obj = {"metadata": {"name": "x", "bad": 1}, "anything": {"goes": [1]}}
    assert schema.prune(obj) == {"metadata": {"name": "x"}, "anything": {"goes": [1]}}


def test_unknown_fields_of_built_in_kinds_are_reported_with_their_path() -> None:
    """Strict decoding names each unknown field, list indexes included."""
    obj = {"spec": {"replica": 1, "template": {"spec": {"containers": [{"name": "a"}, {"nam": "b"}]}}}}
    assert DEPLOYMENT.decode_problems(obj) == [
        'unknown field "spec.replica"',
        'unknown field "spec.template.spec.containers[1].nam"',
    ]


def test_built_in_kinds_lose_nulls_and_empty_optional_collections() -> None:
    """Pruning a built-in object leaves what a Go value of the type would hold."""
    obj = {
        "metadata": {"name": "p", "creationTimestamp": None, "labels": {}},
        "spec": {
            "containers": [{"name": "a", "resources": {}, "command": [], "env": None}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }
    assert POD.prune(obj) == {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "resources": {}}], "volumes": [{"name": "v", "emptyDir": {}}]},
    }


DECODE: list[tuple[dict[str, Any], str | None]] = [
    (
        {"spec": {"replicas": "x"}},
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    ),
    (
        {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}}},
        "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value "
        "of type string",
    ),
    (
        {"metadata": {"labels": {"a": 1}}},
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    ),
    ({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}, "replicas": None}}, None),
    (
        {"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}}}},
        None,
    ),
]


@pytest.mark.parametrize(("obj", "message"), DECODE)
def test_a_built_in_object_of_wrong_types_cannot_be_decoded(obj: dict[str, Any], message: str | None) -> None:
    """A wrong type is refused with Go's sentence; nulls, quantities and int-or-strings are fine."""
    found = DEPLOYMENT.decode_error(obj)
    if message is None:
        assert found is None
    else:
        assert found is not None
        assert found.split(" of type")[0].replace(".labels.a", ".labels") == message.split(" of type")[0]


def test_a_built_in_object_names_its_missing_fields() -> None:
    """What must be written is required in spec, and never in status."""
    found = [str(one) for one in DEPLOYMENT.validate({"spec": {"template": {"spec": {}}}})]
    assert found == ["spec.selector: Required value", "spec.template.spec.containers: Required value"]
    assert (
        POD.validate({"spec": {"containers": [{"name": "a"}]}, "status": {"conditions": [{"type": "Ready"}]}})
        == []
    )


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["spec", "containers", "name", "metadata", "env", "zz"]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_input_makes_a_schema_raise(value: Any) -> None:
    """Whatever JSON arrives, decoding, pruning and validation answer instead of failing."""
    obj = {"spec": value, "metadata": value}
    for schema in (DEPLOYMENT, thing(containers=KEYED)):
        schema.decode_error(obj)
        schema.decode_problems(obj)
        pruned = schema.prune(obj)
        assert schema.prune(pruned) == pruned
        schema.validate(schema.default(pruned))


def test_importing_the_registry_is_cheap() -> None:
    """The import brings in neither kubernetes-validate nor jsonschema, which would cost start-up time."""
    script = (
        "import sys, kaito.local.apiserver.registry as r; r.Registry();"
        "assert not {'kubernetes_validate', 'jsonschema', 'yaml'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
