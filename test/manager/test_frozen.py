"""Cached objects that were changed (behaviour B26), and copies that may be."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from manager import debug
from manager.frozen import CacheMutation, freeze
from manager.informer import Added, Event
from manager.patches import private_copy
from manager.resources import CONFIGMAPS
from manager.testing.fed import FedInformer
from manager.testing.scripted import config_map
from manager.types import Obj

PLAIN: Obj = {
    "metadata": {"name": "a", "labels": {"x": "y"}, "finalizers": ["f"]},
    "spec": {"n": 1, "list": [{"a": []}]},
}


@pytest.mark.acceptance("FW-B26")
@pytest.mark.parametrize(
    "change",
    [
        lambda o: o.__setitem__("spec", {}),
        lambda o: o["metadata"].pop("labels"),
        lambda o: o["metadata"]["labels"].update(a="b"),
        lambda o: o["metadata"].setdefault("annotations", {}),
        lambda o: o.__delitem__("spec"),
        lambda o: o["metadata"].__ior__({"a": 1}),
        lambda o: o["metadata"].clear(),
        lambda o: o["metadata"].popitem(),
        lambda o: o["metadata"]["finalizers"].append("g"),
        lambda o: o["metadata"]["finalizers"].remove("f"),
        lambda o: o["metadata"]["finalizers"].__setitem__(0, "g"),
        lambda o: o["metadata"]["finalizers"].__iadd__(["g"]),
        lambda o: o["metadata"]["finalizers"].sort(),
        lambda o: o["spec"]["list"][0]["a"].extend([1]),
        lambda o: {**o}["metadata"].pop("labels"),
    ],
)
def test_every_way_to_change_a_frozen_object_raises_and_names_it(change: Callable[[Obj], object]) -> None:
    """At any depth, and also through a shallow copy, which shares what lies below."""
    frozen = freeze(json.loads(json.dumps(PLAIN)), "ConfigMap n/a")
    with pytest.raises(CacheMutation, match="ConfigMap n/a is a cached object"):
        change(frozen)

    assert frozen == PLAIN


@pytest.mark.acceptance("FW-B26")
@pytest.mark.looptime
async def test_objects_of_handlers_and_stores_cannot_be_changed_in_debug_mode(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The mistake raises where it is made: in a handler into its log, in a reader into its face."""
    fed = FedInformer(CONFIGMAPS)

    def handler(event: Event) -> None:
        assert isinstance(event, Added)
        event.obj["data"]["x"] = "y"

    fed.add_handler(handler)
    async with fed.running():
        fed.listed(config_map("a", "1"))
        await fed.handlers_caught_up()
        assert "ConfigMap n/a is a cached object" in caplog.text
        with pytest.raises(CacheMutation, match="ConfigMap n/a"):
            fed.store.list()[0]["metadata"]["labels"] = {}
        fed.modified(config_map("a", "2"))
        with pytest.raises(CacheMutation, match="ConfigMap n/a"):
            del fed.store.list()[0]["data"]


@pytest.mark.looptime
async def test_without_debug_mode_objects_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks cost nothing where they are not asked for."""
    monkeypatch.setenv(debug.ENV, "0")
    fed = FedInformer(CONFIGMAPS)
    async with fed.running():
        fed.listed(config_map("a", "1"))
        (found,) = fed.store.list()

    assert {type(found), type(found["metadata"])} == {dict}


def test_frozen_objects_behave_like_plain_ones_otherwise() -> None:
    """They are equal, encode alike, and correct code cannot tell."""
    frozen = freeze(PLAIN, "x")

    assert frozen == PLAIN
    assert orjson.dumps(frozen) == orjson.dumps(PLAIN)
    assert json.dumps(frozen) == json.dumps(PLAIN)
    assert isinstance(frozen["spec"]["list"], list)
    assert freeze(frozen, "y") is frozen


@pytest.mark.acceptance("FW-C01")
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, private_copy, lambda obj: pickle.loads(pickle.dumps(obj))],
    ids=["deepcopy", "private_copy", "pickle"],
)
def test_a_deep_copy_is_plain_and_may_be_changed(copied: Callable[[Obj], Any]) -> None:
    """And the original does not notice."""
    frozen = freeze(PLAIN, "x")
    own = copied(frozen)
    own["spec"]["list"].append(1)
    own["metadata"]["labels"]["new"] = "z"

    assert frozen == PLAIN
    assert type(own["metadata"]) is dict


def test_a_shallow_copy_can_be_built_upon() -> None:
    """The usual way to make a changed object leaves what it replaces alone."""
    frozen = freeze(PLAIN, "x")
    for outer in ({**frozen}, dict(frozen), frozen.copy(), copy.copy(frozen), frozen | {}):
        outer["metadata"] = {**outer["metadata"], "labels": {"new": "z"}}
        assert type(outer) is dict
    listed = [*frozen["spec"]["list"], 1]

    assert frozen == PLAIN
    assert len(listed) == 2
