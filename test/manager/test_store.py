"""The store, selectors and back-off of the framework."""

from __future__ import annotations

import random

import pytest

from manager.backoff import ExponentialBackoff
from manager.meta import key
from manager.selectors import SelectorError, parse_field_selector, parse_label_selector, selector_from
from manager.store import Store
from manager.types import Obj


def pod(name: str, namespace: str = "n", node: str = "", **labels: str) -> Obj:
    """A Pod."""
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {"nodeName": node}}


@pytest.mark.acceptance("FW-B09")
def test_empty_index_buckets_are_removed() -> None:
    """An index over short-lived values does not grow, and follows updates and deletions."""
    store = Store()
    store.put(pod("a", node="one"))
    store.add_index("node", lambda obj: [obj["spec"]["nodeName"]])
    store.put(pod("b", node="one"))
    store.put(pod("a", node="two"))
    assert [obj["metadata"]["name"] for obj in store.by_index("node", "one")] == ["b"]
    store.discard("n/b")

    assert store.by_index("node", "one") == []
    assert store.index_values("node") == ["two"]
    store.discard("n/a")
    assert (store.index_values("node"), store.namespaces()) == ([], [])


@pytest.mark.acceptance("FW-B09")
def test_an_object_is_found_under_each_of_its_index_values_and_no_longer_under_old_ones() -> None:
    """Values come and go with the object; those that stay lead to it without interruption."""
    store = Store()
    store.add_index("label", lambda obj: obj["metadata"]["labels"])
    store.put(pod("x", a="", b=""))
    store.put(pod("y", b="", c=""))
    store.put(pod("x", b="", d=""))

    found = {value: {o["metadata"]["name"] for o in store.by_index("label", value)} for value in "abcd"}
    assert found == {"a": set(), "b": {"x", "y"}, "c": {"y"}, "d": {"x"}}
    assert sorted(store.index_values("label")) == ["b", "c", "d"]


def test_an_object_that_an_index_function_chokes_on_is_only_not_indexed(caplog: pytest.LogCaptureFixture) -> None:
    """The store has it, the failure is logged with index and object, and other objects are not concerned."""
    store = Store()
    store.add_index("node", lambda obj: [obj["spec"]["nodeName"]])
    store.put({"metadata": {"name": "strange", "namespace": "n"}})
    store.put(pod("a", node="one"))

    assert store.get("strange", "n") is not None
    assert [o["metadata"]["name"] for o in store.by_index("node", "one")] == ["a"]
    assert "index=node object=n/strange" in caplog.text


def test_an_object_keeps_its_place_for_as_long_as_it_exists() -> None:
    """Lists come in order of arrival; an update moves nothing."""
    store = Store()
    for name in ("b", "a", "c", "b"):
        store.put(pod(name))

    assert [o["metadata"]["name"] for o in store.list("n")] == ["b", "a", "c"]


@pytest.mark.acceptance("FW-B09")
def test_indexes_agree_with_a_scan_after_any_changes(seed: int) -> None:
    """After random changes every index gives what looking at each object would."""
    rng = random.Random(seed)
    store = Store()

    def values(obj: Obj) -> list[str]:
        return list(obj["metadata"]["labels"])

    store.add_index("labels", values)
    for _ in range(400):
        name, space = rng.choice("abcdefgh"), rng.choice("nm")
        if rng.random() < 0.3:
            store.discard(f"{space}/{name}")
        else:
            store.put(pod(name, space, **dict.fromkeys(rng.sample("uvwxyz", rng.randrange(4)), "")))

    everything = store.list()
    for value in "uvwxyz":
        scanned = [obj for obj in everything if value in values(obj)]
        assert sorted(map(key, store.by_index("labels", value))) == sorted(map(key, scanned))
    for space in "nm":
        assert store.list(space) == [obj for obj in everything if obj["metadata"]["namespace"] == space]


def test_a_clashing_index_is_an_error() -> None:
    """Two parts of a program cannot silently share an index name."""
    store = Store()
    store.add_index("x", lambda _: [])
    with pytest.raises(ValueError, match="already"):
        store.add_index("x", lambda _: [])


def test_lists_are_narrowed_by_namespace_and_labels() -> None:
    """Both filters apply; None means no filter."""
    store = Store()
    for obj in (pod("a", app="x"), pod("b", app="y"), pod("c", "m", app="x")):
        store.put(obj)

    assert {o["metadata"]["name"] for o in store.list("n")} == {"a", "b"}
    assert {o["metadata"]["name"] for o in store.list(selector=parse_label_selector("app=x"))} == {"a", "c"}
    assert store.get("c", "m") is not None
    assert store.get("c", "n") is None


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a in (b, c),d", {"a": "c", "d": ""}, True),
        ("a notin (b,c)", {"a": "b"}, False),
        ("!a", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("a>3", {"a": "4"}, True),
        ("a<3", {"a": "x"}, False),
    ],
)
def test_label_selectors_match_as_kubernetes_does(text: str, labels: dict[str, str], expected: bool) -> None:
    """Every operator, and parsing what str() gives leads to the same answer."""
    selector = parse_label_selector(text)

    assert selector.matches(labels) is expected
    assert parse_label_selector(str(selector)).matches(labels) is expected


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "=b", "a b"])
def test_a_selector_that_makes_no_sense_is_an_error(text: str) -> None:
    """It is never taken for one that matches everything."""
    with pytest.raises(SelectorError):
        parse_label_selector(text)


def test_a_missing_selector_matches_nothing_and_an_empty_one_everything() -> None:
    """The difference between absent and {} that specs rely on."""
    assert not selector_from(None).matches({"a": "b"})
    assert selector_from({}).matches({"a": "b"})


def test_field_selectors_compare_dotted_paths() -> None:
    """A missing field counts as empty."""
    selector = parse_field_selector("spec.nodeName=,metadata.name!=b")

    assert selector.matches(pod("a"))
    assert not selector.matches(pod("b"))


def test_the_reflectors_backoff_doubles_to_its_cap_and_starts_anew_after_quiet() -> None:
    """800 ms, 1.6 s ... 30 s; after more than two quiet minutes 800 ms again."""
    now = [0.0]
    backoff = ExponentialBackoff(lambda: now[0], jitter=0.0)
    delays = [backoff.next() for _ in range(8)]
    now[0] = 121.0

    assert delays == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert backoff.next() == 0.8
