"""One controller's own writes laid over what its cache says (behaviour B24)."""

from __future__ import annotations

from typing import Any

import pytest

from kaito.local.workloads.pods import is_terminating, uid_of
from manager.ownwrites import OwnWrites

Obj = dict[str, Any]


def pod(uid: str, version: int, **meta: Any) -> Obj:
    return {"metadata": {"uid": uid, "name": uid, "resourceVersion": str(version), **meta}}


class CacheVersion:
    value = "0"

    def __call__(self) -> str:
        return self.value


@pytest.mark.acceptance("FW-B24")
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


@pytest.mark.acceptance("FW-B24")
def test_a_newer_write_hides_the_cached_copy() -> None:
    """Of the cached and the written copy, the newer one is seen."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.wrote("rs", pod("a", 9, labels={"new": "yes"}))
    version.value = "20"

    assert own.view("rs", [pod("a", 5)])[0]["metadata"]["labels"] == {"new": "yes"}
    assert "labels" not in own.view("rs", [pod("a", 9)])[0]["metadata"]


@pytest.mark.acceptance("FW-B24")
def test_a_deleted_pod_counts_as_terminating_until_the_cache_says_so() -> None:
    """An own deletion marks the cached copy, and is forgotten when the cache shows it or has lost the object."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.deleted("rs", pod("a", 5))
    version.value = "5"

    assert is_terminating(own.view("rs", [pod("a", 5)])[0])
    assert is_terminating(own.view("rs", [pod("a", 6, deletionTimestamp="2024-01-01T00:00:00Z")])[0])
    assert repr(own) == "OwnWrites(written=0, deleted=0)"


@pytest.mark.acceptance("FW-B24")
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


@pytest.mark.acceptance("FW-B24")
def test_an_object_created_anew_is_not_hidden_by_a_write_to_its_namesake() -> None:
    """Writes belong to a uid: what was written of the old object says nothing about the new one."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.wrote("rs", pod("old", 9))
    own.deleted("rs", pod("old", 9))
    version.value = "12"
    anew = {"metadata": {"uid": "new", "name": "old", "resourceVersion": "11"}}

    assert own.view("rs", [anew]) == [anew]
    assert repr(own) == "OwnWrites(written=0, deleted=0)"


@pytest.mark.acceptance("FW-B24")
def test_a_change_by_somebody_else_on_top_of_ours_is_seen() -> None:
    """The newer one wins whoever made it, and the own write is forgotten."""
    version = CacheVersion()
    own = OwnWrites(version)
    own.wrote("rs", pod("a", 9))
    version.value = "10"

    assert own.newest("rs", pod("a", 10))["metadata"]["resourceVersion"] == "10"
    assert repr(own) == "OwnWrites(written=0, deleted=0)"
