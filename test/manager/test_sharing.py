"""What cached objects have in common, and that nobody can tell."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from manager import debug
from manager.resources import CONFIGMAPS, PODS
from manager.sharing import share
from manager.testing.fed import FedInformer
from manager.testing.scripted import config_map
from manager.transforms import chain, keep_everything, strip_managed_fields
from manager.types import Obj, Resource

WIDGETS = Resource("example.com", "v1", "widgets", "Widget")


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_equal_parts_become_one_and_the_rest_stays() -> None:
    """Subtrees and strings at the same place; what differs is left alone."""
    like = {
        "metadata": {"name": "a-very-long-name", "labels": {"app": "x"}},
        "spec": {"c": [{"image": "i" * 50}, {"n": 1}]},
    }
    new = copied(like)
    new["metadata"]["labels"]["app"] = "y"
    new["spec"]["c"][1]["n"] = 2
    expected = copied(new)
    share(new, like, exact=True)

    assert new == expected
    assert new["spec"]["c"][0] is like["spec"]["c"][0]
    assert new["metadata"]["name"] is like["metadata"]["name"]
    assert new["metadata"]["labels"] is not like["metadata"]["labels"]


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, False), (1, 1.0), (0.0, False)])
def test_what_python_takes_for_equal_and_json_does_not_is_kept_apart(one: Any, other: Any) -> None:
    """At any depth of a custom resource, whose fields may hold anything."""
    like = {"spec": {"free": {"value": one}, "list": [{"value": one}]}}
    new = {"spec": {"free": {"value": other}, "list": [{"value": other}]}}
    written = json.dumps(new)
    share(new, like, exact=True)

    assert json.dumps(new) == written


def random_value(rng: random.Random, depth: int) -> Any:
    if depth and rng.random() < 0.6:
        if rng.random() < 0.5:
            return {rng.choice("abcd"): random_value(rng, depth - 1) for _ in range(rng.randrange(4))}
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return rng.choice([0, 1, 1.0, True, False, None, "", "x", "longer text"])


def test_no_object_changes_by_being_shared(seed: int) -> None:
    """Random objects are written as JSON exactly as before, and so is the one they share with."""
    rng = random.Random(seed)
    like: Obj = {}
    for _ in range(500):
        new = {"spec": random_value(rng, 4), "data": random_value(rng, 3)}
        before, of_like = json.dumps(new), json.dumps(like)
        share(new, like, exact=True)
        assert (json.dumps(new), json.dumps(like)) == (before, of_like)
        like = new


@pytest.mark.looptime
@pytest.mark.parametrize("resource", [PODS, WIDGETS], ids=["built in", "custom"])
async def test_an_informer_shares_what_its_objects_have_in_common(
    monkeypatch: pytest.MonkeyPatch, resource: Resource
) -> None:
    """Neighbours of a list, and an object with its last version; each is still exactly what the server sent."""
    monkeypatch.setenv(debug.ENV, "0")
    fed = FedInformer(resource)

    def obj(name: str, version: int) -> Obj:
        spec = {"containers": [{"image": "registry.example.com/a:v1", "env": [{"name": "A", "value": "b"}]}]}
        return {**config_map(name, str(version)), "spec": spec}

    async with fed.running():
        fed.listed(obj("a", 1), obj("b", 2))
        fed.modified(obj("a", 3))
        a, b = fed.store.list()

    assert a == obj("a", 3)
    assert b == obj("b", 2)
    assert a["spec"] is b["spec"]


@pytest.mark.acceptance("FW-C10")
def test_managed_fields_and_the_last_applied_manifest_are_stripped() -> None:
    """And nothing else; twice does no more than once."""
    obj = config_map("a", "1", k="v")
    obj["metadata"]["managedFields"] = [{"manager": "x"}]
    obj["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "keep": "this"}
    for _ in range(2):
        obj = strip_managed_fields(obj)

    expected = config_map("a", "1", k="v")
    expected["metadata"]["annotations"] = {"keep": "this"}
    assert obj == expected


@pytest.mark.acceptance("FW-C10")
@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"metadata": None},
        {"metadata": "text"},
        {"metadata": {"annotations": None}},
        {"metadata": []},
        "text",
        None,
        7,
    ],
    ids=repr,
)
def test_strange_objects_come_through_untouched(strange: Any) -> None:
    """A transform must not be what an informer dies of."""
    assert strip_managed_fields(copied(strange)) == strange


def test_transforms_are_chained_in_order() -> None:
    """Each gets what the one before it gave."""

    def note(word: str) -> Any:
        return lambda obj: {**obj, "seen": [*obj.get("seen", []), word]}

    assert chain(note("a"), keep_everything, note("b"))({}) == {"seen": ["a", "b"]}


@pytest.mark.looptime
async def test_debug_mode_keeps_objects_apart() -> None:
    """There a changed object is to be found out, not to be spread; see ``manager.frozen``."""
    fed = FedInformer(CONFIGMAPS)
    async with fed.running():
        fed.listed(config_map("a", "1", k="v"), config_map("b", "1", k="v"))
        a, b = fed.store.list()

    assert a["data"] == b["data"]
    assert a["data"] is not b["data"]
