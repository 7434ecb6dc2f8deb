"""Server-side apply and field ownership, as pure functions."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito.local.apiserver.fieldpath import decode, encode, text
from kaito.local.apiserver.managedfields import ApplyConflict, apply_patch, record_update
from kaito.local.apiserver.patching import PatchError
from kaito.local.apiserver.registry import Registry, ResourceType, types_from_crd

Obj = dict[str, Any]
T1, T2, T3 = "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"


def found(group: str, version: str, plural: str) -> ResourceType:
    resource_type = Registry().lookup(group, version, plural)
    assert resource_type is not None
    return resource_type


DEPLOYMENTS = found("apps", "v1", "deployments")
CONFIGMAPS = found("", "v1", "configmaps")
SERVICES = found("", "v1", "services")


def deployment(**spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "default", "labels": {"app": "x"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "x"}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i:1", "env": [{"name": "A", "value": "1"}]}]},
            },
            **spec,
        },
    }


def config_map(data: dict[str, str] | None = None, **metadata: Any) -> Obj:
    meta = {"name": "c", "namespace": "default", **metadata}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        **({"data": data} if data is not None else {}),
    }


def apply(live: Obj | None, config: Obj, manager: str = "me", now: str = T1, **more: Any) -> Obj:
    kind = {"Deployment": DEPLOYMENTS, "ConfigMap": CONFIGMAPS, "Service": SERVICES}.get(config["kind"])
    arguments: dict[str, Any] = {"force": False, "resource_type": kind, "subresource": None, **more}
    return apply_patch(live, config, manager=manager, now=now, **arguments)


def update(old: Obj | None, new: Obj, manager: str = "them", now: str = T1, **more: Any) -> Obj:
    kind = {"Deployment": DEPLOYMENTS, "ConfigMap": CONFIGMAPS}[new["kind"]]
    arguments: dict[str, Any] = {"resource_type": kind, "subresource": None, **more}
    return record_update(old, new, manager=manager, now=now, **arguments)


def owned(obj: Obj) -> dict[str, set[str]]:
    """The fields of each manager, in readable paths."""
    entries = obj["metadata"].get("managedFields", [])
    return {entry["manager"]: {text(path) for path in decode(entry["fieldsV1"])} for entry in entries}


def test_an_apply_that_creates_owns_exactly_what_it_lists() -> None:
    """Identity is nobody's; lists are owned by key; the entry carries version, time and operation."""
    obj = apply(None, config_map({"a": "1"}, labels={"l": "v"}, finalizers=["x/y"]))
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "me",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": T1,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:data": {"f:a": {}},
                "f:metadata": {"f:finalizers": {'v:"x/y"': {}}, "f:labels": {"f:l": {}}},
            },
        }
    ]


def test_applying_the_same_again_changes_nothing() -> None:
    """The second apply returns the very object that it was given, whatever the time."""
    obj = apply(None, deployment())
    assert apply(obj, deployment(), now=T2) is obj


CONFIGS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"))


@settings(max_examples=60, deadline=None)
@given(CONFIGS, CONFIGS, CONFIGS)
def test_applies_converge(first: dict[str, str], second: dict[str, str], third: dict[str, str]) -> None:
    """Whatever two managers apply by force, the last configuration holds, and applying it again is a no-op."""
    obj = apply(None, config_map(first), "a")
    obj = apply(obj, config_map(second), "b", T2, force=True)
    obj = apply(obj, config_map(third), "a", T3, force=True)
    data = obj.get("data", {})
    assert all(data[key] == value for key, value in third.items())
    assert set(data) == set(third) | set(second)
    assert apply(obj, config_map(third), "a", "later", force=True) is obj


def test_a_field_that_its_only_owner_drops_is_removed() -> None:
    """Fields listed before and no longer listed vanish, together with containers that become empty."""
    obj = apply(None, deployment())
    config = deployment()
    del config["spec"]["replicas"]
    del config["spec"]["template"]["spec"]["containers"][0]["env"]
    config["metadata"]["labels"] = {"new": "1"}
    after = apply(obj, config, now=T2)
    assert "replicas" not in after["spec"]
    assert after["spec"]["template"]["spec"]["containers"] == [{"name": "c", "image": "i:1"}]
    assert after["metadata"]["labels"] == {"new": "1"}
    assert after["metadata"]["managedFields"][0]["time"] == T2


def test_a_dropped_field_that_another_manager_owns_stays() -> None:
    """Shared fields survive until their last owner drops them."""
    obj = apply(apply(None, config_map({"a": "1", "b": "2"}), "a"), config_map({"a": "1"}), "b", T2)
    obj = apply(obj, config_map({}), "a", T3)
    assert obj["data"] == {"a": "1"}
    assert owned(obj) == {"b": {".data.a"}}


def test_a_dropped_field_that_an_updater_changed_stays() -> None:
    """Who updated a field last owns it, so the applier that dropped it does not remove it."""
    obj = apply(None, deployment())
    scaled = update(obj, {**deepcopy(obj), "spec": {**obj["spec"], "replicas": 7}}, "scaler", T2)
    config = deployment()
    del config["spec"]["replicas"]
    assert apply(scaled, config, now=T3)["spec"]["replicas"] == 7


def test_a_conflict_names_the_manager_and_the_field() -> None:
    """A field that somebody else updated cannot be changed without force; the error has Kubernetes' words."""
    obj = update(None, deployment(), "kubectl-client-side-apply")
    with pytest.raises(ApplyConflict) as caught:
        apply(obj, deployment(replicas=5))
    manager = '"kubectl-client-side-apply" using apps/v1'
    assert str(caught.value) == f"Apply failed with 1 conflict: conflict with {manager}: .spec.replicas"
    assert caught.value.causes == [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": ".spec.replicas"}
    ]


def test_several_conflicts_are_listed_by_manager() -> None:
    """The message groups the fields below each manager."""
    obj = update(None, deployment(), "u")
    config = deployment(replicas=5)
    config["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2"
    with pytest.raises(ApplyConflict) as caught:
        apply(obj, config)
    assert str(caught.value) == (
        'Apply failed with 2 conflicts: conflicts with "u" using apps/v1:\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="c"].image'
    )


def test_equal_values_are_shared_without_conflict() -> None:
    """Applying what is already there makes a second owner."""
    obj = apply(update(None, config_map({"a": "1"}), "u"), config_map({"a": "1"}), "me", T2)
    assert owned(obj) == {"me": {".data.a"}, "u": {".data", ".data.a"}}


def test_force_takes_the_field_from_its_owner() -> None:
    """With force the value changes and the other manager loses that field only."""
    obj = apply(update(None, config_map({"a": "1", "b": "1"}), "u"), config_map({"a": "2"}), "me", T2, force=True)
    assert obj["data"] == {"a": "2", "b": "1"}
    assert owned(obj) == {"me": {".data.a"}, "u": {".data", ".data.b"}}


def test_lists_merge_by_their_keys() -> None:
    """Two appliers add list elements side by side; sets merge by value, atomic lists are one field."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"ports": [{"name": "a", "port": 80}]},
    }
    other = {**service, "spec": {"ports": [{"name": "b", "port": 81, "protocol": "UDP"}]}}
    obj = apply(apply(None, service, "a"), other, "b", T2)
    assert [port["port"] for port in obj["spec"]["ports"]] == [80, 81]
    assert '.spec.ports[port=80,protocol="TCP"].name' in owned(obj)["a"]


def test_the_order_of_a_configuration_wins() -> None:
    """Elements come in the applied order; elements of others keep their place between them."""
    names = ["a", "b", "c"]
    first = deployment()
    first["spec"]["template"]["spec"]["containers"] = [{"name": n, "image": "1"} for n in names]
    second = deployment()
    second["spec"]["template"]["spec"]["containers"] = [{"name": n, "image": "1"} for n in ("c", "x", "a")]
    obj = apply(apply(None, first, "a"), second, "b", T2)
    assert [one["name"] for one in obj["spec"]["template"]["spec"]["containers"]] == ["b", "c", "x", "a"]


def test_an_update_owns_what_it_changed_and_takes_it_from_others() -> None:
    """Only changed fields move to the updater, with its time; everything else stays where it was."""
    obj = apply(None, config_map({"a": "1", "b": "1"}))
    after = update(obj, {**deepcopy(obj), "data": {"a": "2", "b": "1", "c": "3"}}, "u", T2)
    assert owned(after) == {"me": {".data.b"}, "u": {".data.a", ".data.c"}}
    assert {entry["manager"]: entry["time"] for entry in after["metadata"]["managedFields"]} == {"me": T1, "u": T2}


def test_an_update_that_removes_a_field_frees_it() -> None:
    """Nobody owns what is gone, elements of removed list items included."""
    obj = apply(None, deployment())
    bare = deepcopy(obj)
    del bare["spec"]["template"]["spec"]["containers"][0]["env"]
    after = update(obj, bare, "u", T2)
    assert not any(".env" in path for path in owned(after)["me"])
    assert "u" not in owned(after)


def test_an_update_that_changes_nothing_keeps_ownership_and_times() -> None:
    """A write of the same content leaves managedFields alone, however late."""
    obj = update(None, deployment(), "u")
    assert update(obj, deepcopy(obj), "somebody", T3) == obj


def test_structs_that_always_exist_are_not_added() -> None:
    """Creating a built-in object owns leaves below spec, while a custom resource's spec itself is owned."""
    obj = update(None, deployment(), "u")
    paths = owned(obj)["u"]
    assert ".spec.replicas" in paths
    assert ".spec" not in paths
    assert '.spec.template.spec.containers[name="c"]' in paths


def test_subresources_have_entries_of_their_own() -> None:
    """What the status endpoint wrote is listed with its subresource."""
    obj = update(None, deployment(), "u")
    after = update(obj, {**deepcopy(obj), "status": {"replicas": 2}}, "u", T2, subresource="status")
    entry = next(one for one in after["metadata"]["managedFields"] if one.get("subresource") == "status")
    assert entry["fieldsV1"] == {"f:status": {"f:replicas": {}}}
    with pytest.raises(ApplyConflict, match=r'"u" with subresource "status" using apps/v1: \.status\.replicas'):
        apply(after, {**deployment(), "status": {"replicas": 3}}, subresource="status")


def test_an_object_that_nobody_tracked_is_adopted_on_its_first_apply() -> None:
    """Fields that were there before the first apply belong to before-first-apply."""
    obj = apply(config_map({"a": "1"}), config_map({"b": "2"}), now=T2)
    assert owned(obj)["before-first-apply"] == {".data", ".data.a"}


def test_a_client_can_reset_the_managers() -> None:
    """An update with one empty entry clears what was tracked before."""
    obj = apply(None, config_map({"a": "1"}))
    cleared = deepcopy(obj)
    cleared["metadata"]["managedFields"] = [{}]
    assert "managedFields" not in update(obj, cleared, "u", T2)["metadata"]


def test_many_updaters_are_folded_into_one() -> None:
    """Beyond ten updaters the oldest share one entry, so that objects do not grow without bound."""
    obj = update(None, config_map({}), "u")
    for index in range(15):
        new = deepcopy(obj)
        new.setdefault("data", {})[f"k{index}"] = "v"
        obj = update(obj, new, f"u{index:02}", f"2024-01-01T00:00:{index:02}Z")
    managers = [entry["manager"] for entry in obj["metadata"]["managedFields"]]
    assert len(managers) <= 11
    assert "ancient-changes" in managers
    assert len(set().union(*owned(obj).values())) == 16


BAD: list[Obj] = [
    config_map({"a": "1"}, managedFields=[{"manager": "x"}]),
    deployment(template={"spec": {"containers": [{"image": "no name"}]}}),
    deployment(template={"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}),
]


@pytest.mark.parametrize("config", BAD)
def test_a_configuration_that_cannot_be_owned_is_refused(config: Obj) -> None:
    """managedFields in a configuration, elements without a key and duplicate elements are bad requests."""
    with pytest.raises(PatchError) as caught:
        apply(None, config)
    assert caught.value.status == 400


def test_custom_resources_merge_by_their_schema() -> None:
    """List types of a CRD are honoured; below preserved data maps are granular and lists atomic."""
    crd = {
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
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "plain": {"type": "array", "items": {"type": "integer"}},
                                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            },
                        }
                    },
                }
            ],
        },
    }
    (thing,) = types_from_crd(crd)
    base = {"apiVersion": "ex.io/v1", "kind": "Thing", "metadata": {"name": "t"}}
    first = {**base, "plain": [1, 2], "free": {"a": {"b": [1]}, "c": 1}}
    second = {**base, "free": {"d": 2}}
    obj = apply(None, first, "a", resource_type=thing)
    obj = apply(obj, second, "b", T2, resource_type=thing)
    assert obj["free"] == {"a": {"b": [1]}, "c": 1, "d": 2}
    assert owned(obj)["a"] == {".plain", ".free.a", ".free.a.b", ".free.c"}
    with pytest.raises(ApplyConflict, match=r"\.plain"):
        apply(obj, {**base, "plain": [3]}, "b", T3, resource_type=thing)


def test_field_sets_survive_encoding() -> None:
    """FieldsV1 decodes to a set and encodes to itself."""
    fields = {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}}}, "f:x": {}},
    }
    assert encode(decode(fields)) == fields
