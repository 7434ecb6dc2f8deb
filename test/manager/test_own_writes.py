from __future__ import annotations

from typing import Any

from kaito.local.workloads.pods import is_terminating, uid_of
from manager.ownwrites import OwnWrites

Obj = dict[str, Any]


def pod(uid: str, version: int, **meta: Any) -> Obj:
    return {"metadata": {"uid": uid, "name": uid, "resourceVersion": str(version), **meta}}


class CacheVersion:
    value = "0"

    def __call__(self) -> str:
        return self.value


def test_a_created_pod_counts_before_the_cache_has_it() -> None:
    """An own creation is part of the view until the cache has caught up, and then only if the cache has it."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.wrote("rs", pod("a", 7))

    version.value = "6"
    assert [uid_of(o) for o in own.view("rs", [])] == ["a"]

    version.value = "7"
    assert own.view("rs", []) == []
    assert repr(own) == "OwnWrites(written=0, deleted=0)"


def test_a_newer_write_hides_the_cached_copy() -> None:
    """Of the cached and the written copy, the newer one is seen."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.wrote("rs", pod("a", 9, labels={"new": "yes"}))
    version.value = "20"

    assert own.view("rs", [pod("a", 5)])[0]["metadata"]["labels"] == {"new": "yes"}
    assert "labels" not in own.view("rs", [pod("a", 9)])[0]["metadata"]


def test_a_deleted_pod_counts_as_terminating_until_the_cache_says_so() -> None:
    """An own deletion marks the cached copy, and is forgotten when the cache shows it or has lost the object."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.deleted("rs", pod("a", 5))
    version.value = "5"

    assert is_terminating(own.view("rs", [pod("a", 5)])[0])
    assert is_terminating(own.view("rs", [pod("a", 6, deletionTimestamp="2024-01-01T00:00:00Z")])[0])
    assert repr(own) == "OwnWrites(written=0, deleted=0)"


def test_a_pod_deleted_right_after_its_creation_stays_deleted() -> None:
    """The late news of its creation does not bring back an object that was deleted since."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.wrote("rs", pod("a", 8))
    own.deleted("rs", pod("a", 8))
    version.value = "7"

    assert own.view("rs", []) == []
    version.value = "8"
    assert is_terminating(own.view("rs", [pod("a", 8)])[0])
