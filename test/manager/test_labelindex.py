"""Objects found by their labels."""

from __future__ import annotations

import random

import pytest

from manager.labelindex import BY_LABEL, label_pairs, labelled
from manager.meta import name
from manager.selectors import selector_from
from manager.store import Store


def _obj(number: int, labels: dict[str, str] | None) -> dict[str, object]:
    return {"metadata": {"name": f"o-{number}", "labels": labels}}


def test_the_index_finds_what_a_selector_finds(seed: int) -> None:
    """For any labels and any wish, the objects are those that a look at every one would give."""
    rng = random.Random(seed)
    store = Store()
    store.add_index(BY_LABEL, label_pairs)

    def some(most: int) -> dict[str, str]:
        return {rng.choice("abcd"): rng.choice("xyz") for _ in range(rng.randrange(most))}

    for number in range(300):
        store.put(_obj(number % 200, some(5) or None))
    for _ in range(100):
        wanted = some(3) or {"a": "x"}
        slow = store.list(selector=selector_from({"matchLabels": wanted}))
        assert {name(obj) for obj in labelled(store, wanted)} == {name(obj) for obj in slow}


def test_no_labels_wanted_find_nothing() -> None:
    """An empty wish is not a wish for everything."""
    store = Store()
    store.add_index(BY_LABEL, label_pairs)
    store.put(_obj(1, {"a": "x"}))

    assert list(labelled(store, {})) == []


def test_a_store_without_the_index_is_refused() -> None:
    """Rather an error than a walk through everything, or nothing."""
    with pytest.raises(KeyError):
        list(labelled(Store(), {"a": "x"}))
