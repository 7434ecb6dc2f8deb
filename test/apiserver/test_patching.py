"""Patches of the embedded API server: RFC 6902, RFC 7386 and strategic merges of built-in kinds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito.local.apiserver.patching import PatchError, json_merge, json_patch, strategic_merge
from kaito.local.apiserver.schema import Schema

POD = Schema.builtin("", "v1", "Pod")

RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({"a": "foo"}, {"b": {"c": None}}, {"a": "foo", "b": {}}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7386)
def test_merge_patch_follows_the_examples_of_rfc_7386(target: Any, patch: Any, result: Any) -> None:
    """A merge patch gives the result that RFC 7386 lists for it."""
    assert json_merge(target, patch) == result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("xyz", min_size=1, max_size=1), JSON)


@settings(max_examples=60, deadline=None)
@given(OBJECTS, OBJECTS)
def test_a_merge_patch_applied_twice_is_applied_once(target: Any, patch: Any) -> None:
    """Merging the same patch again changes nothing, and the target is never touched."""
    before = repr(target)
    once = json_merge(target, patch)
    assert json_merge(once, patch) == once
    assert repr(target) == before


def test_json_patch_applies_all_operations_to_a_copy() -> None:
    """Operations apply in order and the input stays as it was."""
    target = {"a": {"b": [1, 2]}}
    ops = [
        {"op": "test", "path": "/a/b/0", "value": 1},
        {"op": "add", "path": "/a/b/-", "value": 3},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "add", "path": "/m~1n", "value": "x"},
    ]
    assert json_patch(target, ops) == {"a": {"b": [2, 3]}, "m/n": "x"}
    assert target == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("ops", "status"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "remove", "path": "/missing"}], 422),
        ([{"op": "add", "path": "/x/y/z", "value": 1}], 422),
        ([{"op": "fly", "path": "/a"}], 400),
        ([{"path": "/a"}], 400),
        ({"op": "add"}, 400),
        ([{"op": "replace", "path": "", "value": 3}], 422),
    ],
)
def test_json_patch_refuses_with_the_status_of_the_real_server(ops: Any, status: int) -> None:
    """A malformed patch is a bad request, one that does not fit is unprocessable."""
    with pytest.raises(PatchError) as caught:
        json_patch({"a": 1}, ops)
    assert caught.value.status == status


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}], **spec}}


STRATEGIC: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        "elements merge by key",
        pod(),
        {"spec": {"containers": [{"name": "b", "image": "2"}]}},
        {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}},
    ),
    (
        "a new element comes before those that the patch does not name",
        pod(),
        {"spec": {"containers": [{"name": "c", "image": "3"}]}},
        {"spec": {"containers": [{"name": "c", "image": "3"}, *pod()["spec"]["containers"]]}},
    ),
    (
        "$patch: delete removes one element",
        pod(),
        {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}},
        {"spec": {"containers": [{"name": "b", "image": "1"}]}},
    ),
    (
        "$patch: replace in a list replaces the list",
        pod(),
        {"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}},
        {"spec": {"containers": [{"name": "z"}]}},
    ),
    (
        "$patch: replace in an object replaces the object",
        {"metadata": {"labels": {"a": "1"}}},
        {"metadata": {"labels": {"$patch": "replace", "b": "2"}}},
        {"metadata": {"labels": {"b": "2"}}},
    ),
    (
        "$setElementOrder orders what the client knows",
        pod(),
        {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
        {"spec": {"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]}},
    ),
    (
        "$deleteFromPrimitiveList removes values",
        {"metadata": {"finalizers": ["a/x", "b/x"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}},
        {"metadata": {"finalizers": ["b/x"]}},
    ),
    (
        "primitive lists with the merge strategy are joined",
        {"metadata": {"finalizers": ["a/x"]}},
        {"metadata": {"finalizers": ["b/x"]}},
        {"metadata": {"finalizers": ["b/x", "a/x"]}},
    ),
    (
        "lists without a strategy are replaced",
        pod(tolerations=[{"key": "a"}]),
        {"spec": {"tolerations": [{"key": "b"}]}},
        pod(tolerations=[{"key": "b"}]),
    ),
    (
        "$retainKeys drops what it does not name",
        {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
        {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}},
        {"spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}},
    ),
    (
        "null removes a field",
        pod(nodeName="n"),
        {"spec": {"nodeName": None}},
        pod(),
    ),
]


@pytest.mark.parametrize(
    ("target", "patch", "result"), [case[1:] for case in STRATEGIC], ids=[c[0] for c in STRATEGIC]
)
def test_strategic_merge(target: Any, patch: Any, result: Any) -> None:
    """A strategic merge patch honours merge keys and directives, and leaves its input alone."""
    before = repr(target)
    assert strategic_merge(target, patch, POD) == result
    assert repr(target) == before


@pytest.mark.parametrize(
    "patch",
    [
        {"metadata": {"$patch": "explode"}},
        {"spec": {"containers": [{"image": "no name"}]}},
        {"spec": {"containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": "a"}]}},
    ],
)
def test_a_strategic_merge_that_makes_no_sense_is_refused(patch: Any) -> None:
    """Unknown directives, elements without their key and contradicting orders are errors, not guesses."""
    with pytest.raises(PatchError):
        strategic_merge(pod(), patch, POD)


def test_ports_of_two_protocols_share_a_merge_key() -> None:
    """Where several elements have the merge key's value, the one with equal other keys is patched."""
    service = Schema.builtin("", "v1", "Service")
    live = {"spec": {"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}
    patch = {"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}}
    ports = strategic_merge(live, patch, service)["spec"]["ports"]
    assert {"port": 53, "protocol": "UDP", "name": "dns"} in ports
    assert {"port": 53, "protocol": "TCP"} in ports
