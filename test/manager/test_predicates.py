"""What makes work and what does not: the truth tables of the predicates (behaviours E23)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manager.changes import Change, Generic
from manager.informer import Added, Deleted, Updated
from manager.predicates import (
    all_of,
    annotations_changed,
    any_of,
    generation_changed,
    labels_changed,
    matches,
    negate,
    on_object,
    resource_version_changed,
)
from manager.selectors import SelectorError, parse_label_selector
from manager.types import Obj

pytestmark = pytest.mark.acceptance("FW-E23")

Check = Callable[[Change], bool]


def obj(**metadata: Any) -> Obj:
    return {"metadata": {"name": "a", "namespace": "n", **metadata}}


_ASPECTS: list[tuple[Check, str, Any, Any]] = [
    (generation_changed, "generation", 1, 2),
    (resource_version_changed, "resourceVersion", "1", "2"),
    (labels_changed, "labels", {"a": "1"}, {"a": "2"}),
    (annotations_changed, "annotations", {"a": "1"}, {"a": "2"}),
]


@pytest.mark.parametrize(("predicate", "field", "one", "two"), _ASPECTS, ids=[case[1] for case in _ASPECTS])
def test_comparing_predicates_look_at_updates_only(predicate: Check, field: str, one: Any, two: Any) -> None:
    """An update passes if the aspect differs, absence included; every other change passes."""
    old, same, new = obj(**{field: one}), obj(**{field: one}), obj(**{field: two})

    assert not predicate(Updated(old, same))
    assert predicate(Updated(old, new))
    assert predicate(Updated(obj(), new))
    assert predicate(Updated(new, obj()))
    assert not predicate(Updated(obj(), obj()))
    for change in (Added(old), Added(old, initial=True), Deleted(old), Deleted(old, stale=True), Generic(old)):
        assert predicate(change)


@pytest.mark.parametrize(("predicate", "field", "one", "two"), _ASPECTS, ids=[case[1] for case in _ASPECTS])
@pytest.mark.parametrize("nothing", [None, {}], ids=["none", "empty"])
def test_an_update_without_a_side_is_refused(
    predicate: Check, field: str, one: Any, two: Any, nothing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Either side may be missing, or both; the log says which."""
    whole = obj(**{field: two})

    assert not predicate(Updated(nothing, whole))
    assert not predicate(Updated(whole, nothing))
    assert not predicate(Updated(nothing, nothing))
    assert "without its old state" in caplog.text
    assert "without its new state" in caplog.text


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, False),
        ({"a": "1"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, True),
        ({"a": "1"}, {"b": "1"}, True),
        (None, {}, False),
    ],
    ids=["order", "added", "removed", "renamed", "empty"],
)
def test_labels_and_annotations_are_compared_as_maps(before: Any, after: Any, changed: bool) -> None:
    """Their order does not matter, and none is the same as an empty map."""
    assert labels_changed(Updated(obj(labels=before), obj(labels=after))) is changed
    assert annotations_changed(Updated(obj(annotations=before), obj(annotations=after))) is changed


def test_a_selector_looks_at_the_object_and_on_updates_at_the_new_one() -> None:
    """As text, or parsed."""
    yes, no = obj(labels={"app": "x"}), obj(labels={"app": "y"})
    for predicate in (matches("app=x"), matches(parse_label_selector("app=x"))):
        assert predicate(Added(yes))
        assert not predicate(Added(no))
        assert predicate(Deleted(yes))
        assert not predicate(Deleted(obj()))
        assert predicate(Generic(yes))
        assert predicate(Updated(no, yes))
        assert not predicate(Updated(yes, no))
    with pytest.raises(SelectorError):
        matches("a b c")


def test_a_function_of_the_object_sees_the_new_state() -> None:
    """For each sort of change; what has no object is refused with a log."""
    named = on_object(lambda found: bool(found["metadata"]["name"] == "a"))
    other = {"metadata": {"name": "b"}}

    assert [named(Added(obj())), named(Deleted(obj())), named(Generic(obj()))] == [True] * 3
    assert (named(Updated(other, obj())), named(Updated(obj(), other))) == (True, False)


@pytest.mark.parametrize("change", [Added({}), Deleted({}), Generic({}), Updated(obj(), {})], ids=repr)
def test_what_has_no_object_is_refused(change: Change, caplog: pytest.LogCaptureFixture) -> None:
    """A predicate on the object cannot hold."""
    assert not on_object(lambda _: True)(change)
    assert "without an object" in caplog.text


def yes(_: Change) -> bool:
    return True


def no(_: Change) -> bool:
    return False


def never(_: Change) -> bool:
    raise AssertionError("asked although the answer was clear")


@pytest.mark.parametrize("change", [Added(obj()), Updated(obj(), obj()), Deleted(obj()), Generic(obj())], ids=repr)
def test_predicates_combine(change: Change) -> None:
    """And, or and not, for every sort of change; what cannot change the answer is not asked."""
    assert [all_of(a, b)(change) for a in (yes, no) for b in (yes, no)] == [True, False, False, False]
    assert [any_of(a, b)(change) for a in (yes, no) for b in (yes, no)] == [True, True, True, False]
    assert [negate(a)(change) for a in (yes, no)] == [False, True]
    assert not all_of(no, never)(change)
    assert any_of(yes, never)(change)
    assert negate(any_of(no, all_of(yes, no)))(change)
    assert all_of()(change)
    assert not any_of()(change)
