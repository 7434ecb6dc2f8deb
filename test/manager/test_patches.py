"""The difference of two objects as a patch."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.errors import InvalidRequest
from manager.patches import json_patch, merge_patch

LOW, HIGH = 2**53, 2**53 + 1  # a float cannot tell them apart

values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


@pytest.mark.acceptance("FW-G12")
@pytest.mark.parametrize(
    ("before", "after"), [(LOW, HIGH), (HIGH, LOW), (2**63 - 1, 2**63 - 2), (-LOW, -HIGH), (2**70, 2**70 + 1)]
)
def test_two_large_and_similar_numbers_differ(before: int, after: int) -> None:
    """Neither patch confuses them, nor rounds the one that it carries."""
    old, new = {"spec": {"value": before}}, {"spec": {"value": after}}

    assert merge_patch(old, new) == {"spec": {"value": after}}
    assert json_patch(old, new) == [{"op": "replace", "path": "/spec/value", "value": after}]


@pytest.mark.acceptance("FW-G12")
@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), ([1], [True]), ({"x": [0]}, {"x": [False]})])
def test_a_number_is_not_a_truth(before: Any, after: Any) -> None:
    """Python thinks that they are equal; the API does not."""
    assert repr(merge_patch({"a": before}, {"a": after})) == repr({"a": after})
    assert json_patch({"a": before}, {"a": after}) != []


def test_numbers_of_any_size_are_compared() -> None:
    """What is too large for the wire is refused there, not here."""
    assert merge_patch({"a": [2**70]}, {"a": [2**70], "b": 1}) == {"b": 1}


@given(objects, objects)
@settings(max_examples=60, deadline=None)
def test_a_json_patch_makes_one_state_into_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Whatever the states; neither is changed by the comparison."""
    kept = deepcopy((before, after))
    operations = json_patch(before, after)

    assert (before, after) == kept
    assert repr(_sorted(jsonpatch.apply_patch(before, operations))) == repr(_sorted(after))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def test_an_optimistic_lock_is_the_version_of_the_original() -> None:
    """It is in the patch beside other metadata, also when nothing else differs; without a version there is no
    lock."""
    read = {"metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": "1"}}, "spec": {"n": 1}}
    changed = {"metadata": {"name": "a", "resourceVersion": "9", "labels": {"x": "2"}}, "spec": {"n": 1}}

    assert merge_patch(read, changed, optimistic_lock=True) == {
        "metadata": {"labels": {"x": "2"}, "resourceVersion": "7"}
    }
    assert merge_patch(read, read, optimistic_lock=True) == {"metadata": {"resourceVersion": "7"}}
    with pytest.raises(InvalidRequest, match="resourceVersion"):
        merge_patch({"metadata": {"name": "a"}}, {}, optimistic_lock=True)
